-- Many of everything, in one process.

local tcp = require("tcp.core")
local support = require("support")
local transports = require("support.transports")

local counts = debug.getregistry()["tcp.counts"]

--- What is left of tasks, registrations and timers, after a last round of the loop.
local function left()
  tcp.step(0)
  collectgarbage()
  collectgarbage()
  local now = counts()
  return ("%d tasks, %d registrations, %d timers, %d reads"):format(now.tasks + now.quiet, now.registrations,
    now.timers, now.reading)
end

local NOTHING = "0 tasks, 0 registrations, 0 timers, 0 reads"

local PACKETS = 100

for _, over in ipairs(transports.all) do
  local TASKS = over.is_tls and 500 or 1000

  describe(TASKS .. " tasks" .. over.suffix, function()
    it("exchange a hundred packets each with as many others, and leave nothing", function()
      local listener = over.tcp.listen("127.0.0.1", 0)
      local sent, served, answered = 0, 0, 0
      tcp.spawn(function()
        for _ = 1, TASKS do
          tcp.spawn(function(conn)
            local value = conn:try_read_json_packet()
            while value do
              served = served + value.number
              conn:write_json_packet({ twice = value.number * 2 })
              value = conn:try_read_json_packet()
            end
            conn:close()
          end, listener:accept())
        end
        listener:close()
      end)
      local tasks = {}
      for i = 1, TASKS do
        tasks[i] = tcp.spawn(function()
          local conn = over.tcp.connect("127.0.0.1", listener:local_port(), { timeout = 60, read_timeout = 60 })
          for j = 1, PACKETS do
            sent = sent + i * j
            conn:write_json_packet({ number = i * j })
            local answer = conn:read_json_packet()
            answered = answered + answer.twice
          end
          conn:close()
          return i
        end)
      end
      local joined = 0
      for i = 1, TASKS do
        joined = joined + tasks[i]:join()
      end
      tcp.run()
      local expected = (TASKS * (TASKS + 1) / 2) * (PACKETS * (PACKETS + 1) / 2)
      assert.equal(expected, sent)
      assert.equal(expected, served)
      assert.equal(2 * expected, answered)
      assert.equal(TASKS * (TASKS + 1) / 2, joined)
      assert.equal(NOTHING, left())
    end)
  end)
end

-- Prints how much memory each of 10,000 coroutines takes, then each of as many sleeping tasks, and how late they woke.
local SLEEPERS = [[
  local tcp = require("tcp")
  local COUNT = 10000

  local function resident()
    collectgarbage()
    collectgarbage()
    local file = assert(io.open("/proc/self/statm"))
    local pages = file:read("*a"):match("^%d+ (%d+)")
    file:close()
    return pages * 4096
  end

  local function wait() coroutine.yield() end
  local function body() wait() wait() end
  local before = resident()
  local plain = {}
  for i = 1, COUNT do
    plain[i] = coroutine.create(body)
    coroutine.resume(plain[i])
  end
  local coroutines = resident() - before

  -- Ten are due in every millisecond of a second.
  local late, woken = 0, 0
  local first = tcp.now() + 3
  local function sleeper(i)
    local due = first + i / COUNT
    tcp.sleep(due - tcp.now())
    woken = woken + 1
    late = math.max(late, tcp.now() - due)
  end
  before = resident()
  local tasks = {}
  for i = 1, COUNT do tasks[i] = tcp.spawn(sleeper, i) end
  tcp.sleep(0)
  local sleepers = resident() - before
  assert(tcp.now() < first, "it took too long to begin")
  tcp.run()
  print(woken, sleepers - coroutines <= COUNT * 2048 or (sleepers - coroutines) / COUNT, late < 0.05 or late)
]]

describe("ten thousand sleeping tasks", function()
  it("cost at most 2 KiB each beyond a coroutine, and wake within 50 ms", function()
    assert.equal("10000\ttrue\ttrue\n", support.child(SLEEPERS))
  end)
end)

-- Prints the kinds of error of 200 look-ups, and whether others were disturbed in the meantime.
local LOOKUPS = [[
  local tcp = require("tcp")
  local listener = tcp.listen("127.0.0.1", 0)
  tcp.spawn(function()
    local conn = listener:accept()
    local line = conn:try_read_line()
    while line do
      conn:write_line(line)
      line = conn:try_read_line()
    end
    conn:close()
  end)

  local kinds, ended = {}, 0
  for i = 1, 200 do
    tcp.spawn(function()
      local _, err = tcp.try_connect(("host%d.example"):format(i), 80, 2)
      local what = err.kind .. " " .. err.stage
      kinds[what] = (kinds[what] or 0) + 1
      ended = ended + 1
    end)
  end
  tcp.sleep(0)

  local began = tcp.now()
  local conn = tcp.connect("localhost", listener:local_port(), { family = "ipv4" })
  local quick = tcp.now() - began
  local trips, slowest = 0, 0
  while ended < 200 do
    local at = tcp.now()
    conn:write_line("x")
    conn:read_line()
    slowest = math.max(slowest, tcp.now() - at)
    trips = trips + 1
    tcp.sleep(0.001)
  end
  conn:close()
  listener:close()
  tcp.run()
  for what, count in pairs(kinds) do print(what, count) end
  print(quick < 0.5 or quick, trips > 100 or trips, slowest < 0.25 or slowest)
]]

describe("two hundred slow look-ups", function()
  it("disturb nobody", function()
    if not support.succeeds("unshare -m true") then
      return pending("a resolver that never answers needs a mount namespace of its own (root)")
    end
    local address = "127.99.99.97"
    require("support.peers").start("--silent-dns", address)
    support.with_nameserver(address, function(prefix)
      assert.equal("timeout resolve\t200\ntrue\ttrue\ttrue\n", support.child(LOOKUPS, prefix))
    end)
  end)
end)

-- Ends with everything under way.
local UNFINISHED = [[
  local tcp = require("tcp")
  local listener = tcp.listen("127.0.0.1", 0)
  local queue, large = tcp.queue(1), ("x"):rep(4000000)
  tcp.spawn(function()
    while true do
      tcp.spawn(function(conn) conn:read_str() end, listener:accept())
    end
  end)
  for i = 1, 5 do
    tcp.spawn(function() tcp.try_connect(("x"):rep(64), 80) end)
    tcp.spawn(function() tcp.connect("localhost", listener:local_port()):read_line() end)
    tcp.spawn(function() tcp.connect("127.0.0.1", listener:local_port()):write(large) end)
    tcp.spawn(function() queue:push(i) end)
    tcp.spawn(tcp.with_timeout, 60, tcp.sleep, 30)
    tcp.spawn(tcp.wrap(function() tcp.sleep(60) end))
  end
  tcp.sleep(0.002)
]]

describe("a state that is closed with tasks, look-ups and connections under way", function()
  it("ends without a crash, 200 times", function()
    assert.equal("", support.child(UNFINISHED, nil, 200):sub(1, 2000))
  end)

  it("touches no memory that is not its own", function()
    if not support.succeeds("command -v valgrind") then
      return pending("valgrind is not installed: apt-get install valgrind")
    end
    local output = support.child(UNFINISHED, "valgrind -q --error-exitcode=9")
    if jit then
      -- LuaJIT reads past the ends of its own strings, which valgrind reports: only the module's frames count.
      assert.is_nil(output:find("libtcp", 1, true) or output:find("tcp::", 1, true), output)
    else
      assert.equal("", output)
    end
  end)
end)
