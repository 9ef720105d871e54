#!/usr/bin/env lua
-- Four interpreters serve one port, each on a processor of its own: the system hands every connection to one of them.
-- Asks them many times, and counts who has answered.
--
-- Usage: lua reuse_port.lua [HOST [PORT [REQUESTS]]]

local tcp = require("tcp")

local WORKERS = 4

--- One of the four. It lives as long as its connection to the one that started it.
local function work(host, port, name, boss_port)
  local boss = tcp.connect(host, boss_port)
  local server = tcp.serve(host, port, function(client)
    client:write_line(name)
  end, { reuse_port = true })
  boss:write_line(server:local_port())
  boss:try_read_line()
  server:close()
end

--- How this interpreter was called: the first word of the command, before any options.
local function interpreter()
  local first = 0
  while arg[first - 1] do
    first = first - 1
  end
  return first < 0 and arg[first] or "lua"
end

--- Starts the four. Gives the connections to them, and the port that they share.
local function start(host, port)
  local listener = tcp.listen(host, 0)
  local workers = {}
  for i = 1, WORKERS do
    -- The first one may have its port from the system, and the others get the same.
    local command = "'%s' '%s' '%s' %d worker-%d %d &"
    os.execute(command:format(interpreter(), arg[0], host, port, i, listener:local_port()))
    workers[i] = listener:accept(10)
    port = tonumber(workers[i]:read_line({ timeout = 10 }))
  end
  listener:close()
  return workers, port
end

local function ask(host, port)
  local conn = tcp.connect(host, port)
  local name = conn:read_line({ timeout = 10 })
  conn:close()
  return name
end

local function count_answers(host, port, requests)
  local tasks, counts = {}, {}
  for i = 1, requests do
    tasks[i] = tcp.spawn(ask, host, port)
  end
  for i = 1, requests do
    local name = tasks[i]:join()
    counts[name] = (counts[name] or 0) + 1
  end
  return counts
end

local function main()
  local host, port = arg[1] or "127.0.0.1", tonumber(arg[2] or 0)
  if arg[4] then
    return work(host, port, arg[3], tonumber(arg[4]))
  end
  local workers
  workers, port = start(host, port)
  print(("%d interpreters listen on %s:%d"):format(#workers, host, port))
  local counts = count_answers(host, port, tonumber(arg[3] or 200))
  for i, worker in ipairs(workers) do
    print(("worker-%d has answered %d times"):format(i, counts["worker-" .. i] or 0))
    worker:close()
  end
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
