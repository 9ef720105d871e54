local support = require("support")
local transports = require("support.transports")

local fails = support.fails

for _, over in ipairs(transports.all) do
  describe("reading" .. over.suffix, function()
    local tcp, connect_to = over.tcp, over.connect_to

    describe("read", function()
      it("gives exactly the bytes asked for, however they arrive", function()
        local conn = connect_to("accept", { "dribble", 2, "hello world" }, "close")
        assert.equal("hello", conn:read(5))
        assert.equal("", conn:read(0))
        assert.equal(" world", conn:read("6"))
        conn:close()
      end)

      it("leaves what had arrived for the next read when the stream ends too early", function()
        local conn = connect_to("accept", { "send", "half" }, "close")
        local err = fails("closed", conn:try_read(10))
        assert.equal("closed by the peer, 4 bytes were left over", err.message)
        assert.equal(4, conn:buffered())
        assert.equal("half", conn:read(4))
        fails("closed", conn:try_read(1))
        assert.equal(0, conn:buffered())
        conn:close()
      end)

      it("leaves what had arrived for the next read after a timeout", function()
        local conn = connect_to("accept", { "send", "half" }, "stall")
        fails("timeout", conn:try_read(10, { timeout = 0.1 }))
        assert.equal("half", conn:read(conn:buffered()))
        conn:close()
      end)

      it("takes large counts whole", function()
        local conn = connect_to("accept", { "repeat", 3000, ("x"):rep(1000) }, "close")
        local bytes = conn:read(3000000)
        assert.equal(3000000, #bytes)
        assert.is_nil(bytes:find("[^x]"))
        conn:close()
      end)

      it("reserves nothing for a claim", function()
        local conn = connect_to("accept", { "send", "x" }, "close")
        fails("closed", conn:try_read(2 ^ 40))
        conn:close()
      end)
    end)

    it("read_bytes gives integers", function()
      local conn = connect_to("accept", { "send", "\0\1\255" }, "close")
      assert.same({ 0, 1, 255 }, conn:read_bytes(3))
      assert.same({}, conn:read_bytes(0))
      conn:close()
    end)

    describe("recv", function()
      it("gives what there is, at most max, and nil at the end", function()
        local conn = connect_to("accept", { "send", "abcdef" }, "close")
        assert.equal("abcdef", conn:peek(6))
        assert.equal("ab", conn:recv(2))
        assert.equal("cdef", conn:recv())
        assert.is_nil(conn:recv())
        assert.is_nil((conn:try_recv()))
        assert.equal(0, select("#", conn:recv()) - 1)
        conn:close()
      end)

      it("never gives more than 8192 bytes unless told to", function()
        local conn = connect_to("accept", { "repeat", 100, ("x"):rep(1000) }, "close")
        local total = 0
        for chunk in support.each(conn, "try_recv") do
          assert.is_true(#chunk <= 8192)
          total = total + #chunk
        end
        assert.equal(100000, total)
        conn:close()
      end)
    end)

    describe("read_line", function()
      it("takes LF and CR LF, and only the CR directly before the LF", function()
        local conn = connect_to("accept", { "send", "one\r\ntwo\n\r\n\rfo\rur\r\r\n" }, "close")
        assert.equal("one", conn:read_line())
        assert.equal("two\n", conn:read_line("L"))
        assert.equal("", conn:read_line("l"))
        assert.equal("\rfo\rur\r", conn:read_line())
        fails("closed", conn:try_read_line())
        conn:close()
      end)

      it("finds a newline that arrives in pieces", function()
        local conn = connect_to("accept", { "dribble", 2, "ab\r\ncd\n" }, "close")
        assert.equal("ab", conn:read_line())
        assert.equal("cd", conn:read_line())
        conn:close()
      end)

      it("keeps half a line when the stream ends", function()
        local conn = connect_to("accept", { "send", "one\ntwo" }, "close")
        assert.equal("one", conn:read_line())
        fails("closed", conn:try_read_line())
        assert.equal("two", conn:read_str())
        conn:close()
      end)

      it("keeps half a line when the connection is reset", function()
        local conn = connect_to("accept", { "send", "half" }, { "sleep", 50 }, "reset")
        assert.equal("half", conn:peek(4))
        local err = fails("reset", conn:try_read_line())
        assert.equal("read_line", err.op)
        assert.equal("half", conn:read(4))
        fails("reset", conn:try_read(1))
        conn:close()
      end)

      it("refuses a line over max_line, and consumes nothing of it", function()
        local conn = connect_to({ max_line = 5 }, "accept", { "send", "12345\r\n123456\n" }, "close")
        assert.equal("12345", conn:read_line())
        local err = fails("too_large", conn:try_read_line())
        assert.equal("line is over max_line (5 bytes)", err.message)
        conn:set_option("max_line", 6)
        assert.equal("123456", conn:read_line())
        conn:close()
      end)

      it("gives up on a line that never ends", function()
        local conn = connect_to("accept", { "repeat", 3000, ("x"):rep(1000) }, "stall")
        fails("too_large", conn:try_read_line())
        assert.is_true(conn:buffered() < 4 * 1048576)
        conn:close()
      end)
    end)

    describe("read_until", function()
      it("gives the bytes before the delimiter and consumes it", function()
        local conn = connect_to("accept", { "dribble", 2, "head--ab--tail" }, "close")
        assert.equal("head", conn:read_until("--"))
        assert.equal("ab", conn:read_until("--", 2))
        fails("closed", conn:try_read_until("--"))
        assert.equal("tail", conn:read_str())
        conn:close()
      end)

      it("does not count the delimiter in max", function()
        local conn = connect_to("accept", { "send", "abcdef;" }, "close")
        local err = fails("too_large", conn:try_read_until(";", 5))
        assert.equal("no delimiter within 5 bytes", err.message)
        assert.equal("abcdef", conn:read_until(";", 6))
        conn:close()
      end)

      it("is plain, not a pattern", function()
        local conn = connect_to("accept", { "send", "a.b%d+c" }, "close")
        assert.equal("a.b", conn:read_until("%d+"))
        conn:close()
      end)
    end)

    describe("read_str", function()
      it("gives everything up to the end, and then nothing", function()
        local conn = connect_to("accept", { "repeat", 1000, ("y"):rep(1024) }, "close")
        assert.equal(1024000, #conn:read_str())
        assert.equal("", conn:read_str())
        assert.equal("", conn:read_all())
        conn:close()
      end)

      it("refuses more than max, and consumes nothing", function()
        local conn = connect_to("accept", { "send", "123456" }, "close")
        fails("too_large", conn:try_read_str(5))
        assert.equal("123456", conn:read_str(6))
        conn:close()
      end)

      it("takes its timeout anew whenever bytes arrive", function()
        local conn = connect_to("accept", { "dribble", 40, "0123456789" }, "close")
        conn:set_timeout(0.2)
        assert.equal("0123456789", conn:read_str())
        conn:close()
      end)

      it("keeps what had arrived before a reset", function()
        local conn = connect_to("accept", { "send", "last words" }, { "sleep", 50 }, "reset")
        assert.equal("last", conn:peek(4))
        fails("reset", conn:try_read_str())
        assert.equal("last words", conn:read(conn:buffered()))
        conn:close()
      end)
    end)

    describe("peek", function()
      it("looks without taking", function()
        local conn = connect_to("accept", { "send", "abc" }, "close")
        assert.equal("a", conn:peek(1))
        assert.equal("abc", conn:peek(10))
        assert.equal("abc", conn:read(3))
        assert.is_nil(conn:peek(1))
        conn:close()
      end)

      it("waits for one byte at most", function()
        local conn = connect_to("accept", { "sleep", 30 }, { "send", "a" }, "stall")
        assert.equal("a", conn:peek(2, { timeout = 5 }))
        fails("timeout", conn:try_read(2, { timeout = 0.05 }))
        conn:close()
      end)
    end)

    describe("packets", function()
      it("are a 4-byte length, big-endian by default, and a payload", function()
        local conn = connect_to("accept", { "dribble", 1, "\0\0\0\3abc\0\0\0\0" }, "close")
        assert.equal("abc", conn:read_packet())
        assert.equal("", conn:read_packet())
        fails("closed", conn:try_read_packet())
        conn:close()
      end)

      it("can be little-endian", function()
        local conn = connect_to({ packet_endian = "little" }, "accept", { "send", "\3\0\0\0abc" }, "close")
        assert.equal("abc", conn:read_packet())
        conn:close()
      end)

      it("of 4 GiB are refused by their header alone", function()
        local conn = connect_to("accept", { "send", "\255\255\255\255" }, "stall")
        local err = fails("too_large", conn:try_read_packet({ timeout = 5 }))
        assert.equal("packet of 4294967295 bytes is over max_packet (512000)", err.message)
        assert.equal("\255\255\255\255", conn:read(conn:buffered()))
        conn:close()
      end)

      it("of max_packet bytes pass, of one more do not", function()
        local conn = connect_to({ max_packet = 3 }, "accept", { "send", "\0\0\0\3abc\0\0\0\4abcd" }, "close")
        assert.equal("abc", conn:read_packet())
        fails("too_large", conn:try_read_packet())
        conn:close()
      end)

      it("have a default limit of 512000 bytes", function()
        local conn = connect_to("accept", { "send", "\0\7\208\0" }, { "repeat", 512, ("p"):rep(1000) },
          { "send", "\0\7\208\1" }, "stall")
        assert.equal(512000, #conn:read_packet())
        fails("too_large", conn:try_read_packet())
        conn:close()
      end)

      it("cut off keep what had arrived", function()
        local conn = connect_to("accept", { "send", "\0\0\0\5ab" }, "close")
        fails("closed", conn:try_read_packet())
        assert.equal("\0\0\0\5ab", conn:read_str())
        conn:close()
      end)

      it("cut off by a reset keep what had arrived", function()
        local conn = connect_to("accept", { "send", "\0\0\0\5ab" }, { "sleep", 50 }, "reset")
        assert.equal(6, #conn:peek(6))
        fails("reset", conn:try_read_packet())
        assert.equal("\0\0\0\5ab", conn:read(6))
        conn:close()
      end)
    end)

    describe("read_json_packet", function()
      it("decodes the payload", function()
        local conn = connect_to("accept", { "send", '\0\0\0\13{"a":[1,null]}' }, "close")
        fails("json", conn:try_read_json_packet())
        conn:close()
        conn = connect_to("accept", { "send", '\0\0\0\14{"a":[1,null]}' }, "close")
        local value = conn:read_json_packet()
        assert.equal(1, value.a[1])
        assert.equal(tcp.null, value.a[2])
        conn:close()
      end)

      it("consumes a packet with invalid JSON, hands it over, and reads the next", function()
        local conn = connect_to("accept", { "send", '\0\0\0\5{"a":\0\0\0\4true' }, "close")
        local err = fails("json", conn:try_read_json_packet())
        assert.equal('{"a":', err.data)
        assert.is_true(conn:read_json_packet())
        conn:close()
      end)
    end)

    describe("read_json", function()
      it("reads one document after the other, and leaves what follows", function()
        local conn = connect_to("accept", { "dribble", 1, ' {"a":"]}"}\n[1]2 true "x"\r\nrest' }, "close")
        assert.equal("]}", conn:read_json().a)
        assert.same({ 1 }, conn:read_json())
        assert.equal(2, conn:read_json())
        assert.is_true(conn:read_json())
        assert.equal("x", conn:read_json())
        assert.equal("rest", conn:read_str():match("rest$"))
        conn:close()
      end)

      it("takes one newline after a document if it is there already", function()
        local conn = connect_to("accept", { "send", "[1]\n\n[2]\r\nX" }, { "sleep", 20 }, "close")
        assert.equal(11, #conn:peek(11))
        conn:read_json()
        assert.equal("\n", conn:peek(1))
        conn:read_json()
        assert.equal("X", conn:read_str())
        conn:close()
      end)

      it("takes a number at the end of the stream", function()
        local conn = connect_to("accept", { "send", "42" }, "close")
        assert.equal(42, conn:read_json())
        fails("closed", conn:try_read_json())
        conn:close()
      end)

      it("keeps half a document", function()
        local conn = connect_to("accept", { "send", '[1,{"a":' }, "close")
        local err = fails("closed", conn:try_read_json())
        assert.equal("read_json", err.op)
        assert.equal('[1,{"a":', conn:read_str())
        conn:close()
      end)

      it("keeps half a document when the connection is reset", function()
        local conn = connect_to("accept", { "send", '[1,{"a":' }, { "sleep", 50 }, "reset")
        assert.equal('[1,{"a":', conn:peek(8))
        fails("reset", conn:try_read_json())
        assert.equal('[1,{"a":', conn:read(8))
        conn:close()
      end)

      it("consumes malformed text up to its end, and hands it over", function()
        local conn = connect_to("accept", { "send", "{]nul ,[1]" }, "close")
        assert.equal("{]", fails("json", conn:try_read_json()).data)
        assert.equal("nul", fails("json", conn:try_read_json()).data)
        assert.equal(",", fails("json", conn:try_read_json()).data)
        assert.same({ 1 }, conn:read_json())
        conn:close()
      end)

      it("leaves nothing over after the last document but white space", function()
        local conn = connect_to("accept", { "send", "[1]\n \n" }, "close")
        conn:read_json()
        fails("closed", conn:try_read_json())
        assert.equal(0, conn:buffered())
        conn:close()
      end)

      it("refuses a document over max_json", function()
        local conn = connect_to({ max_json = 5 }, "accept", { "send", "  [1,2]\n[1,23]" }, "close")
        assert.same({ 1, 2 }, conn:read_json())
        fails("too_large", conn:try_read_json())
        assert.equal("[1,23]", conn:read_str())
        conn:close()
      end)
    end)

    describe("iterators", function()
      -- Inside the loops nothing waits on Lua 5.1 that cannot: these run outside tasks.
      it("lines end at the end, the last one with or without its newline", function()
        local conn = connect_to("accept", { "send", "a\r\nb\n\nc" }, "close")
        local lines = {}
        for line in conn:lines() do
          lines[#lines + 1] = line
        end
        assert.same({ "a", "b", "", "c" }, lines)
        conn:close()
      end)

      it("lines of the connection itself are its lines", function()
        local conn = connect_to("accept", { "send", "a\nb\n" }, "close")
        local lines = {}
        for line in conn do
          lines[#lines + 1] = line
        end
        assert.same({ "a", "b" }, lines)
        conn:close()
      end)

      it("lines keep their newline with L", function()
        local conn = connect_to("accept", { "send", "a\r\nb" }, "close")
        local lines = {}
        for line in conn:lines("L") do
          lines[#lines + 1] = line
        end
        assert.same({ "a\r\n", "b" }, lines)
        conn:close()
      end)

      it("chunks are at most max bytes", function()
        local conn = connect_to("accept", { "repeat", 10, ("z"):rep(999) }, "close")
        local total = 0
        for chunk in conn:chunks(100) do
          assert.is_true(#chunk <= 100)
          total = total + #chunk
        end
        assert.equal(9990, total)
        conn:close()
      end)

      it("packets end on a boundary, and raise inside one", function()
        local conn = connect_to("accept", { "send", "\0\0\0\1a\0\0\0\1b" }, "close")
        local packets = {}
        for packet in conn:packets() do
          packets[#packets + 1] = packet
        end
        assert.same({ "a", "b" }, packets)
        conn:close()

        conn = connect_to("accept", { "send", "\0\0\0\1a\0\0\0\2b" }, "close")
        local seen = {}
        local ok, err = pcall(function()
          for packet in conn:packets() do
            seen[#seen + 1] = packet
          end
        end)
        assert.is_false(ok)
        assert.same({ "a" }, seen)
        assert.is_true(tcp.is_error(err, "closed"))
        assert.equal("packets", err.op)
        conn:close()
      end)

      it("json_packets and json_values give values, false and null among them", function()
        local conn = connect_to("accept", { "send", "\0\0\0\5false\0\0\0\4null\0\0\0\0011" }, "close")
        local values = {}
        for value in conn:json_packets() do
          values[#values + 1] = value
        end
        assert.same({ false, tcp.null, 1 }, values)
        conn:close()

        conn = connect_to("accept", { "send", '{"a":1}\nnull\n7 \n' }, "close")
        values = {}
        for value in conn:json_values() do
          values[#values + 1] = value
        end
        assert.equal(1, values[1].a)
        assert.equal(tcp.null, values[2])
        assert.equal(7, values[3])
        assert.equal(3, #values)
        conn:close()
      end)

      it("obey the timeout of their own", function()
        local conn = connect_to("accept", { "send", "a\n" }, "stall")
        local ok, err = pcall(function()
          for _ in conn:lines("l", { timeout = 0.05 }) do
            assert.is_true(true)
          end
        end)
        assert.is_false(ok)
        assert.is_true(tcp.is_error(err, "timeout"))
        conn:close()
      end)
    end)

    it("after this side has closed fails with closed", function()
      local conn = connect_to("accept", { "send", "abc" }, "stall")
      conn:peek(1)
      conn:close()
      local calls = { read = 1, read_bytes = 1, read_until = "x", peek = 1 }
      for _, name in ipairs { "read", "read_bytes", "recv", "read_line", "read_until", "read_str", "read_json",
        "read_packet", "read_json_packet", "peek" } do
        local err = fails("closed", conn["try_" .. name](conn, calls[name]))
        assert.equal(name, err.op)
      end
      assert.equal(0, conn:buffered())
    end)
  end)
end

