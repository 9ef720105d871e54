local tcp = require("tcp")
local transports = require("support.transports")

for _, over in ipairs(transports.all) do
  describe("the legacy send and recv" .. over.suffix, function()
    local connect_to = over.connect_to

    it("use the connection that connect or try_connect opened last", function()
      local first, first_peer = connect_to("accept", "drain")
      tcp.send("to the first")
      local peer = over.start("accept", { "send", "from the second" }, "drain")
      local second = assert((over.tcp.try_connect(peer.host, peer.port)))
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
        local text = name .. ": no connection is open: call connect first"
        assert.matches("legacy_spec%.lua:%d+: " .. text .. "$", tostring(err))
      end
    end)

    it("keep the last connection alive, but no other", function()
      local peer = over.start("accept", { "send", "still here" }, "drain")
      over.tcp.connect(peer.host, peer.port)
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
end

describe("connect_tls", function()
  local over = transports.tls

  for _, name in ipairs { "connect_tls", "try_connect_tls" } do
    it("opens the connection that send and recv use, as " .. name, function()
      local first, first_peer = over.connect_to("accept", "drain")
      local peer = over.start("accept", { "send", "over TLS" }, "drain")
      local conn = assert(tcp[name](peer.host, peer.port, { tls = transports.CLIENT }))
      assert.is_true(conn:is_tls())
      tcp.send("encrypted")
      assert.equal("over TLS", tcp.recv())
      conn:close()
      assert.is_false((pcall(tcp.send, "x")))
      first:close()
      assert.equal("encrypted", peer:got())
      assert.equal("", first_peer:got())
    end)
  end

  it("that fails leaves the last connection as it is", function()
    local conn, peer = over.connect_to("accept", { "send", "still there" }, "drain")
    -- This authority is not the system's.
    local stranger = over.start("accept", "drain")
    assert.is_true(tcp.is_error(select(2, tcp.try_connect_tls(stranger.host, stranger.port)), "certificate"))
    tcp.send("to the first")
    assert.equal("still there", tcp.recv())
    conn:close()
    assert.equal("to the first", peer:got())
  end)

  it("is a global of require('tcp')", function()
    assert.equal(tcp.connect_tls, rawget(_G, "connect_tls"))
  end)
end)
