#!/usr/bin/env lua
-- Asks the first of several servers that answers: whoever refuses, is not there or says nothing in time is passed over.
--
-- Usage: lua fallback.lua SECONDS REQUEST HOST:PORT...     a line there, a line back, in that time each

local tcp = require("tcp")

--- The answer, or nil and why there is none.
local function ask(host, port, request, seconds)
  local conn, err = tcp.try_connect(host, port, { timeout = seconds, read_timeout = seconds })
  if not conn then
    return nil, err
  end
  local answer
  answer, err = conn:try_write_line(request)
  if answer then
    answer, err = conn:try_read_line()
  end
  conn:close()
  return answer, err
end

local function main()
  local seconds, request = tonumber(arg[1]), arg[2]
  if not seconds or not arg[3] then
    io.stderr:write("usage: lua fallback.lua SECONDS REQUEST HOST:PORT...\n")
    os.exit(2)
  end
  for i = 3, #arg do
    local host, port = arg[i]:match("^(.+):(%d+)$")
    if not host then
      io.stderr:write("that is not HOST:PORT: ", arg[i], "\n")
      os.exit(2)
    end
    local answer, err = ask(host, tonumber(port), request, seconds)
    if answer then
      print(arg[i] .. " says: " .. answer)
      os.exit(0)
    end
    -- What is wrong is for whoever mends it; the next server does not mind.
    io.stderr:write("passed over: ", tostring(err), "\n")
  end
  io.stderr:write("none of them answers\n")
  os.exit(1)
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
