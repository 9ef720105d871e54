-- A server over TLS that sends lines back: LuaSec in copas' coroutines.

local copas = require("copas")
local socket = require("socket")
local ssl = require("ssl")

local context = assert(ssl.newcontext({ mode = "server", protocol = "any", options = "all",
  certificate = "build/certificates/server.pem", key = "build/certificates/server.key" }))

-- Debian's copas never shakes hands, and it waits where a socket says "timeout": LuaSec has other words for that.
local Secure = {}
Secure.__index = Secure
local WAITS = { wantread = "timeout", wantwrite = "timeout" }

local function wait(done, why, ...)
  return done, WAITS[why] or why, ...
end

function Secure:receive(pattern, part)
  if not self.ready then
    local done, why = self.conn:dohandshake()
    if not done then
      return wait(nil, why, "")
    end
    self.ready = true
  end
  return wait(self.conn:receive(pattern, part))
end

function Secure:send(data, from, to)
  return wait(self.conn:send(data, from, to))
end

function Secure:getfd()
  return self.conn:getfd()
end

function Secure:dirty()
  return self.conn:dirty()
end

function Secure:close()
  return self.conn:close()
end

local function echo(client)
  client:setoption("tcp-nodelay", true)
  local conn = assert(ssl.wrap(client, context))
  conn:settimeout(0)
  conn = setmetatable({ conn = conn }, Secure)
  local line = copas.receive(conn)
  while line and copas.send(conn, line .. "\n") do
    line = copas.receive(conn)
  end
  conn:close()
end

local server = assert(socket.bind("127.0.0.1", 0, 1024))
copas.autoclose = false
copas.addserver(server, echo)
print((select(2, server:getsockname())))
io.stdout:flush()
copas.loop()
