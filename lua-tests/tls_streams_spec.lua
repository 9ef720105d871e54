local peers = require("support.peers")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local fails, CLIENT = support.fails, transports.CLIENT
local plain_client, close_all, raises = transports.plain_client, transports.close_all, support.raises

for _, version in ipairs { "--tls", "--tls12" } do
  local function connect_to(...)
    local peer = peers.start({ version, "server" }, "accept", ...)
    local conn = tcp.connect("127.0.0.1", peer.port, { read_timeout = 10, tls = CLIENT })
    return conn, peer
  end

  --- A connection to a peer that sends `bytes` and is cut off.
  local function cut_after(bytes)
    return (connect_to({ "send", bytes }, "cut"))
  end

  local function truncated(conn, value, err)
    fails("truncated", value, err)
    assert.is_nil(err.stage)
    assert.equal("the stream ended without TLS's closing alert: it may be cut off", err.message)
    local rest = conn:read(conn:buffered())
    fails("truncated", conn:try_read(1))
    return rest
  end

  describe("a stream that is cut off" .. (version == "--tls12" and " (TLS 1.2)" or ""), function()
    it("is truncated for every read that reaches its end, which loses nothing", function()
      for op, call in pairs {
        read = function(conn) return conn:try_read(10) end,
        read_bytes = function(conn) return conn:try_read_bytes(10) end,
        read_line = function(conn) return conn:try_read_line() end,
        read_until = function(conn) return conn:try_read_until(";") end,
        read_str = function(conn) return conn:try_read_str() end,
        read_all = function(conn) return conn:try_read_all(100) end,
        read_json = function(conn) return conn:try_read_json() end,
        read_packet = function(conn) return conn:try_read_packet() end,
        read_json_packet = function(conn) return conn:try_read_json_packet() end,
      } do
        -- The beginning of a packet, of a line, of a string in JSON.
        local bytes = op:find("packet") and "\0\0\0\9half" or '"half'
        local conn = cut_after(bytes)
        local value, err = call(conn)
        assert.equal(bytes, truncated(conn, value, err))
        assert.equal(op, err.op)
        value, err = call(conn)
        fails("truncated", value, err)
        conn:close()
        -- Also where nothing was missing but the end.
        conn = cut_after("")
        assert.equal("", truncated(conn, call(conn)))
        conn:close()
      end
    end)

    it("is truncated for recv and peek once they have given what there was", function()
      local conn = cut_after("half")
      assert.equal("half", conn:peek(4))
      assert.equal("half", conn:peek(10))
      assert.equal("ha", conn:recv(2))
      assert.equal("lf", conn:recv())
      fails("truncated", conn:try_recv())
      fails("truncated", conn:try_peek(1))
      raises("truncated", conn.recv, conn)
      assert.equal("", conn:read(0))
      conn:close()
    end)

    it("gives a number in JSON only if something follows it: there may have been more of it", function()
      local conn = cut_after("42")
      assert.equal("42", truncated(conn, conn:try_read_json()))
      conn:close()
      conn = cut_after("42 ")
      assert.equal(42, conn:read_json())
      fails("truncated", conn:try_read_json())
      conn:close()
    end)

    it("gives what came whole before its end", function()
      local conn = cut_after("line\r\n" .. '{"a":[1]}' .. "\0\0\0\3abc" .. "key;" .. "1234" .. "end")
      assert.equal("line", conn:read_line())
      assert.same({ a = { 1 } }, conn:read_json())
      assert.equal("abc", conn:read_packet())
      assert.equal("key", conn:read_until(";"))
      assert.equal("1234", conn:read(4))
      assert.equal("end", conn:read(3))
      fails("truncated", conn:try_read_str())
      conn:close()
    end)

    for name, it_reads in pairs {
      lines = { "one\ntwo\n", { "one", "two" }, "thr" },
      packets = { "\0\0\0\1a\0\0\0\2bc", { "a", "bc" }, "\0\0\0\5x" },
      json_packets = { "\0\0\0\1" .. "1\0\0\0\2" .. "23", { 1, 23 }, "\0\0" },
      json_values = { '1\n"two"\n', { 1, "two" }, "[3" },
    } do
      local whole, expected, rest = it_reads[1], it_reads[2], it_reads[3]
      it(("is raised by %s(), on a boundary as inside an item"):format(name), function()
        for _, left in ipairs { "", rest } do
          local conn = cut_after(whole .. left)
          local seen = {}
          raises("truncated", function()
            for item in conn[name](conn) do
              seen[#seen + 1] = item
            end
          end)
          assert.same(expected, seen)
          assert.equal(left, conn:read(conn:buffered()))
          conn:close()
        end
      end)
    end

    it("is raised by chunks(), and by the loop over the connection", function()
      local conn, seen = cut_after("abcde"), {}
      raises("truncated", function()
        for chunk in conn:chunks(2) do
          seen[#seen + 1] = chunk
        end
      end)
      assert.equal("abcde", table.concat(seen))
      conn:close()
      conn, seen = cut_after("a\nb"), {}
      raises("truncated", function()
        for line in conn do
          seen[#seen + 1] = line
        end
      end)
      assert.same({ "a" }, seen)
      assert.equal("b", conn:read(conn:buffered()))
      conn:close()
    end)

    it("is an orderly end for all of them with the closing alert", function()
      local conn = connect_to({ "send", "one\ntwo" }, "close")
      local seen = {}
      for line in conn:lines() do
        seen[#seen + 1] = line
      end
      assert.same({ "one", "two" }, seen)
      assert.is_nil(conn:recv())
      assert.is_nil(conn:peek(1))
      assert.equal("", conn:read_str())
      fails("closed", conn:try_read(1))
      conn:close()
    end)

    it("is reset where it was broken off", function()
      local conn = connect_to({ "send", "half" }, { "sleep", 50 }, "reset")
      assert.equal("half", conn:peek(4))
      local err = fails("reset", conn:try_read_line())
      assert.is_nil(err.stage)
      assert.equal("half", conn:read(4))
      fails("reset", conn:try_recv())
      conn:close()
    end)
  end)

  describe("a stream that ends" .. (version == "--tls12" and " (TLS 1.2)" or ""), function()
    it("by its closing alert has ended at once, although the socket stays open; writing goes on", function()
      local conn, peer = connect_to({ "send", "hello" }, "goodbye", "drain", "stall")
      local began = tcp.now()
      assert.equal("hello", conn:read_str())
      assert.is_nil(conn:recv())
      fails("closed", conn:try_read_line())
      assert.is_true(tcp.now() - began < 2)
      conn:write("more")
      conn:write_line(" and more")
      tcp.sleep(0.02)
      conn:write("!")
      conn:shutdown("send")
      assert.equal("more and more\r\n!", peer:got())
      fails("closed", conn:try_write("x"))
      conn:close()
    end)

    it("in the same segment as its last bytes gives them", function()
      local conn = connect_to({ "send", "hello\n" }, { "send", "last" }, "goodbye", "stall")
      tcp.sleep(0.05)
      assert.equal("hello", conn:read_line())
      assert.equal("last", conn:read_str())
      assert.is_nil(conn:recv())
      conn:close()
    end)

    it("while data of this side is under way ends nothing of it", function()
      local conn, peer = connect_to("goodbye", { "sleep", 100 }, "drain", "stall")
      local payload = ("x"):rep(1000000)
      assert.equal(#payload, conn:send(payload))
      assert.is_nil(conn:recv())
      conn:write("end")
      conn:shutdown("send")
      local got = peer:got()
      assert.equal(#payload + 3, #got)
      assert.equal("end", got:sub(-3))
      conn:close()
    end)

    it("says nothing of what comes after its closing alert", function()
      local conn = connect_to({ "send", "hello" }, "goodbye", { "wire", "garbage" }, "cut")
      tcp.sleep(0.05)
      assert.equal("hello", conn:read_str())
      assert.equal("", conn:read_str())
      assert.is_nil(conn:recv())
      conn:close()
    end)
  end)

  describe("records" .. (version == "--tls12" and " (TLS 1.2)" or ""), function()
    it("of one byte each are put together", function()
      local conn = connect_to({ "repeat", 3000, "x" }, { "dribble", 1, "yz\n" }, "close")
      assert.equal(("x"):rep(3000) .. "yz", conn:read_line())
      assert.is_nil(conn:recv())
      conn:close()
    end)

    it("that trickle are waited for as long as a read may, and lose nothing", function()
      local conn = connect_to({ "trickle", 10, "hello\n" }, "stall")
      local timeouts = 0
      local line, err = conn:try_read_line({ timeout = 0.05 })
      while not line do
        fails("timeout", line, err)
        timeouts = timeouts + 1
        assert.is_true(timeouts < 50)
        assert.equal(0, conn:buffered())
        line, err = conn:try_read_line({ timeout = 0.05 })
      end
      assert.equal("hello", line)
      assert.is_true(timeouts >= 2, "the record came at once")
      conn:close()
    end)

    it("that are cut in the middle are truncated, and give nothing of themselves", function()
      local conn = connect_to({ "send", "one" }, { "wire", "\23\3\3\0\100half" }, "cut")
      assert.equal("one", truncated(conn, conn:try_read_str()))
      conn:close()
    end)

    it("that nobody sealed are refused, after what was sealed", function()
      for _, garbage in ipairs {
        "garbage, garbage\n", "\23\3\3\0\32" .. ("g"):rep(32), "\23\3\3\72\1" .. ("g"):rep(32), "\23\3\3\255\255g",
        "\21\3\3\0\2\2\40", "\21\3\3\0\2\1\0", "\22\3\3\0\4\0\0\0\0", "\0\0\0\0\0\0", "\23\3\3\0\0", "\20\3\3\0\1\1",
      } do
        -- It is not part of what ends the handshake.
        local conn = connect_to({ "skip", 1 }, { "send", "one\ntwo" }, { "wire", garbage }, "stall")
        conn:write("x")
        assert.equal("one", conn:read_line())
        local err = fails("tls", conn:try_read_line())
        assert.is_nil(err.stage)
        assert.is_nil(err.alert)
        assert.equal("two", conn:read(3))
        assert.equal(err.message, fails("tls", conn:try_read_line()).message)
        assert.equal(err.message, fails("tls", conn:try_recv()).message)
        -- A connection that was tampered with is none to write to.
        fails("tls", conn:try_write("x"))
        conn:close()
      end
    end)
  end)
end

describe("half-close over TLS", function()
  it("leaves the other direction open, both ways", function()
    local near, far = transports.tls.pair({ read_timeout = 10 }, { read_timeout = 10 })
    near:write("question")
    near:shutdown("send")
    fails("closed", near:try_write("x"))
    assert.equal("question", far:read_str())
    assert.is_nil(far:recv())
    far:write("answer\n", "more")
    assert.equal("answer", near:read_line())
    far:shutdown("send")
    assert.equal("more", near:read_str())
    assert.is_nil(near:recv())
    assert.is_true(near:is_tls() and far:is_tls())
    close_all(near, far)
    near, far = transports.tls.pair({ read_timeout = 10 }, { read_timeout = 10 })
    far:shutdown("send")
    assert.is_nil(near:recv())
    near:write("still")
    assert.equal("still", far:read(5))
    near:shutdown("both")
    assert.equal("", far:read_str())
    close_all(near, far)
  end)

  it("and close before the handshake of an accepted connection fail nobody else", function()
    local conn, client, listener = plain_client()
    conn:close()
    fails("closed", conn:try_handshake())
    assert.is_nil((client:try_recv()))
    close_all(client, listener)
  end)
end)
