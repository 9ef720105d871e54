-- In a process that was started without standard output, a socket became descriptor 1: what the script printed went to
-- the peer.

local support = require("support")

local SCRIPT = [[
  local tcp = require("tcp")
  local listener = tcp.listen("127.0.0.1", 0)
  local near = tcp.connect("127.0.0.1", listener:local_port())
  local far = listener:accept()
  print("a secret")
  io.stdout:flush()
  io.stderr:write(tostring(far:try_recv(100, { timeout = 0.05 })), " ", near:pollfd() > 2 and far:pollfd() > 2
    and listener:pollfd() > 2 and "above" or "below")
]]

describe("a process without standard streams", function()
  it("has no socket in their place", function()
    assert.equal("nil above", support.child(SCRIPT, [[sh -c 'exec "$@" 2>&1 >&- <&-' sh]]))
  end)
end)
