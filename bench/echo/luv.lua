-- An echo server in luv's callbacks.

local uv = require("luv")

local server = uv.new_tcp()
server:bind("127.0.0.1", 0)
server:listen(1024, function(failed)
  assert(not failed, failed)
  local client = uv.new_tcp()
  server:accept(client)
  client:nodelay(true)
  client:read_start(function(_, data)
    if data then
      client:write(data)
    else
      client:close()
    end
  end)
end)
print(server:getsockname().port)
io.stdout:flush()
uv.run()
