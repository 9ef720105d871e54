-- TLS under the protocol for other loops: `set_timeout(0)`, a `try_` call, and then what events(), pollfd() and
-- timeout() say. cqueues asks them itself.

local tcp = require("tcp.core")
local support = require("support")
local transports = require("support.transports")
local waits = require("support.waits")

local fails = support.fails
local certificate = transports.certificate

local has_cqueues, cqueues = pcall(require, "cqueues")

-- Far more than the system takes at once, and all of it different.
local lines = {}
for i = 1, 65536 do
  lines[i] = ("%015d\n"):format(i)
end
local LARGE = table.concat(lines)

local function contents(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

if not has_cqueues then
  describe("TLS in another loop", function()
    it("is polled by cqueues", function()
      pending("cqueues cannot be loaded: " .. tostring(cqueues))
    end)
  end)
  return
end

local seen

--- Waits as the connection says, and notes for what.
local function wait(conn)
  seen[#seen + 1] = conn:events()
  cqueues.poll(conn)
end

--- Tries until it needs no wait.
local function patiently(conn, method, ...)
  local value, err = conn["try_" .. method](conn, ...)
  while value == nil and err do
    assert(err.kind == "timeout", err)
    wait(conn)
    value, err = conn["try_" .. method](conn, ...)
  end
  return value
end

--- Runs the functions side by side, and tcp's tasks as long as there are some. Gives the processor's time.
local function run(...)
  local queue = cqueues.new()
  seen = {}
  for _, fn in ipairs { ... } do
    queue:wrap(fn)
  end
  queue:wrap(function()
    while tcp.step(0) do
      cqueues.poll({ pollfd = tcp.pollfd(), events = "r" })
    end
  end)
  local cpu = os.clock()
  assert(queue:loop(20))
  assert.is_true(queue:empty(), "it never ends")
  return os.clock() - cpu
end

--- The bytes up to the end of the stream.
local function drain(conn)
  local parts = {}
  local data = patiently(conn, "recv", 65536)
  while data do
    parts[#parts + 1] = data
    data = patiently(conn, "recv", 65536)
  end
  return table.concat(parts)
end

--- A connection just accepted, and a client of it that says what the spec has it say.
local function accepted(options, where)
  local listener = transports.tls.tcp.listen(where or "127.0.0.1", not where and 0 or nil, options)
  local raw = waits.opens(tcp.connect(where or "127.0.0.1", not where and listener:local_port() or nil))
  local conn = waits.opens(listener:accept())
  listener:close()
  conn:set_timeout(0)
  return conn, raw
end

--- A client of TLS whose bytes go where the spec carries them: the task that connects, and its wire's other end.
local function client_on_a_wire()
  local wire = tcp.listen("127.0.0.1", 0)
  local port = wire:local_port()
  local connecting = tcp.spawn(function()
    local client, err = transports.tls.tcp.try_connect("127.0.0.1", port)
    return client and waits.opens(client), err
  end)
  local far = waits.opens(wire:accept())
  wire:close()
  return connecting, far
end

--- Carries what one says to the other, until there is no more.
local function carry(from, to)
  return tcp.spawn(function()
    local data = from:try_recv(65536)
    while data do
      to:write(data)
      data = from:try_recv(65536)
    end
  end)
end

local OPERATIONS = { read_line = false, write = "x", handshake = false, recv = 10, send_some = "x" }

describe("a handshake in another loop", function()
  after_each(waits.clean)

  for method, argument in pairs(OPERATIONS) do
    it("waits for bytes in " .. method .. ", and has the handshake's deadline", waits.cleanly(function()
      local listener = transports.tls.tcp.listen("127.0.0.1", 0, { handshake_timeout = 5 })
      local port = listener:local_port()
      local client
      tcp.spawn(function()
        client = waits.opens(transports.tls.tcp.connect("127.0.0.1", port))
        client:write_line("hello")
      end)
      tcp.step(0)
      local conn = waits.opens(listener:accept())
      listener:close()
      conn:set_timeout(0)
      assert.is_nil(conn:events())
      assert.is_nil(conn:timeout())
      local err = fails("timeout", conn["try_" .. method](conn, argument or nil))
      assert.equal("handshake", err.stage)
      assert.equal("r", conn:events())
      assert.is_true(conn:timeout() > 4 and conn:timeout() <= 5)
      local cpu = run(function()
        patiently(conn, method, argument or nil)
      end)
      assert.is_true(#seen <= 4, table.concat(seen, " "))
      assert.is_true(cpu < 0.1, "used " .. cpu)
      assert.is_nil(conn:timeout())
      assert.is_nil(conn:events())
      if argument == "x" then
        assert.equal("x", client:read(1))
      end
    end))
  end

  for method, argument in pairs(OPERATIONS) do
    it("waits for room in " .. method .. " where it has much to say", waits.cleanly(function()
      local path = os.tmpname()
      os.remove(path)
      -- What a unix socket's reader has not taken fills its writer's buffer.
      local conn, raw = accepted({ handshake_timeout = 10, tls = {
        cert = contents(certificate("chain")) .. contents(certificate("intermediate")):rep(100)
          -- Other text: no session of another test is resumed, which would leave little to say.
          .. "\n" .. method,
        key = certificate("chain", "key"),
      } }, "unix:" .. path)
      conn:set_option("send_buffer", 4608)
      local connecting, wire = client_on_a_wire()
      local hello = wire:recv()
      raw:write(hello)
      fails("timeout", conn["try_" .. method](conn, argument or nil))
      assert.equal("w", conn:events())
      assert.is_true(conn:timeout() > 8)
      carry(raw, wire)
      carry(wire, raw)
      tcp.spawn(function()
        local client = connecting:join()
        client:write_line("hello")
        client:shutdown("send")
        return client:read_str()
      end)
      run(function()
        patiently(conn, method, argument or nil)
        cqueues.cancel(conn:pollfd())
        conn:close()
      end)
      assert.matches("^w[w ]*r", table.concat(seen, " "))
    end))
  end

  it("gives a silent client up in time", waits.cleanly(function()
    local conn, raw = accepted { handshake_timeout = 0.2 }
    local err, taken
    run(function()
      fails("timeout", conn:try_read(1))
      local began = cqueues.monotime()
      cqueues.poll(conn)
      taken = cqueues.monotime() - began
      err = fails("timeout", conn:try_read(1))
    end)
    assert.is_true(taken > 0.15 and taken < 1, "took " .. taken)
    assert.equal("handshake", err.stage)
    assert.equal("the TLS handshake took too long", err.message)
    for method, argument in pairs(OPERATIONS) do
      for _ = 1, 2 do
        local later = fails("closed", conn["try_" .. method](conn, argument or nil))
        assert.equal("handshake", later.stage)
        assert.equal(0, conn:timeout())
      end
    end
    assert.is_false(conn:is_closed())
    conn:close()
    assert.is_nil(conn:timeout())
    assert.is_nil((raw:try_recv(10, { timeout = 5 })))
  end))

  it("that failed is not done because its sending side has ended", waits.cleanly(function()
    local conn = accepted { handshake_timeout = 0 }
    fails("timeout", conn:try_handshake())
    conn:try_shutdown("send")
    fails("closed", conn:try_handshake())
    fails("closed", conn:try_read(1))
  end))

  it("tells of the nearest of its deadline and the connection's", waits.cleanly(function()
    local conn = accepted { handshake_timeout = 5 }
    conn:set_deadline(20)
    fails("timeout", conn:try_read(1))
    assert.is_true(conn:timeout() <= 5)
    conn:set_deadline(1)
    assert.is_true(conn:timeout() <= 1)
    conn:set_deadline(nil)
    assert.is_true(conn:timeout() > 4)
    conn = accepted { handshake_timeout = math.huge }
    fails("timeout", conn:try_read(1))
    assert.is_nil(conn:timeout())
  end))

  it("cannot be outlived by a client that trickles", waits.cleanly(function()
    local conn, raw = accepted { handshake_timeout = 0.3 }
    local connecting, wire = client_on_a_wire()
    local hello = wire:recv()
    wire:close()
    local err, taken
    run(function()
      local began = cqueues.monotime()
      repeat
        err = fails("timeout", conn:try_handshake())
        wait(conn)
      until err.message == "the TLS handshake took too long"
      taken = cqueues.monotime() - began
    end, function()
      for i = 1, #hello - 1 do
        if not raw:try_write(hello:sub(i, i)) then
          return
        end
        cqueues.sleep(0.02)
        if taken then
          return
        end
      end
    end)
    assert.is_true(taken > 0.25 and taken < 1, "took " .. taken)
    fails("closed", connecting:join())
  end))

  it("ends at once when the client goes, and says where", waits.cleanly(function()
    for way, kind in pairs { close = "closed", reset = "reset" } do
      local conn, raw = accepted()
      if way == "reset" then
        raw:set_option("linger", 0)
      end
      local err
      run(function()
        cqueues.sleep(0.02)
        raw:close()
      end, function()
        repeat
          local _, problem = conn:try_read(1)
          err = problem
          if err.kind == "timeout" then
            wait(conn)
          end
        until err.kind ~= "timeout"
      end)
      assert.equal(kind, err.kind)
      assert.equal("handshake", err.stage)
      assert.is_true(#seen <= 3, #seen .. " waits")
    end
  end))
end)

for _, over in ipairs(transports.all) do
  describe("a connection in another loop" .. over.suffix, function()
    local near, far

    before_each(function()
      near, far = over.pair()
      for _, conn in ipairs { near, far } do
        waits.opens(conn)
        conn:set_timeout(0)
        conn:set_option("send_buffer", 16384)
      end
    end)

    after_each(waits.clean)

    --- A large write, continued where it stopped, until all of it has left.
    local function write_all(conn, data)
      local at = 1
      while true do
        local ok, err = conn:try_write(data:sub(at))
        if ok then
          return
        end
        assert(err.kind == "timeout", err)
        at = at + err.written
        wait(conn)
      end
    end

    local function send_all(conn, data)
      local at = 1
      while at <= #data do
        at = at + patiently(conn, "send_some", data, at)
      end
    end

    for name, send in pairs { write = write_all, send_some = send_all } do
      it("sends much by " .. name .. ", and its end after all of it", function()
        local got
        run(function()
          send(near, LARGE)
          patiently(near, "shutdown", "send")
        end, function()
          cqueues.sleep(0.05)
          got = drain(far)
        end)
        assert.is_true(LARGE == got, #got .. " of " .. #LARGE)
      end)

      it("sends much by " .. name .. " both ways at once", function()
        local got = {}
        local tasks = {}
        for i, conn in ipairs { near, far } do
          tasks[#tasks + 1] = function()
            send(conn, LARGE)
            patiently(conn, "shutdown", "send")
          end
          tasks[#tasks + 1] = function()
            got[i] = drain(conn)
          end
        end
        run((table.unpack or unpack)(tasks))
        assert.is_true(LARGE == got[1] and LARGE == got[2])
      end)

      it("sends much by " .. name .. ", and all of it arrives after close", function()
        local reader = tcp.spawn(function()
          tcp.sleep(0.05)
          return (far:read_str({ timeout = 10 }))
        end)
        run(function()
          send(near, LARGE)
          cqueues.cancel(near:pollfd())
          near:close()
        end)
        local got = reader:join()
        assert.is_true(LARGE == got, #got .. " of " .. #LARGE)
      end)
    end

    it("is idle while a peer takes nothing", function()
      local cpu = run(function()
        near:set_deadline(0.3)
        repeat
          while near:try_send_some(LARGE) do
            assert(near:timeout() <= 0.3)
          end
          wait(near)
        until near:timeout() == 0
      end)
      assert.is_true(#seen < 20, #seen .. " waits")
      assert.is_true(cpu < 0.2, "used " .. cpu)
    end)

    it("waits for an answer and lets leave what it has sent", function()
      local taken, answer = 0, nil
      run(function()
        local count = near:try_send_some(LARGE)
        while count do
          taken = taken + count
          count = near:try_send_some(LARGE)
        end
        fails("timeout", near:try_read_line())
        assert.equal("rw", near:events())
        answer = patiently(near, "read_line")
      end, function()
        cqueues.sleep(0.05)
        patiently(far, "read", taken)
        patiently(far, "write_line", "all of it")
      end)
      assert.equal("all of it", answer)
    end)

    it("has no more to send, where shutdown was tried until it had not to wait", function()
      while near:try_send_some(LARGE) do
        assert.is_nil(near:timeout())
      end
      run(function()
        patiently(near, "shutdown", "send")
      end, function()
        drain(far)
      end)
      assert.is_not.matches("w", tostring(near:events()))
      fails("closed", near:try_write("more"))
    end)

    it("waits for no room once a write that was cut has ended its sending side", function()
      fails("timeout", near:try_write_line(LARGE))
      fails("closed", near:try_write("more"))
      run(function()
        cqueues.sleep(0.2)
        far:set_deadline(0)
        repeat until not far:try_recv(65536)
      end, function()
        near:set_deadline(0.4)
        repeat
          fails("timeout", near:try_read(1))
          wait(near)
        until near:timeout() == 0
      end)
      assert.is_true(#seen < 100, #seen .. " waits")
    end)

    it("tells the end of a peer's process once, and then again", function()
      local conn = over.connect_to("accept", { "sleep", 50 }, { "send", "last" }, "close")
      conn:set_timeout(0)
      run(function()
        assert(patiently(conn, "read", 4) == "last")
        assert(patiently(conn, "recv") == nil)
        assert(conn:try_recv() == nil)
        assert(select(2, conn:try_read(1)).kind == "closed")
      end)
      assert.is_true(#seen <= 4, #seen .. " waits")
      conn:close()
    end)
  end)
end
