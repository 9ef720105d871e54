local peers = require("support.peers")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local fails, CLIENT, SERVER = support.fails, transports.CLIENT, transports.SERVER
local plain_client, close_all, raises = transports.plain_client, transports.close_all, support.raises

--- The error of a connect over TLS to a peer that plays these actions, in plain text if no option is in front.
local function fails_to_connect(kind, ...)
  local peer = peers.start(...)
  local began = tcp.now()
  local err = fails(kind, tcp.try_connect("127.0.0.1", peer.port, { timeout = 10, tls = CLIENT }))
  assert.is_true(tcp.now() - began < 5, "it waited for its timeout")
  assert.equal("handshake", err.stage)
  assert.equal("connect", err.op)
  peer:finish()
  return err
end

describe("a handshake with a server", function()
  it("that says nothing fails with timeout, whoever gives the time", function()
    local peer = peers.start("accept", "stall")
    local function connect(options)
      return tcp.try_connect_tls("127.0.0.1", peer.port, options)
    end
    local insecure = { timeout = 0.2, read_timeout = 9, tls = { verify = false } }
    for _, options in ipairs { 0.2, { timeout = 0.2 }, insecure } do
      local began = tcp.now()
      local err = fails("timeout", connect(options))
      local taken = tcp.now() - began
      assert.is_true(taken >= 0.2 and taken < 2, "took " .. taken)
      assert.equal("handshake", err.stage)
      assert.equal("timed out during the TLS handshake", err.message)
      assert.equal("connect_tls", err.op)
      assert.equal("127.0.0.1:" .. peer.port, err.peer)
    end
  end)

  it("that says nothing is ended by with_timeout, and by cancelling its task", function()
    local peer = peers.start("accept", "stall")
    local began = tcp.now()
    local inner
    local _, err = tcp.try_with_timeout(0.2, function()
      local _
      _, inner = tcp.try_connect_tls("127.0.0.1", peer.port, 10)
    end)
    assert.equal("timeout", err and err.kind or inner.kind)
    assert.equal("cancelled", inner.kind)
    assert.equal("handshake", inner.stage)
    local task = tcp.spawn(function()
      local _, failure = tcp.try_connect_tls("127.0.0.1", peer.port, 10)
      inner = failure
    end)
    tcp.sleep(0.05)
    task:cancel()
    tcp.run()
    assert.equal("cancelled", inner.kind)
    assert.equal("handshake", inner.stage)
    assert.is_true(tcp.now() - began < 3)
  end)

  it("that ends the stream fails with closed", function()
    local message = "the server closed the connection during the TLS handshake"
    assert.equal(message, fails_to_connect("closed", "accept", "shutdown", "stall").message)
    assert.equal(message, fails_to_connect("closed", "accept", { "sleep", 50 }, "shutdown", "stall").message)
    -- Half a record is no more.
    assert.equal(message, fails_to_connect("closed", "accept", { "send", "\22\3\3\0" }, "shutdown", "stall").message)
    assert.equal(message,
      fails_to_connect("closed", "accept", { "send", "\22\3\3\0\122\2\0\0\118\3\3" }, "shutdown", "stall").message)
  end)

  it("that breaks off fails with reset", function()
    for _, count in ipairs { 1, 50 } do
      local err = fails_to_connect("reset", "accept", { "skip", count }, "reset")
      assert.equal("connection reset by peer", err.message)
      assert.equal(104, err.errno)
    end
    fails_to_connect("reset", "accept", { "skip", 5 }, { "send", "\22\3\3\0\122\2" }, { "sleep", 20 }, "reset")
  end)

  it("that greets in plain text says what it sent", function()
    for sent, shown in pairs {
      ["220 mail.example ESMTP\r\n"] = "220 mail.example ESMTP",
      ["SSH-2.0-OpenSSH_9.9\r\n"] = "SSH-2.0-OpenSSH_9.9",
      ["HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n<html>"] = "HTTP/1.1 400 Bad Request",
      ["+OK"] = "+OK",
      [("x"):rep(20000)] = ("x"):rep(60),
    } do
      for _, ending in ipairs { "stall", "shutdown" } do
        local err = fails_to_connect("tls", "accept", { "send", sent }, ending, "stall")
        assert.equal(('the server does not speak TLS here: it sent "%s"'):format(shown), err.message)
        assert.is_nil(err.alert)
      end
    end
  end)

  it("that greets in another binary protocol says so", function()
    -- MySQL's first packet, some bytes, and what is not for a terminal.
    for _, sent in ipairs { "\74\0\0\0\0108.0.36\0", "\0\1\2\3\4\255\254", "\27[2Jboo\n", "caf\233\n" } do
      local err = fails_to_connect("tls", "accept", { "send", sent }, "stall")
      assert.equal("the server does not speak TLS here", err.message)
    end
  end)

  it("that sends what only looks like TLS fails with tls, at once", function()
    for _, sent in ipairs {
      "\22\3\3\0\32" .. ("\171"):rep(32),
      "\22\3" .. ("\171"):rep(100),
      "\22\3\3\0\0",
      "\22\3\3\255\255" .. ("x"):rep(100),
      "\22\3\3\72\1" .. ("x"):rep(100),
      "\22\3\3\64\0\2\255\255\255" .. ("\0"):rep(16380),
      "\23\3\3\0\5hello",
      "\20\3\3\0\1\1",
      "\20\3\3\0\2\1\1",
      "\21\3\3\0\1\2",
      "\22\3\3\0\4\0\0\0\0",
      "\22\3\3\0\4\14\0\0\0",
      "\24\3\3\0\3\1\64\0",
    } do
      local err = fails_to_connect("tls", "accept", { "send", sent }, "stall")
      assert.is_nil(err.alert)
      assert.is_nil(err.message:find("does not speak TLS", 1, true), err.message)
    end
  end)

  it("that sends the client's own words back fails with tls", function()
    fails_to_connect("tls", "accept", "echo")
  end)

  it("that never ends its first message takes no memory without end", function()
    local err = fails_to_connect("tls", "accept", { "send", "\22\3\3\64\0\11\255\255\255" .. ("\0"):rep(16380) },
      { "repeat", 2000, "\22\3\3\64\0" .. ("\0"):rep(16384) }, "stall")
    assert.is_nil(err.alert)
  end)

  it("that answers with an alert names it", function()
    for number, name in pairs {
      [40] = "handshake_failure", [48] = "unknown_ca", [70] = "protocol_version", [80] = "internal_error",
      [112] = "unrecognized_name", [116] = "certificate_required", [120] = "no_application_protocol",
    } do
      local alert = "\21\3\3\0\2\2" .. string.char(number)
      for _, actions in ipairs {
        { { "send", alert }, "stall" }, { { "send", alert }, "shutdown", "stall" },
        { { "send", alert }, { "sleep", 30 }, "reset" }, { { "dribble", 1, alert }, "stall" },
      } do
        local err = fails_to_connect("tls", "accept", (table.unpack or unpack)(actions))
        assert.equal(name, err.alert)
        assert.equal("the server broke off with TLS alert " .. name, err.message)
      end
    end
  end)

  it("that says goodbye instead of hello fails with closed", function()
    -- Of either level: TLS 1.3 takes no notice of it (RFC 8446, section 6).
    for _, level in ipairs { "\2", "\1" } do
      fails_to_connect("closed", "accept", { "send", "\21\3\3\0\2" .. level .. "\0" }, "stall")
    end
  end)

  it("whose bytes come one by one succeeds", function()
    for _, version in ipairs { "--tls", "--tls12" } do
      local peer = peers.start({ version, "server" }, "accept", { "send", "hello\n" }, "drain")
      local listener = tcp.listen("127.0.0.1", 0)
      local function relay(from, to)
        local byte = from:try_recv(1)
        while byte do
          to:write(byte)
          byte = from:try_recv(1)
        end
        to:try_shutdown("send")
      end
      local relaying = tcp.spawn(function()
        local near = listener:accept(10)
        local far = tcp.connect("127.0.0.1", peer.port)
        local back = tcp.spawn(relay, far, near)
        relay(near, far)
        back:join(10)
        near:close()
        far:close()
      end)
      local conn = tcp.connect("127.0.0.1", listener:local_port(), { timeout = 10, tls = CLIENT })
      assert.equal("hello", conn:read_line({ timeout = 10 }))
      conn:write("bye")
      conn:close()
      relaying:join(10)
      assert.equal("bye", peer:got())
      peer:finish()
      listener:close()
      tcp.run()
    end
  end)
end)

describe("a handshake with a client", function()
  it("that does not speak TLS says what it sent, by whatever operation it was begun", function()
    for op, call in pairs {
      handshake = function(conn) return conn:try_handshake() end,
      read_line = function(conn) return conn:try_read_line() end,
      recv = function(conn) return conn:try_recv() end,
      write = function(conn) return conn:try_write("x") end,
      read_packet = function(conn) return conn:try_read_packet() end,
    } do
      local conn, client, listener = plain_client()
      client:write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
      conn:set_timeout(10)
      local err = fails("tls", call(conn))
      assert.equal('the client does not speak TLS here: it sent "GET / HTTP/1.1"', err.message)
      assert.equal("handshake", err.stage)
      assert.equal(op, err.op)
      assert.equal(client:local_addr(), err.peer)
      if op == "write" then
        assert.equal(0, err.written)
      end
      -- There is no way on.
      assert.equal(err.message, fails("tls", conn:try_read_line()).message)
      assert.equal(err.message, fails("tls", conn:try_write("x")).message)
      assert.equal(err.message, fails("tls", conn:try_handshake()).message)
      assert.equal(0, conn:buffered())
      close_all(conn, client, listener)
    end
  end)

  it("that goes away fails with closed or reset", function()
    for _, sent in ipairs { "", "\22\3\1", "\22\3\1\0\5\1" } do
      local conn, client, listener = plain_client()
      client:write(sent)
      client:close()
      local err = fails("closed", conn:try_handshake({ timeout = 10 }))
      assert.equal("the client closed the connection during the TLS handshake", err.message)
      assert.equal("handshake", err.stage)
      fails("closed", conn:try_read_line())
      close_all(conn, listener)

      conn, client, listener = plain_client()
      client:write(sent)
      client:set_option("linger", 0)
      client:close()
      err = fails("reset", conn:try_read_line({ timeout = 10 }))
      assert.equal("handshake", err.stage)
      close_all(conn, listener)
    end
  end)

  it("that says nothing ends with handshake_timeout, for good", function()
    local conn, client, listener = plain_client { handshake_timeout = 0.2 }
    local began = tcp.now()
    local err = fails("timeout", conn:try_read_line())
    assert.is_true(tcp.now() - began >= 0.2 and tcp.now() - began < 2)
    assert.equal("handshake", err.stage)
    -- Once: who tries again must not think that there is hope.
    assert.equal("handshake", fails("closed", conn:try_handshake()).stage)
    assert.is_true(tcp.now() - began < 2)
    close_all(conn, client, listener)
  end)

  it("that is late goes on after a timeout of one read, and after a deadline", function()
    local listener = tcp.listen("127.0.0.1", 0, { tls = SERVER })
    local raw = tcp.listen("127.0.0.1", 0)
    local client
    local connecting = tcp.spawn(function()
      client = tcp.connect("127.0.0.1", raw:local_port(), { timeout = 10, tls = CLIENT })
    end)
    local near = raw:accept(10)
    local far = tcp.connect("127.0.0.1", listener:local_port())
    local conn = listener:accept(10)
    local err = fails("timeout", conn:try_read_line({ timeout = 0.05 }))
    assert.equal("handshake", err.stage)
    far:write(near:recv(9))
    err = fails("timeout", conn:try_handshake({ timeout = 0.05 }))
    assert.equal("timed out during the TLS handshake", err.message)
    conn:set_deadline(0.05)
    err = fails("timeout", conn:try_write("x"))
    assert.equal(0, err.written)
    assert.equal("handshake", err.stage)
    conn:set_deadline(nil)
    local function relay(from, to)
      return tcp.spawn(function()
        local bytes = from:try_recv()
        while bytes do
          to:write(bytes)
          bytes = from:try_recv()
        end
      end)
    end
    local there, back = relay(near, far), relay(far, near)
    conn:handshake({ timeout = 10 })
    conn:write("hello\n")
    connecting:join(10)
    assert.equal("hello", client:read_line({ timeout = 10 }))
    there:cancel()
    back:cancel()
    close_all(client, conn, near, far, raw, listener)
  end)

  it("is nothing on a connection that has done it, closed on a closed one, and misuse on a plain one", function()
    local near, far = transports.tls.pair()
    for _, conn in ipairs { near, far } do
      assert.is_true(conn:is_tls())
      assert.equal(0, select("#", conn:handshake()))
      assert.is_true(conn:try_handshake())
      assert.matches("^Connection %(127%.0%.0%.1:%d+ %-> 127%.0%.0%.1:%d+, TLS%)$", tostring(conn))
      conn:close()
      assert.is_true(conn:is_tls())
      assert.matches("TLS", tostring(conn))
      local err = fails("closed", conn:try_handshake())
      assert.equal("handshake", err.op)
      raises("closed", conn.handshake, conn)
    end
    tcp.run()
    near, far = transports.plain.pair()
    for _, conn in ipairs { near, far } do
      assert.is_false(conn:is_tls())
      local text = "bad self to '%s' (connection with TLS expected, got a plain one)"
      support.misuse(text:format("handshake"), conn.handshake, conn)
      support.misuse(text:format("try_handshake"), conn.try_handshake, conn)
      conn:close()
      assert.is_false(conn:is_tls())
      assert.is_nil(tostring(conn):find("TLS"))
    end
  end)
end)
