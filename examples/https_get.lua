#!/usr/bin/env lua
-- Asks a web server for a page over TLS, and prints its status, its headers' size and its body's.
--
-- Usage: lua https_get.lua HOST [PORT [PATH [CA_BUNDLE]]]

local tcp = require("tcp")

local function main()
  local host, port, path = arg[1] or "localhost", tonumber(arg[2] or 443), arg[3] or "/"

  -- Without ca_bundle the system's authorities are trusted.
  local conn, err = tcp.try_connect_tls(host, port, { timeout = 10, read_timeout = 10, tls = { ca_bundle = arg[4] } })
  if not conn then
    io.stderr:write(err.kind == "certificate" and "do not trust it: " or "no answer: ", tostring(err), "\n")
    os.exit(1)
  end

  conn:write("GET " .. path .. " HTTP/1.0\r\nHost: " .. host .. "\r\n\r\n")
  local head
  head, err = conn:try_read_until("\r\n\r\n")
  local status = head and head:match("^HTTP/1%.%d (%d+ [^\r\n]*)")
  if not status then
    io.stderr:write("that is not an HTTP answer", err and ": " .. err or "", "\n")
    os.exit(1)
  end
  local body
  body, err = conn:try_read_str()
  conn:close()
  if not body then
    -- What was cut off on its way is not a shorter page.
    io.stderr:write("the page did not come whole: " .. err .. "\n")
    os.exit(1)
  end
  print(("%s, %d bytes of headers, %d bytes of body"):format(status, #head, #body))
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
