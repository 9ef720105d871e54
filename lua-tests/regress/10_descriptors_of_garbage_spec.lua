-- Connections that nobody held any more kept their descriptors until a collection, and connect failed for want of one.

local peers = require("support.peers")
local support = require("support")

describe("connect", function()
  it("collects garbage when descriptors run out", function()
    local peer = peers.start("accept", "again")
    assert.equal("300\n", support.child(([[
      local tcp = require("tcp")
      local count = 0
      for _ = 1, 300 do
        tcp.connect("127.0.0.1", %d)
        count = count + 1
      end
      print(count)
    ]]):format(peer.port), "ulimit -n 40;"))
  end)
end)
