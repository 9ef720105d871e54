-- Connections that are cut off after every single byte of their handshake, and of what follows it: a relay between a
-- client and a server of this module lets so many bytes through in one direction.

local sessions = require("support.sessions")
local tcp = require("tcp.core")

local PATIENCE, AT_ONCE = 5, 20

--- Closes a connection that the system need not remember: so many would take too many ports.
local function forget(conn)
  conn:try_set_option("linger", 0)
  conn:close()
end

--- Carries bytes over until an end, `most` of them; says whether that was all.
local function carry(from, to, most)
  local left = most or math.huge
  while left > 0 do
    local bytes = from:try_recv(left < 8192 and left or 8192, { timeout = PATIENCE })
    if not bytes or not to:try_write(bytes) then
      to:try_shutdown("send")
      return false
    end
    left = left - #bytes
  end
  return true
end

-- What happens once they are through.
local ENDINGS = {
  ["ends"] = function(near, far)
    near:try_shutdown("send")
    far:try_shutdown("send")
  end,
  ["is reset"] = function(near, far)
    forget(near)
    forget(far)
  end,
  ["falls silent"] = function() end,
}

local function relay(between, port, cut)
  local near = between:accept(PATIENCE)
  local far = tcp.connect("127.0.0.1", port)
  local is_client = cut.direction == "client"
  local from, to = far, near
  if is_client then
    from, to = near, far
  end
  local back = tcp.spawn(carry, to, from)
  if carry(from, to, cut.most) then
    ENDINGS[cut.ending](near, far)
  end
  back:join(2 * PATIENCE)
  while from:try_recv(nil, { timeout = PATIENCE }) do
    -- It has not ended yet.
    tcp.sleep(0)
  end
  forget(near)
  forget(far)
end

local function outcome(text, err)
  if text then
    return text
  end
  return err and ("%s %s"):format(err.kind, err.stage or "later") or "nothing"
end

--- What becomes of both ends: what they read, or the kind and stage of their error.
local function try(cut, server, between)
  local told
  local serving = tcp.spawn(function()
    local conn = server:accept(PATIENCE)
    conn:set_timeout(cut.patience)
    local line, err = conn:try_read_line()
    if line then
      conn:try_write("answer\n")
      conn:try_shutdown("send")
    end
    told = outcome(line, err)
    -- The one that waits for the other must not end it.
    conn:try_recv(1, { timeout = cut.patience })
    forget(conn)
  end)
  local relaying = tcp.spawn(relay, between, server:local_port(), cut)
  local conn, err = tcp.try_connect("127.0.0.1", between:local_port(),
    { timeout = cut.patience, tls = sessions.fresh { protocols = { cut.protocol } } })
  local text
  if conn then
    conn:set_timeout(cut.patience)
    conn:try_write_line("request")
    text, err = conn:try_read_str()
    forget(conn)
  end
  serving:join(4 * PATIENCE)
  relaying:join(4 * PATIENCE)
  cut.client, cut.server = outcome(text, err), told
end

local SENSIBLE = {
  ["ends"] = { ["closed handshake"] = true, ["truncated later"] = true, ["closed later"] = true },
  ["is reset"] = { ["reset handshake"] = true, ["reset later"] = true, ["closed handshake"] = true,
    ["truncated later"] = true },
  ["falls silent"] = { ["timeout handshake"] = true, ["timeout later"] = true, ["closed handshake"] = true,
    ["truncated later"] = true, ["reset handshake"] = true, ["reset later"] = true },
}

--- What is wrong with how it ended, or nil.
local function complaint(cut)
  local sensible = SENSIBLE[cut.ending]
  local client, server = cut.client, cut.server
  if client == "answer\n" and server == "request" then
    cut.is_whole = true
  elseif client ~= "answer\n" and not sensible[client] then
    return ("byte %d: the client: %s"):format(cut.most, client)
  elseif server ~= "request" and not sensible[server] then
    return ("byte %d: the server: %s"):format(cut.most, server)
  elseif client == "answer\n" and cut.direction == "server" then
    return ("byte %d: the client was content"):format(cut.most)
  end
end

--- Cuts after every `step` bytes, until nothing is cut any more: how many that took.
local function cut_everywhere(protocol, direction, ending, step, patience)
  local at, whole, complaints, tasks = 0, nil, {}, {}
  for i = 1, AT_ONCE do
    tasks[i] = tcp.spawn(function()
      local server, between = sessions.listen(), tcp.listen("127.0.0.1", 0)
      while not whole do
        local cut = { protocol = protocol, direction = direction, ending = ending, most = at, patience = patience }
        at = at + step
        try(cut, server, between)
        complaints[#complaints + 1] = complaint(cut)
        whole = whole or cut.is_whole and cut.most
      end
      server:close()
      between:close()
    end)
  end
  for _, task in ipairs(tasks) do
    task:join(120)
  end
  tcp.run()
  table.sort(complaints)
  assert.equal("", table.concat(complaints, "\n"))
  return whole
end

for _, protocol in ipairs(sessions.VERSIONS) do
  describe("a connection by " .. protocol, function()
    for direction, least in pairs { server = 700, client = 250 } do
      it(("that ends after any byte of the %s is closed or truncated at once"):format(direction), function()
        local began = tcp.now()
        assert.is_true(cut_everywhere(protocol, direction, "ends", 1, 20) > least)
        assert.is_true(tcp.now() - began < 60)
      end)

      it(("that is reset after any byte of the %s is reset or closed"):format(direction), function()
        assert.is_true(cut_everywhere(protocol, direction, "is reset", 7, 20) > least)
      end)

      it(("that falls silent after any byte of the %s times out"):format(direction), function()
        assert.is_true(cut_everywhere(protocol, direction, "falls silent", 23, 0.2) > least)
      end)
    end
  end)
end
