-- TLS among tasks: who completes a handshake, who is told of its failure, and what it does to those beside it.

local tcp = require("tcp.core")
local handshakes = require("support.handshakes")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local fails = support.fails
local spawn = tasks.spawn
local secure = transports.tls.tcp
local opens, clean, timed = handshakes.opens, handshakes.clean, handshakes.timed
local between, accepted, held_up = handshakes.between, handshakes.accepted, handshakes.held_up
local HOST, PATIENCE = "127.0.0.1", 10

-- Descriptors are counted before `after_each`.
local function test(name, body)
  it(name, function()
    body()
    clean()
  end)
end

-- What may complete a handshake, and what it gives once the client has said "to you\n".
local WAYS = {
  { "reading", function(far) return far:try_read_line() end, "to you" },
  { "writing", function(far) return far:try_write("to me\n") and "written" end, "written" },
  { "handshake", function(far) return far:try_handshake() end, true },
}

describe("a handshake", function()
  after_each(clean)

  -- Every order in which they can come.
  for _, order in ipairs { { 1 }, { 2 }, { 3 }, { 1, 2 }, { 2, 1 }, { 2, 3 }, { 3, 2 }, { 1, 3 }, { 3, 1 }, { 1, 2, 3 },
    { 1, 3, 2 }, { 2, 1, 3 }, { 2, 3, 1 }, { 3, 1, 2 }, { 3, 2, 1 } } do
    local names = {}
    for i, way in ipairs(order) do
      names[i] = WAYS[way][1]
    end
    test("is completed by whoever waits, and nobody is lost: " .. table.concat(names, ", "), function()
      local far, let_come, connecting = held_up()
      local waits = {}
      for _, way in ipairs(order) do
        waits[#waits + 1] = { spawn(WAYS[way][2], far), WAYS[way][3] }
        tcp.sleep(0.002)
      end
      for _, it in ipairs(waits) do
        assert.equal("waiting", it[1]:status())
      end
      let_come()
      local near = connecting:join(PATIENCE)
      near:write("to you\n")
      for i, it in ipairs(waits) do
        assert.equal(it[2], (it[1]:join(PATIENCE)), names[i])
      end
    end)
  end

  test("is waited for by many writers, whose writes keep their order", function()
    local far, let_come, connecting = held_up()
    for i = 1, 20 do
      spawn(function() far:write_line(tostring(i)) end)
    end
    tcp.sleep(0.005)
    let_come()
    local near = connecting:join(PATIENCE)
    for i = 1, 20 do
      assert.equal(tostring(i), near:read_line({ timeout = PATIENCE }))
    end
  end)

  test("makes only a second reader busy", function()
    local far, let_come, connecting = held_up()
    local reader = spawn(far.read_line, far)
    tcp.sleep(0)
    fails("busy", far:try_read(1))
    fails("busy", spawn(far.try_recv, far):try_join(PATIENCE))
    let_come()
    connecting:join(PATIENCE):write("undisturbed\n")
    assert.equal("undisturbed", reader:join(PATIENCE))
  end)

  test("goes on for the writer after its reader was cancelled, and the other way round", function()
    for cancelled = 1, 2 do
      local far, let_come, connecting = held_up()
      local waits = { spawn(WAYS[1][2], far), spawn(WAYS[2][2], far) }
      tcp.sleep(0.005)
      waits[cancelled]:cancel()
      fails("cancelled", waits[cancelled]:try_join(PATIENCE))
      let_come()
      local near = connecting:join(PATIENCE)
      near:write("to you\n")
      local other = 3 - cancelled
      assert.equal(WAYS[other][3], waits[other]:join(PATIENCE))
    end
  end)

  test("may be waited for outside tasks, beside one that writes", function()
    local far, let_come, connecting = held_up()
    local writer = spawn(WAYS[2][2], far)
    spawn(function()
      tcp.sleep(0.005)
      let_come()
      connecting:join(PATIENCE):write("to you\n")
    end)
    assert.equal("to you", far:read_line({ timeout = PATIENCE }))
    assert.equal("written", writer:join(PATIENCE))
  end)

  -- Where hooks belong to all coroutines it would strike in the loop itself.
  if not jit then
    test("goes on after an error that struck anywhere in a wait for it, as Ctrl-C does", function()
      local listener = opens(secure.listen(HOST, 0))
      local function strike()
        debug.sethook()
        error("struck", 0)
      end
      for at = 1, 200, 3 do
        local connecting = spawn(function()
          local near = opens(secure.connect(HOST, listener:local_port()))
          near:write("to you\n")
        end)
        local far = opens(listener:accept(PATIENCE))
        pcall(function()
          debug.sethook(strike, "", at)
          far:handshake()
          debug.sethook()
        end)
        debug.sethook()
        assert.equal("to you", far:read_line({ timeout = PATIENCE }), "struck at " .. at)
        connecting:join(PATIENCE)
      end
    end)
  end

  test("is done by all at once when the reader takes it and what follows in one go", function()
    local far, let_come, connecting = held_up()
    local writer = spawn(WAYS[2][2], far)
    local near
    spawn(function()
      near = connecting:join(PATIENCE)
      near:write(("x"):rep(100000), "\n")
    end)
    let_come()
    assert.equal(100000, #far:read_line({ timeout = PATIENCE }))
    assert.equal("written", writer:join(PATIENCE))
    assert.equal("to me", near:read_line({ timeout = PATIENCE }))
  end)
end)

-- How a handshake fails, given the plain end of a client.
local FAILURES = {
  ["a client that speaks no TLS"] = { "tls", function(raw) raw:write("GET / HTTP/1.1\r\nHost: x\r\n\r\n") end },
  ["a client that hangs up"] = { "closed", function(raw) raw:close() end },
  ["a client that hangs up in the middle"] = { "closed", function(raw) raw:write("\22\3\1\2\0\1") raw:close() end },
  ["a client that resets"] = { "reset", function(raw) raw:set_option("linger", 0) raw:close() end },
  ["a client that sends an alert"] = { "tls", function(raw) raw:write("\21\3\3\0\2\2\40") end },
  ["too long a wait"] = { "timeout", function() end },
}

describe("a handshake that fails", function()
  after_each(clean)

  for name, failure in pairs(FAILURES) do
    test("wakes everybody who waits on that connection, and nobody else: " .. name, function()
      local far, raw, listener = accepted({ handshake_timeout = failure[1] == "timeout" and 0.1 or 60 })
      local other_raw = opens(tcp.connect(HOST, listener:local_port()))
      local other = opens(listener:accept(PATIENCE))
      local waits = {
        spawn(far.try_write, far, "first"),
        spawn(far.try_write_line, far, "second"),
        spawn(far.try_read_line, far),
      }
      tcp.sleep(0.05)
      local beside = spawn(other.try_read_line, other)
      tcp.sleep(0.001)
      failure[2](raw)
      for i, task in ipairs(waits) do
        local err = fails(failure[1], task:try_join(PATIENCE))
        assert.equal("handshake", err.stage, "wait " .. i .. ": " .. tostring(err))
      end
      assert.equal("waiting", beside:status())
      -- Whoever comes after the time was over must not think that there is hope.
      local later = failure[1] == "timeout" and "closed" or failure[1]
      assert.equal("handshake", fails(later, far:try_read(1)).stage)
      fails(later, far:try_write("x"))
      fails(later, far:try_handshake())
      other_raw:close()
      assert.equal("handshake", fails("closed", beside:try_join(PATIENCE)).stage)
    end)
  end

  test("wakes who waits, also where another one met what had arrived first", function()
    local far, raw = accepted()
    local reader = spawn(far.try_read, far, 1)
    tcp.sleep(0.01)
    raw:write("GET / HTTP/1.1\r\n\r\n")
    -- The loop does not turn, and hears nothing of it.
    os.execute("sleep 0.05")
    fails("tls", far:try_write("x"))
    -- Before its handshake's time is over.
    fails("tls", reader:join(2))
  end)

  test("is told to a client that waits, too", function()
    local listener = opens(tcp.listen(HOST, 0))
    local connecting = spawn(secure.try_connect, HOST, listener:local_port())
    opens(listener:accept(PATIENCE)):write("220 mail.example ESMTP\r\n")
    assert.equal("handshake", fails("tls", connecting:try_join(PATIENCE)).stage)
  end)

  test("by close is told to all as closed, and the client of it", function()
    local far, raw = accepted()
    local waits = { spawn(far.try_write, far, "x"), spawn(far.try_write, far, "y"), spawn(far.try_read, far, 1) }
    tcp.sleep(0.005)
    far:close()
    for _, task in ipairs(waits) do
      fails("closed", task:try_join(PATIENCE))
    end
    fails("closed", far:try_handshake())
    assert.is_nil(raw:recv(10, { timeout = PATIENCE }))
  end)

  test("by close while a task calls handshake is closed", function()
    local far = accepted()
    local task = spawn(far.try_handshake, far)
    tcp.sleep(0.005)
    far:close()
    fails("closed", task:try_join(PATIENCE))
  end)
end)

describe("a client that connects and says nothing", function()
  after_each(clean)

  test("delays no other", function()
    local listener = opens(secure.listen(HOST, 0))
    for _ = 1, 10 do
      opens(tcp.connect(HOST, listener:local_port()))
    end
    local served = 0
    spawn(function()
      for _ = 1, 30 do
        spawn(function(conn)
          local line = conn:try_read_line()
          if line then
            conn:write_line(line)
            served = served + 1
          end
          conn:close()
        end, opens(listener:accept()))
      end
    end)
    between(0, 5, timed(function()
      for i = 1, 20 do
        local conn = opens(secure.connect(HOST, listener:local_port()))
        conn:write_line(tostring(i))
        assert.equal(tostring(i), conn:read_line({ timeout = PATIENCE }))
      end
    end))
    assert.equal(20, served)
  end)
end)
