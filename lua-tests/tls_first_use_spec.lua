-- The first use of an accepted TLS connection, which has its handshake to complete, and polling records that dribble.

local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local over = transports.tls
local tcp, connect_to = over.tcp, over.connect_to
local fails = support.fails
local trying, succeeds, task_fails = tasks.trying, tasks.succeeds, tasks.fails

local PATIENCE = 20

--- `count` bytes of which no 8 are the same as 8 others.
local function tagged(count)
  local tags = {}
  for i = 1, math.ceil(count / 8) do
    tags[i] = ("%07x."):format(i)
  end
  return table.concat(tags):sub(1, count)
end

-- More than the system's buffers on both sides hold.
local BIG = tagged(8 * 1024 * 1024)

--- A task that reads to the end of the stream.
local function reading(conn)
  return trying(conn, "read_str", { timeout = PATIENCE })
end

describe("an accepted TLS connection whose handshake is still to come", function()
  after_each(function()
    assert.is_false(tcp.step(0), "a task is left")
  end)

  --- The accepted end, and a function that connects and gives the other end.
  local function accepted(options)
    local listener = tcp.listen("127.0.0.1", 0, options)
    local connecting = tcp.spawn(function()
      local conn = tcp.connect("127.0.0.1", listener:local_port(), PATIENCE)
      return conn
    end)
    local far = listener:accept(PATIENCE)
    listener:close()
    return far, function()
      return connecting:join(PATIENCE)
    end
  end

  --- The same with a client that says nothing.
  local function silent(options)
    local listener = tcp.listen("127.0.0.1", 0, options)
    local client = transports.plain.tcp.connect("127.0.0.1", listener:local_port())
    local far = listener:accept(PATIENCE)
    listener:close()
    return far, client
  end

  it("is written to and read from by several tasks at once", function()
    local far, connected = accepted()
    local begun = {
      trying(far, "read", 5), trying(far, "write", BIG), trying(far, "write_line", "last"),
      trying(far, "shutdown", "send"),
    }
    local near = connected()
    local reader = reading(near)
    near:write("hello")
    assert.equal("hello", succeeds(begun[1]))
    for i = 2, 4 do
      succeeds(begun[i])
    end
    assert.is_true(succeeds(reader) == BIG .. "last\r\n")
    near:close()
    far:close()
  end)

  it("is shaken hands with by a write of nothing", function()
    local far, connected = accepted()
    assert.equal(far, far:write(""))
    local near = connected()
    near:close()
    assert.is_nil(far:recv())
    far:close()
  end)

  it("says what to wait for while its timeout is 0", function()
    local far, client = silent()
    far:set_timeout(0)
    assert.is_nil(far:events())
    local err = fails("timeout", far:try_write("x"))
    assert.equal("handshake", err.stage)
    assert.equal(0, err.written)
    assert.equal("r", far:events())
    assert.equal("handshake", fails("timeout", far:try_read(1)).stage)
    assert.equal("r", far:events())
    assert.is_true(far:timeout() > 9 and far:timeout() <= 10)
    fails("timeout", far:try_handshake())
    client:close()
    far:close()
  end)

  it("is served by polling without a wait", function()
    local far, connected = accepted()
    far:set_timeout(0)
    local turns = 0
    local ok, err
    repeat
      ok, err = far:try_write("greeting\n")
      if not ok then
        assert.equal("timeout", err.kind)
        assert.equal(0, err.written)
        assert.equal("r", far:events())
        tcp.sleep(0.001)
      end
      turns = turns + 1
    until ok
    assert.is_true(turns > 1)
    assert.is_nil(far:events())
    assert.is_nil(far:timeout())
    local near = connected()
    assert.equal("greeting", near:read_line())

    local sent = 0
    repeat
      ok, err = far:try_write(BIG:sub(sent + 1, sent + 200000))
      sent = sent + (ok and 200000 or err.written)
    until not ok
    assert.equal("w", far:events())
    fails("timeout", far:try_read_line())
    assert.equal("rw", far:events())
    near:write("line\n")
    tcp.sleep(0.01)
    assert.equal("line", far:try_read_line())
    assert.equal("w", far:events())
    local reader = trying(near, "read", sent, { timeout = PATIENCE })
    repeat
      ok = far:try_write("")
      tcp.sleep(0.001)
    until ok
    assert.is_nil(far:events())
    assert.is_true(succeeds(reader) == BIG:sub(1, sent))
    near:close()
    far:close()
  end)

  it("loses nothing when writes time out before the client speaks", function()
    local far, connected = accepted()
    far:set_write_timeout(0)
    local sent = 0
    for i = 1, 10 do
      local ok, err = far:try_write_packet(tostring(i))
      sent = sent + (ok and 1 or 0)
      if not ok then
        assert.equal("timeout", err.kind)
        assert.equal(0, err.written)
        assert.equal("handshake", err.stage)
      end
    end
    far:set_write_timeout(PATIENCE)
    far:write_packet("last")
    local near = connected()
    for i = 11 - sent, 10 do
      assert.equal(tostring(i), near:read_packet())
    end
    assert.equal("last", near:read_packet())
    near:close()
    far:close()
  end)

  it("fails for everybody when handshake_timeout is over", function()
    local far, client = silent({ handshake_timeout = 0.05 })
    local begun = { trying(far, "read", 1), trying(far, "write", "x"), trying(far, "write_line", "y") }
    for i = 1, 3 do
      local err = task_fails("timeout", begun[i])
      assert.equal("handshake", err.stage)
    end
    local err = fails("closed", far:try_write("later"))
    assert.equal(0, err.written)
    assert.equal("handshake", err.stage)
    client:close()
    far:close()
  end)
end)

describe("polling a TLS record that arrives byte by byte", function()
  it("gives nothing of it before it is whole, and loses nothing", function()
    local text = tagged(200)
    local conn = connect_to("accept", { "trickle", 1, text }, { "trickle", 1, "second\n" }, "close")
    conn:set_timeout(0)
    local turns, line = 0
    repeat
      local buffered = conn:buffered()
      assert.is_true(buffered == 0 or buffered == #text)
      local err
      line, err = conn:try_read_line()
      if err then
        assert.equal("timeout", err.kind)
        assert.equal("r", conn:events())
        tcp.sleep(0.001)
      end
      turns = turns + 1
    until line or turns > 20000
    assert.equal(text .. "second", line)
    assert.is_true(turns > 10)
    assert.is_nil(conn:events())
    repeat
      local chunk, err = conn:try_recv()
      assert.is_nil(chunk)
    until not err
    conn:close()
  end)

  it("disturbs no writes", function()
    local conn, peer = connect_to("accept", { "trickle", 2, ("x"):rep(100) }, "drain")
    conn:set_read_timeout(0)
    local writes = 0
    repeat
      fails("timeout", conn:try_read(101))
      conn:write("w")
      writes = writes + 1
      tcp.sleep(0.001)
    until conn:buffered() == 100
    conn:shutdown("send")
    assert.equal(("w"):rep(writes), peer:got())
    conn:close()
  end)
end)
