local tcp = require("tcp")
local peers = require("support.peers")
local support = require("support")

local connect_to = support.connect_to

describe("the legacy send and recv", function()
  it("use the connection that connect or try_connect opened last", function()
    local first, first_peer = connect_to("accept", "drain")
    tcp.send("to the first")
    local peer = peers.start("accept", { "send", "from the second" }, "drain")
    local second = assert((tcp.try_connect(peer.host, peer.port)))
    assert.equal(0, select("#", tcp.send("to the second")))
    assert.equal("from the second", tcp.recv())
    second:close()
    first:close()
    assert.equal("to the first", first_peer:got())
    assert.equal("to the second", peer:got())
  end)

  it("give an empty string at the end of the stream", function()
    local conn = connect_to("accept", { "send", "abc" }, "close")
    assert.equal("abc", tcp.recv())
    assert.equal("", tcp.recv())
    assert.equal("", tcp.recv())
    conn:close()
  end)

  it("take at most 8192 bytes at once", function()
    local conn = connect_to("accept", { "repeat", 100, ("x"):rep(1000) }, "close")
    local total = 0
    repeat
      local chunk = tcp.recv()
      assert.is_true(#chunk <= 8192)
      total = total + #chunk
    until chunk == ""
    assert.equal(100000, total)
    conn:close()
  end)

  it("raise closed when there is none, or after its close", function()
    local conn = connect_to("accept", "stall")
    conn:close()
    for name, call in pairs { send = tcp.send, recv = tcp.recv } do
      local ok, err = pcall(call, "x")
      assert.is_false(ok)
      assert.is_true(tcp.is_error(err, "closed"))
      assert.equal(name, err.op)
      assert.matches("legacy_spec%.lua:%d+: " .. name .. ": no connection is open: call connect first$", tostring(err))
    end
  end)

  it("keep the last connection alive, but no other", function()
    local peer = peers.start("accept", { "send", "still here" }, "drain")
    tcp.connect(peer.host, peer.port)
    collectgarbage()
    collectgarbage()
    assert.equal("still here", tcp.recv())
    local conn = connect_to("accept", "stall")
    collectgarbage()
    collectgarbage()
    assert.equal("", peer:got())
    conn:close()
  end)

  it("still use the last one when an earlier one is closed", function()
    local first = connect_to("accept", "stall")
    local second, peer = connect_to("accept", "drain")
    first:close()
    tcp.send("x")
    second:close()
    assert.equal("x", peer:got())
  end)
end)
