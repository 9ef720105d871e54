-- An echo server in tasks.

local tcp = require("tcp")

local listener = tcp.listen("127.0.0.1", 0)
print(listener:local_port())
io.stdout:flush()

local function echo(conn)
  local data = conn:try_recv()
  while data and conn:try_write(data) do
    data = conn:try_recv()
  end
  conn:close()
end

tcp.run(function()
  while true do
    tcp.spawn(echo, listener:accept())
  end
end)
