-- A server over TLS that sends lines back, in cqueues' coroutines; the certificate comes through luaossl.

local cqueues = require("cqueues")
local socket = require("cqueues.socket")
local ssl_context = require("openssl.ssl.context")
local pkey = require("openssl.pkey")
local x509 = require("openssl.x509")

local function content(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

local context = ssl_context.new("TLS", true)
context:setCertificate(x509.new(content("build/certificates/server.pem")))
context:setPrivateKey(pkey.new(content("build/certificates/server.key")))

local loop = cqueues.new()
local server = socket.listen { host = "127.0.0.1", port = 0 }
server:listen()
print((select(3, server:localname())))
io.stdout:flush()

local function echo(conn)
  conn:setmode("b", "bn")
  conn:onerror(function(_, _, code) return code end)
  if conn:starttls(context) then
    local line = conn:read("*l")
    while line and conn:write(line, "\n") do
      line = conn:read("*l")
    end
  end
  conn:close()
end

loop:wrap(function()
  for conn in server:clients { nodelay = true } do
    loop:wrap(echo, conn)
  end
end)
assert(loop:loop())
