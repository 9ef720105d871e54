local peers = require("support.peers")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local fails, CLIENT, SERVER = support.fails, transports.CLIENT, transports.SERVER
local plain_client, close_all = transports.plain_client, transports.close_all

--- A port from which everything is carried to `port`; `damage` may change what comes from the client, and `delay`
-- keeps what comes from the server for so long, so that it comes at once.
local function relay(port, hooks)
  local listener = tcp.listen("127.0.0.1", 0)
  local function carry(from, to, change)
    local bytes = from:try_recv()
    while bytes and to:try_write(change(bytes)) do
      bytes = from:try_recv()
    end
    to:try_shutdown("send")
  end
  tcp.spawn(function()
    local near = listener:accept(10)
    local far = tcp.connect("127.0.0.1", port)
    local back = tcp.spawn(carry, far, near, function(bytes)
      tcp.sleep(hooks.delay or 0)
      return bytes
    end)
    carry(near, far, function(bytes)
      return hooks.damage and hooks.damage(bytes) or bytes
    end)
    back:join(10)
    near:close()
    far:close()
    listener:close()
  end)
  return listener:local_port()
end

describe("a server's first words", function()
  for _, version in ipairs { "--tls", "--tls12" } do
    it("that come with the end of its handshake are read " .. version, function()
      local peer = peers.start({ version, "server" }, "accept", { "send", "early\n" }, "close")
      local conn = tcp.connect("127.0.0.1", relay(peer.port, { delay = 0.05 }), { tls = CLIENT, read_timeout = 10 })
      assert.equal("early", conn:read_line())
      assert.is_nil(conn:recv())
      close_all(conn)
    end)
  end
end)

describe("an alert", function()
  --- A client whose next record is damaged on its way to a server of this module, and a task with the server's error.
  local function damaged_client()
    local listener = tcp.listen("127.0.0.1", 0, { tls = SERVER })
    local serving = tcp.spawn(function()
      local conn = listener:accept(10)
      local line = conn:read_line()
      local _, err = conn:try_read_str({ timeout = 10 })
      conn:close()
      listener:close()
      return line, err
    end)
    local hooks = {}
    local conn = tcp.connect("127.0.0.1", relay(listener:local_port(), hooks), { tls = CLIENT, read_timeout = 10 })
    conn:write("fine\n")
    tcp.sleep(0.05)
    function hooks.damage(bytes)
      hooks.damage = nil
      return bytes:sub(1, -2) .. string.char((bytes:byte(-1) + 1) % 256)
    end
    return conn, serving
  end

  local MESSAGE = "the server broke off with TLS alert bad_record_mac"

  it("of the server is what a read fails with, and every write after it", function()
    local conn, serving = damaged_client()
    conn:write("harmed\n")
    local err = fails("tls", conn:try_read_line())
    assert.equal("bad_record_mac", err.alert)
    assert.equal(MESSAGE, err.message)
    assert.is_nil(err.stage)
    err = fails("tls", conn:try_write("x"))
    assert.equal("bad_record_mac", err.alert)
    assert.equal(0, err.written)
    local line, failure = serving:join(10)
    assert.equal("fine", line)
    assert.equal("tls", failure.kind)
    assert.is_nil(failure.alert)
    close_all(conn)
  end)

  it("of the server is what a write that breaks fails with", function()
    local conn, serving = damaged_client()
    local began = tcp.now()
    local err
    repeat
      local _
      _, err = conn:try_write(("x"):rep(1000))
      tcp.sleep(0.001)
    until err or tcp.now() - began > 10
    assert.equal("tls", err and err.kind, tostring(err))
    assert.equal("bad_record_mac", err.alert)
    assert.equal(MESSAGE, err.message)
    assert.is_true(err.written >= 0 and err.written <= 1000)
    serving:join(10)
    close_all(conn)
  end)
end)

describe("a handshake that trickles", function()
  -- A record that never ends, in bytes that each could be the last.
  local RECORD = "\22\3\3\64\0\2\0\63\252" .. ("\0"):rep(250)

  it("cannot outlive the timeout of connect", function()
    local peer = peers.start("accept", { "dribble", 20, RECORD }, "stall")
    local began = tcp.now()
    local err = fails("timeout", tcp.try_connect("127.0.0.1", peer.port, { timeout = 0.3, tls = CLIENT }))
    assert.is_true(tcp.now() - began >= 0.3 and tcp.now() - began < 2)
    assert.equal("handshake", err.stage)
  end)

  it("cannot outlive handshake_timeout", function()
    local conn, client, listener = plain_client { handshake_timeout = 0.3 }
    local trickling = tcp.spawn(function()
      local sent = 0
      while sent < #RECORD and client:try_write(RECORD:sub(sent + 1, sent + 1)) do
        sent = sent + 1
        tcp.sleep(0.02)
      end
    end)
    local began = tcp.now()
    local err = fails("timeout", conn:try_read_line())
    assert.is_true(tcp.now() - began >= 0.3 and tcp.now() - began < 2)
    assert.equal("handshake", err.stage)
    assert.equal("read_line", err.op)
    conn:close()
    trickling:cancel()
    close_all(client, listener)
  end)

  it("is waited for by nobody who does not want to wait", function()
    local conn, client, listener = plain_client()
    local began = tcp.now()
    for _ = 1, 3 do
      local err = fails("timeout", conn:try_read_line({ timeout = 0 }))
      assert.equal("handshake", err.stage)
      conn:set_timeout(0)
      assert.equal(0, fails("timeout", conn:try_write("x")).written)
      assert.equal("r", conn:events())
      fails("timeout", conn:try_handshake())
      assert.equal(0, conn:buffered())
    end
    assert.is_true(tcp.now() - began < 1)
    close_all(conn, client, listener)
  end)

  it("ends with closed when its own side closes, whoever waits for it", function()
    local conn, client, listener = plain_client()
    local reading = tcp.spawn(function()
      local _, err = conn:try_read_line()
      return err
    end)
    local writing = tcp.spawn(function()
      local _, err = conn:try_write("x")
      return err
    end)
    tcp.sleep(0.02)
    conn:close()
    for _, task in ipairs { reading, writing } do
      assert.equal("closed", task:join(10).kind)
    end
    close_all(client, listener)
  end)

  it("may be begun by a reader and a writer at once", function()
    local listener = tcp.listen("127.0.0.1", 0, { tls = SERVER })
    local reading, writing
    local accepting = tcp.spawn(function()
      local conn = listener:accept(10)
      reading = tcp.spawn(function()
        local line = conn:read_line({ timeout = 10 })
        return line
      end)
      writing = tcp.spawn(conn.write, conn, "to the client\n")
      reading:join()
      writing:join()
      conn:close()
    end)
    local client = tcp.connect("127.0.0.1", listener:local_port(), { tls = CLIENT, read_timeout = 10 })
    client:write("to the server\n")
    assert.equal("to the client", client:read_line())
    assert.equal("to the server", reading:join(10))
    accepting:join(10)
    close_all(client, listener)
  end)
end)
