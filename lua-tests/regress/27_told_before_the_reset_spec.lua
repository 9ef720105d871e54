-- A TLS listener that refused a client and closed reset it, if much of what the client had sent was unread: the alert
-- that told the client why was lost.

local tcp = require("tcp.core")
local support = require("support")
local transports = require("support.transports")

it("what a client is told of its failed handshake reaches it, however much it had sent", function()
  local listener = tcp.listen("127.0.0.1", 0, { tls = transports.SERVER })
  local client = tcp.connect("127.0.0.1", listener:local_port())
  local sending = tcp.spawn(client.try_write, client, "POST / HTTP/1.1\r\n\r\n" .. ("x"):rep(200000))
  local conn = listener:accept()
  local err = support.fails("tls", conn:try_handshake({ timeout = 10 }))
  assert.equal('the client does not speak TLS here: it sent "POST / HTTP/1.1"', err.message)
  assert.equal("handshake", support.fails("tls", conn:try_read(1)).stage)
  conn:close()
  -- An alert: type, version, length (RFC 5246, section 7.2).
  assert.equal("\21\3", client:read(7, { timeout = 10 }):sub(1, 2))
  sending:try_join(10)
  transports.close_all(client, listener)
end)
