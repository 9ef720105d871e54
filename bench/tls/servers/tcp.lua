-- A server over TLS that sends lines back, in tasks.

local tcp = require("tcp")

local listener = tcp.listen("127.0.0.1", 0, {
  tls = { cert = "build/certificates/server.pem", key = "build/certificates/server.key" },
})
print(listener:local_port())
io.stdout:flush()

local function echo(conn)
  local line = conn:try_read_line()
  while line and conn:try_write(line, "\n") do
    line = conn:try_read_line()
  end
  conn:close()
end

tcp.run(function()
  while true do
    tcp.spawn(echo, listener:accept())
  end
end)
