-- With another loop polling tcp.pollfd(), a change of a connection that nobody waited for was never taken: the
-- descriptor stayed readable, and the other loop spun.

local peers = require("support.peers")
local support = require("support")

describe("the loop's descriptor", function()
  it("does not stay readable for what nobody waits for", function()
    if not support.has_module("luv") then
      return pending("luv is not installed: apt-get install lua-luv")
    end
    local peer = peers.start("accept", { "sleep", 100 }, { "send", "unexpected" }, "stall")
    assert.equal("few\n", support.child(([[
      local tcp, uv = require("tcp"), require("luv")
      local fd, steps = tcp.pollfd(), 0
      local conn = tcp.connect("127.0.0.1", %d)
      tcp.spawn(function() conn:try_read(1, { timeout = 0.02 }) end)
      local poll, timer = uv.new_poll(fd), uv.new_timer()
      poll:start("r", function()
        steps = steps + 1
        tcp.step(0)
      end)
      timer:start(400, 0, function()
        poll:stop()
        timer:stop()
      end)
      uv.run()
      print(steps < 20 and "few" or steps)
    ]]):format(peer.port)))
  end)
end)
