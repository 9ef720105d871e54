#!/usr/bin/env lua
-- Sends every line back to whoever sent it: one task for each client, as many as come.
--
-- Usage: lua echo_server.lua [HOST [PORT [CERT KEY]]]     and then: nc 127.0.0.1 7000
-- With the paths of a certificate and its key (PEM) it speaks TLS: openssl s_client -quiet -connect 127.0.0.1:7000

local tcp = require("tcp")

local function main()
  local tls = arg[3] and { cert = arg[3], key = arg[4] }
  local listener = tcp.listen(arg[1] or "127.0.0.1", tonumber(arg[2] or 7000), { tls = tls })
  print("listening on " .. listener:addr())
  io.stdout:flush()

  local function echo(conn)
    local line = conn:try_read_line()
    while line and conn:try_write_line(line) do
      line = conn:try_read_line()
    end
    conn:close()
  end

  tcp.run(function()
    while true do
      tcp.spawn(echo, listener:accept())
    end
  end)
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
