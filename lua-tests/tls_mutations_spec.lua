-- What happens to a connection whose bytes are damaged on their way: a relay between a client and a server of this
-- module changes some, at places that a generator with a fixed seed picks.

local peers = require("support.peers")
local tcp = require("tcp.core")
local transports = require("support.transports")

-- About so many bytes go each way, the handshake included.
local LENGTHS = { server = 3000, client = 900 }
local MUTATIONS, AT_ONCE = 400, 20
local PATIENCE = 0.4

local REQUEST = "request " .. ("q"):rep(200)
local ANSWER = {}
for i = 1, 60 do
  ANSWER[i] = ("line %d of the answer\n"):format(i)
end
ANSWER = table.concat(ANSWER)

local authority = assert(io.open(transports.certificate("ca")))
local CA = authority:read("*a")
authority:close()

-- Numerical Recipes' generator: math.random differs from Lua to Lua.
local function generator(seed)
  local state = seed
  return function(most)
    state = (state * 1664525 + 1013904223) % 2 ^ 32
    return math.floor(state / 2 ^ 32 * most) + 1
  end
end

-- Each gets what is before a place, the bytes from there on, and something random; no second result: the end.
local DAMAGES = {
  flip = function(before, after, random)
    local byte = (after:byte() + random(255)) % 256
    return before .. string.char(byte) .. after:sub(2)
  end,
  drop = function(before, after, random)
    return before .. after:sub(1 + random(40))
  end,
  insert = function(before, after, random)
    local bytes = {}
    for i = 1, random(40) do
      bytes[i] = string.char(random(256) - 1)
    end
    return before .. table.concat(bytes) .. after
  end,
  double = function(before, after, random)
    local some = after:sub(1, random(200))
    return before .. some .. after
  end,
  zero = function(before, after, random)
    local count = math.min(#after, random(16))
    return before .. ("\0"):rep(count) .. after:sub(count + 1)
  end,
  cut = function(before)
    return before, true
  end,
}
local NAMES = { "flip", "flip", "flip", "drop", "insert", "double", "zero", "cut" }

--- Carries bytes over until an end, with `damage` done at the byte number `place`.
local function carry(from, to, place, damage, random)
  local passed, is_over = 0, false
  local bytes = from:try_recv(nil, { timeout = 10 })
  while bytes and not is_over do
    local count = #bytes
    if place and place > passed and place <= passed + count then
      bytes, is_over = DAMAGES[damage](bytes:sub(1, place - passed - 1), bytes:sub(place - passed), random)
    end
    passed = passed + count
    if not to:try_write(bytes) then
      break
    end
    if not is_over then
      bytes = from:try_recv(nil, { timeout = 10 })
    end
  end
  to:try_shutdown("send")
end

--- Relays the next connection, damaged in one direction.
local function relay(listener, port, mutation)
  local near = listener:accept(10)
  local far = tcp.connect("127.0.0.1", port)
  local place, damage, random = mutation.place, mutation.damage, mutation.random
  local is_ours = mutation.direction == "client"
  local there = tcp.spawn(carry, near, far, is_ours and place, damage, random)
  carry(far, near, not is_ours and place, damage, random)
  there:join(20)
  near:close()
  far:close()
end

--- What the server makes of one client: the request that it got, or its error.
local function answer(listener, mutation)
  local conn = listener:accept(10)
  conn:set_timeout(mutation.patience)
  local got, err = conn:try_read_line()
  if got then
    conn:try_write(ANSWER)
    conn:try_shutdown("send")
    conn:try_recv()
  end
  conn:close()
  return got, err
end

--- What the client makes of it: its answer or what it has of it, and its error.
local function ask(port, mutation)
  local conn, err = tcp.try_connect("127.0.0.1", port, { timeout = mutation.patience, tls = mutation.tls })
  if not conn then
    return nil, err
  end
  conn:set_timeout(mutation.patience)
  conn:try_write(REQUEST, "\n")
  local text
  text, err = conn:try_read_str()
  if not text then
    text = conn:read(conn:buffered())
  end
  conn:close()
  return text, err
end

local SENSIBLE = { tls = true, closed = true, reset = true, truncated = true, timeout = true, certificate = true }

--- What is wrong with how one mutation ended, or nil.
local function complaint(got, got_err, text, err)
  if got and got ~= REQUEST then
    return ("the server read %q"):format(got)
  elseif got_err and not (tcp.is_error(got_err) and SENSIBLE[got_err.kind]) then
    return "the server failed with " .. tostring(got_err)
  elseif err and not (tcp.is_error(err) and SENSIBLE[err.kind]) then
    return "the client failed with " .. tostring(err)
  elseif text and ANSWER:sub(1, #text) ~= text then
    return ("the client read %q"):format(text)
  elseif not err and text ~= (got and ANSWER or "") then
    -- A server that did not understand the request closes in an orderly way.
    return ("the client was content with %d bytes"):format(#(text or ""))
  end
end

local function try(mutation)
  local server = tcp.listen("127.0.0.1", 0, { tls = transports.SERVER })
  local between = tcp.listen("127.0.0.1", 0)
  local answering = tcp.spawn(answer, server, mutation)
  local relaying = tcp.spawn(relay, between, server:local_port(), mutation)
  local text, err = ask(between:local_port(), mutation)
  relaying:join(20)
  between:close()
  -- A client that never came to speak.
  local got, got_err = answering:try_join(20)
  server:close()
  mutation.outcome = err and err.kind or "unharmed"
  mutation.complaint = complaint(got, got_err, text, err)
end

--- The same with a peer for the server, which only speaks.
local function try_peer(mutation)
  local between = tcp.listen("127.0.0.1", 0)
  local relaying = tcp.spawn(relay, between, mutation.port, mutation)
  local text, err = ask(between:local_port(), mutation)
  relaying:join(20)
  between:close()
  mutation.outcome = err and err.kind or "unharmed"
  mutation.complaint = complaint(REQUEST, nil, text, err)
end

local function run(mutations)
  local next_one = 0
  local tasks = {}
  for i = 1, AT_ONCE do
    tasks[i] = tcp.spawn(function()
      while next_one < #mutations do
        next_one = next_one + 1
        try(mutations[next_one])
      end
    end)
  end
  for _, task in ipairs(tasks) do
    task:join(60)
  end
  tcp.run()
end

--- `count` mutations in this direction, and none at all as the last one.
local function mutations_of(direction, count, length)
  local mutations = {}
  for i = 1, count do
    local random = generator(i + length)
    -- The first numbers of neighbouring seeds are neighbours.
    random(2)
    mutations[i] = {
      direction = direction, place = random(length), damage = NAMES[random(#NAMES)], random = random,
      patience = PATIENCE,
      -- Sessions are resumed under the same options only: half of the handshakes are whole ones.
      tls = i % 2 == 0 and transports.CLIENT or { ca_bundle = CA .. ("\n"):rep(i) },
    }
  end
  mutations[count + 1] = { direction = direction, patience = 10, tls = transports.CLIENT }
  return mutations
end

local function assert_sensible(mutations)
  local complaints, outcomes = {}, {}
  for i, it in ipairs(mutations) do
    local outcome = it.outcome or "none"
    outcomes[outcome] = (outcomes[outcome] or 0) + 1
    if it.complaint or not it.outcome then
      complaints[#complaints + 1] = ("%d (%s at %s): %s"):format(i, it.damage or "nothing", tostring(it.place),
        it.complaint or "it did not end")
    end
  end
  assert.equal("", table.concat(complaints, "\n"))
  assert.equal("unharmed", mutations[#mutations].outcome)
  -- The damages do their work.
  assert.is_true((outcomes.tls or 0) >= 20, "only " .. tostring(outcomes.tls))
end

describe("bytes damaged on their way", function()
  for direction, length in pairs(LENGTHS) do
    it(("from the %s are never taken for others"):format(direction), function()
      local mutations = mutations_of(direction, MUTATIONS / 2, length)
      run(mutations)
      assert_sensible(mutations)
    end)
  end

  for _, version in ipairs { "--tls", "--tls12" } do
    it(("from a server of another kind are never taken for others (%s)"):format(version), function()
      -- It takes the request in before it closes: a reset would take its last words away.
      local peer = peers.start({ version, "server" }, "accept", { "send", ANSWER }, "goodbye", "drain", "close",
        "again")
      local mutations = mutations_of("server", MUTATIONS / 4, LENGTHS.server)
      -- The peer serves one client at a time.
      for _, mutation in ipairs(mutations) do
        mutation.port = peer.port
        try_peer(mutation)
      end
      tcp.run()
      assert_sensible(mutations)
    end)
  end
end)
