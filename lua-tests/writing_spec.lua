local support = require("support")
local transports = require("support.transports")

local fails = support.fails

-- Far more than the system's buffers on both sides hold.
local BIG = ("0123456789abcdef"):rep(1024 * 1024)

for _, over in ipairs(transports.all) do
  describe("writing" .. over.suffix, function()
    local tcp, connect_to = over.tcp, over.connect_to

    --- Connects to a peer that reports what it got, runs `write` and gives what the peer got.
    local function written_by(write, options)
      local conn, peer = connect_to(options or {}, "accept", "drain")
      write(conn)
      conn:close()
      return peer:got()
    end

    it("write takes strings, numbers, tables of strings and tables of bytes, and gives the connection", function()
      local got = written_by(function(conn)
        assert.equal(conn, conn:write("a"))
        assert.equal(conn, conn:try_write("b", 12, { "c", "", "d" }, { 0, 255 }, {}, "e"))
        assert.equal(conn, conn:write(""))
        assert.equal(conn, conn:write({}))
      end)
      assert.equal("ab12cd\0\255e", got)
    end)

    it("write sends more pieces than one system call takes", function()
      local pieces = {}
      for i = 1, 5000 do
        pieces[i] = tostring(i)
      end
      assert.equal(table.concat(pieces), written_by(function(conn)
        conn:write(pieces)
      end))
    end)

    it("write sends what the system does not take at once", function()
      local got = written_by(function(conn)
        conn:write(BIG)
        conn:write("x", BIG, { BIG, "y" })
      end)
      assert.equal(3 * #BIG + 2, #got)
      assert.is_true(got == BIG .. "x" .. BIG .. BIG .. "y")
    end)

    it("send gives the number of bytes", function()
      assert.equal("hello", written_by(function(conn)
        assert.equal(5, conn:send("hello"))
        assert.equal(0, conn:send(""))
      end))
      assert.equal(#BIG, #written_by(function(conn)
        assert.equal(#BIG, conn:try_send(BIG))
      end))
    end)

    it("send_some gives what one write took, and goes on from a position", function()
      local got = written_by(function(conn)
        local first = 1
        while first <= #BIG do
          local taken = conn:send_some(BIG, first)
          assert.is_true(taken >= 1)
          first = first + taken
        end
        assert.equal(0, conn:send_some(BIG, #BIG + 1))
        assert.equal(0, conn:send_some(""))
      end)
      assert.is_true(got == BIG)
    end)

    it("write_line appends the newline option", function()
      assert.equal("one\r\n2\r\n", written_by(function(conn)
        assert.equal(conn, conn:write_line("one"))
        assert.equal(conn, conn:try_write_line(2))
      end))
      assert.equal("one\n", written_by(function(conn)
        conn:write_line("one")
      end, { newline = "\n" }))
    end)

    it("write_str is write for one string", function()
      assert.equal("abc", written_by(function(conn)
        assert.equal(conn, conn:write_str("abc"))
        support.misuse("bad argument #1 to 'write_str' (string expected, got table)", conn.write_str, conn, { "a" })
      end))
    end)

    it("write_json writes a document and a newline, and returns nothing", function()
      assert.equal('{"a":[1,2]}\n"x"\n', written_by(function(conn)
        assert.equal(0, select("#", conn:write_json({ a = { 1, 2 } })))
        assert.is_true(conn:try_write_json("x"))
      end))
    end)

    it("packets are a 4-byte length and the payload, and return nothing", function()
      local got = written_by(function(conn)
        assert.equal(0, select("#", conn:write_packet("abc")))
        assert.is_true(conn:try_write_packet(""))
        assert.equal(0, select("#", conn:write_json_packet({ true })))
        assert.is_true(conn:try_write_json_packet(tcp.null))
      end)
      assert.equal("\0\0\0\3abc\0\0\0\0\0\0\0\6[true]\0\0\0\4null", got)
      assert.equal("\3\0\0\0abc", written_by(function(conn)
        conn:write_packet("abc")
      end, { packet_endian = "little" }))
    end)

    it("a packet over max_packet is refused before a byte is sent", function()
      assert.equal("\0\0\0\3abc", written_by(function(conn)
        local err = fails("too_large", conn:try_write_packet("abcd"))
        assert.equal("packet of 4 bytes is over max_packet (3)", err.message)
        fails("too_large", conn:try_write_json_packet({ 1, 2 }))
        conn:write_packet("abc")
      end, { max_packet = 3 }))
    end)

    it("what JSON cannot express is refused before a byte is sent", function()
      assert.equal("[1]\n", written_by(function(conn)
        local err = fails("json", conn:try_write_json({ items = { { name = print } } }))
        assert.equal("a function is not a JSON value at $.items[1].name", err.message)
        assert.equal("write_json", err.op)
        fails("json", conn:try_write_json_packet({ 0 / 0 }))
        conn:write_json({ 1 })
      end))
    end)

    it("a write that timed out says how far it got, and can be continued from there", function()
      local conn, peer = connect_to("accept", { "sleep", 400 }, "drain")
      conn:set_write_timeout(0.1)
      local err = fails("timeout", conn:try_write(BIG))
      assert.is_true(err.written > 0 and err.written < #BIG)
      assert.equal("write", err.op)
      conn:set_write_timeout(10)
      conn:write(BIG:sub(err.written + 1))
      conn:close()
      assert.is_true(peer:got() == BIG)
    end)

    it("a timeout before the first byte breaks nothing", function()
      local conn, peer = connect_to("accept", { "sleep", 600 }, "drain")
      conn:set_write_timeout(0.05)
      local sent = 0
      local written
      repeat
        written = fails("timeout", conn:try_write(BIG:sub(sent + 1))).written
        sent = sent + written
      until written == 0
      local err = fails("timeout", conn:try_write_packet("abc"))
      assert.equal(0, err.written)
      conn:set_write_timeout(nil)
      conn:write_packet("abc")
      conn:close()
      assert.is_true(peer:got() == BIG:sub(1, sent) .. "\0\0\0\3abc")
    end)

    it("a packet, a line or JSON cut half-way ends the sending side; reading goes on", function()
      local calls = {
        write_packet = BIG, write_line = BIG, write_json = BIG, write_json_packet = BIG,
      }
      for name, value in pairs(calls) do
        local conn, peer = connect_to({ max_packet = 2 ^ 30 }, "accept", { "send", "still here" },
          { "sleep", 300 }, "drain")
        conn:set_write_timeout(0.1)
        local err = fails("timeout", conn["try_" .. name](conn, value))
        assert.is_true(err.written > 0, name)
        fails("closed", conn:try_write("more"))
        assert.equal("still here", conn:read(10))
        conn:close()
        local got = #peer:got()
        -- What TLS had encrypted and the system had not taken is lost.
        assert.is_true(got == err.written or over.is_tls and got < err.written, name)
      end
    end)

    it("takes its timeout anew whenever bytes move", function()
      local conn, peer = connect_to("accept", { "sleep", 150 }, { "skip", 4000000 }, { "sleep", 150 },
        { "skip", 4000000 }, { "sleep", 150 }, "drain")
      conn:set_option("send_buffer", 65536)
      conn:set_write_timeout(0.3)
      conn:write(BIG)
      conn:close()
      assert.is_true(peer:got() == BIG:sub(8000001))
    end)

    it("to a peer that has gone fails with reset, after its last words were saved", function()
      local conn, peer = connect_to("accept", { "send", "goodbye" }, "close")
      -- It ends before anything could arrive that it does not read.
      peer.process:read("*a")
      local deadline = tcp.now() + 10
      local err
      repeat
        local ok
        ok, err = conn:try_write("x")
        tcp.sleep(0.005)
      until not ok or tcp.now() > deadline
      assert.equal("reset", err.kind)
      -- TLS has encrypted it.
      assert.equal(over.is_tls and 1 or 0, err.written)
      assert.equal("goodbye", conn:read(7))
      assert.equal(0, fails("reset", conn:try_write_packet("x")).written)
      conn:close()
    end)

    it("on a closed connection fails with closed", function()
      local conn = connect_to("accept", "drain")
      conn:close()
      for _, name in ipairs { "write", "send", "send_some", "write_line", "write_str", "write_json", "write_packet",
        "write_json_packet" } do
        local err = fails("closed", conn["try_" .. name](conn, "x"))
        assert.equal(name, err.op)
      end
    end)

    it("after shutdown of the sending side fails with closed, and reading goes on", function()
      local conn, peer = connect_to("accept", "drain", { "send", "answer" }, "close")
      conn:write("question")
      assert.equal(0, select("#", conn:shutdown("send")))
      fails("closed", conn:try_write("more"))
      assert.equal("answer", conn:read_str())
      assert.equal("question", peer:got())
      conn:close()
    end)
  end)
end
