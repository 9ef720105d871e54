#!/usr/bin/env lua
-- Tells which ports of a host answer, all of them tried at the same time.
--
-- Usage: lua check_ports.lua HOST FIRST LAST [SECONDS]

local tcp = require("tcp")

local function main()
  local host, first, last = arg[1] or "localhost", tonumber(arg[2] or 1), tonumber(arg[3] or 200)
  local seconds = tonumber(arg[4] or 2)

  local tasks = {}
  for port = first, last do
    tasks[port] = tcp.spawn(function()
      local conn, err = tcp.try_connect(host, port, seconds)
      if not conn then
        return err.kind
      end
      conn:close()
      return "open"
    end)
  end

  local counts = {}
  for port = first, last do
    local answer = tasks[port]:join()
    counts[answer] = (counts[answer] or 0) + 1
    if answer == "open" then
      print(("%s:%d is open"):format(host, port))
    end
  end
  for _, answer in ipairs { "open", "refused", "timeout", "unreachable", "resolve", "reset", "system" } do
    if counts[answer] then
      print(("%d %s"):format(counts[answer], answer))
    end
  end
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
