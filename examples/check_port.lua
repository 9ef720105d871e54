#!/usr/bin/env lua
-- Tells whether a server answers, and what is wrong if it does not. Exits with 0 if it does.
--
-- Usage: lua check_port.lua HOST PORT [SECONDS]

local tcp = require("tcp")

local function main()
  local host, port, seconds = arg[1] or "localhost", tonumber(arg[2] or 80), tonumber(arg[3] or 3)

  local began = tcp.now()
  local conn, err = tcp.try_connect(host, port, seconds)
  if conn then
    print(("%s answers after %.1f ms"):format(conn:remote_addr(), (tcp.now() - began) * 1000))
    conn:close()
  elseif tcp.is_error(err, "refused") then
    print("nobody listens there: " .. err)
    os.exit(1)
  elseif tcp.is_error(err, "timeout") then
    print("no answer at stage " .. err.stage .. ": " .. err)
    os.exit(2)
  else
    print(err.kind .. ": " .. err)
    os.exit(3)
  end
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
