#!/usr/bin/env lua
-- Asks a web server for a page with nothing but connect, send and recv, the module's legacy globals.
--
-- Usage: lua http_get.lua HOST [PORT [PATH]]

local tcp = require("tcp")

local function main()
  local host, port, path = arg[1] or "localhost", tonumber(arg[2] or 80), arg[3] or "/"

  connect(host, port, 5)
  send("GET " .. path .. " HTTP/1.0\r\nHost: " .. host .. "\r\nConnection: close\r\n\r\n")

  local chunks = {}
  repeat
    local chunk = recv()
    chunks[#chunks + 1] = chunk
  until chunk == ""
  local answer = table.concat(chunks)

  local version, status, reason = answer:match("^HTTP/(%d%.%d) (%d+) ([^\r\n]*)")
  if not status then
    io.stderr:write("that is not an HTTP answer\n")
    os.exit(1)
  end
  local body = answer:match("\r\n\r\n(.*)$") or ""
  print(("HTTP %s, status %s (%s), %d bytes"):format(version, status, reason, #body))
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
