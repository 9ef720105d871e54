-- One connection that floods a server, and 99 others that talk with it: all in a process of their own, whose collector
-- has nothing else to look at, by the clock of its processor time, which stands still while the machine does something
-- else.

local support = require("support")
local tcp = require("tcp.core")
local serving = require("support.serving")

local floods = {}

local CLIENTS, REQUESTS, ROUNDS = 99, 4, 3

-- What the server does with each piece of a flood.
local TAKES = {
  lines = function(conn) return conn:try_read_line() end,
  bytes = function(conn) return conn:try_recv(65536) end,
  requests = function(conn)
    local line = conn:try_read_line()
    return line and conn:try_write_line(line)
  end,
}

floods.NAMES = { "lines", "bytes", "requests" }

--- Sends empty lines as fast as they are taken, until the connection is closed.
local function flood(conn)
  local reading = tcp.spawn(function()
    while conn:try_recv(65536) do end
  end)
  local data = ("\n"):rep(65536)
  while conn:try_write(data) do end
  reading:join()
end

--- Adds the processor's seconds until each answer has come.
local function ask(clients, times)
  local tasks = {}
  for i, client in ipairs(clients) do
    tasks[i] = tcp.spawn(function()
      for _ = 1, REQUESTS do
        local began = os.clock()
        client:write_line("hello")
        assert(client:read_line() == "HELLO")
        times[#times + 1] = os.clock() - began
      end
    end)
  end
  for _, task in ipairs(tasks) do
    task:join(60)
  end
end

--- The 99th percentile.
local function percentile(times)
  table.sort(times)
  return times[math.ceil(#times * 0.99)]
end

--- The two percentiles, with a flood and without: it goes on in one round and pauses in the other, in turn.
function floods.percentiles(over_name, name)
  local over, take = serving[over_name], TAKES[name]
  local count, stopped, is_over = 0, nil, false
  local server = over.serve(function(conn)
    if conn:read_line() ~= "flood" then
      return serving.echo(conn)
    end
    while not is_over and take(conn) do
      count = count + 1
      if stopped then
        stopped:pop()
      end
    end
  end)
  local clients = {}
  for i = 1, CLIENTS do
    clients[i] = over.connect(server)
    clients[i]:write_line("talk")
  end
  local flooding = over.connect(server)
  flooding:write_line("flood")
  local task = tcp.spawn(flood, flooding)
  -- Once to get warm.
  ask(clients, {})
  local with, without = {}, {}
  for _ = 1, ROUNDS do
    local before = count
    ask(clients, with)
    assert(count > before, "it did not flood")
    stopped = tcp.queue()
    ask(clients, without)
    stopped:close()
    stopped = nil
  end
  is_over = true
  flooding:close()
  task:join(60)
  return percentile(with), percentile(without)
end

function floods.in_child(over_name, name)
  local output = support.child(([[
    package.path = "lua-tests/?.lua;lua-tests/?/init.lua;" .. package.path
    print(require("support.floods").percentiles("%s", "%s"))
    os.exit(0)
  ]]):format(over_name, name), "ulimit -S -n 4096;")
  local with, without = output:match("^(%S+)%s+(%S+)\n$")
  return assert(tonumber(with), output), tonumber(without)
end

return floods
