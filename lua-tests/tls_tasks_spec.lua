-- TLS among tasks: who completes a handshake, who is told of its failure, and what it does to those beside it.

local tcp = require("tcp.core")
local peers = require("support.peers")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local fails, spawn = support.fails, tasks.spawn
local secure = transports.tls.tcp
local HOST, PATIENCE = "127.0.0.1", 10
local counts = debug.getregistry()["tcp.counts"]

local opened = {}

--- Has `clean` close it.
local function opens(it)
  opened[#opened + 1] = it
  return it
end

local function clean()
  for i = #opened, 1, -1 do
    opened[i]:close()
    opened[i] = nil
  end
  tasks.finish_all()
  collectgarbage()
  collectgarbage()
  local left = counts()
  assert.same({ 0, 0 }, { left.registrations, left.reading })
end

-- Descriptors are counted before `after_each`.
local function test(name, body)
  it(name, function()
    body()
    clean()
  end)
end

--- The seconds that it took.
local function timed(fn)
  local began = tcp.now()
  fn()
  return tcp.now() - began
end

local function between(least, most, seconds)
  assert.is_true(seconds >= least and seconds < most, "took " .. seconds)
end

--- A connection that was accepted, and its client's plain end: what comes of TLS is up to the spec.
local function accepted(options)
  local listener = opens(secure.listen(HOST, 0, options))
  local raw = opens(tcp.connect(HOST, listener:local_port()))
  return opens(listener:accept(PATIENCE)), raw, listener
end

--- Takes what the one says to the other.
local function pump(source, target)
  local bytes = source:try_recv()
  while bytes and target:try_write(bytes) do
    bytes = source:try_recv()
  end
  target:try_shutdown("send")
end

--- A connection that was accepted; a call that lets its client's bytes come, so that the handshake can go on; and the
-- task that connects, which gives its end.
local function held_up(options)
  local far, raw = accepted(options)
  local between_them = opens(tcp.listen(HOST, 0))
  local connecting = spawn(function()
    return opens(secure.connect(HOST, between_them:local_port(), { timeout = PATIENCE }))
  end)
  local near = opens(between_them:accept(PATIENCE))
  return far, function()
    spawn(pump, near, raw)
    spawn(pump, raw, near)
  end, connecting
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

describe("handshake_timeout", function()
  after_each(clean)

  local PLACES = { ["in a task"] = tcp.run, ["outside tasks"] = function(fn) fn() end, ["beside a task"] = function(fn)
    local other = spawn(tcp.sleep, 5)
    fn()
    other:cancel()
  end }
  local OPERATIONS = {
    read = function(conn) return conn:try_read(1) end,
    read_str = function(conn) return conn:try_read_str() end,
    peek = function(conn) return conn:try_peek(1) end,
    write = function(conn) return conn:try_write("x") end,
    write_json = function(conn) return conn:try_write_json("x") end,
    handshake = function(conn) return conn:try_handshake() end,
  }

  for place, run in pairs(PLACES) do
    for op, operation in pairs(OPERATIONS) do
      test(("ends %s %s"):format(op, place), function()
        local far = accepted({ handshake_timeout = 0.05 })
        run(function()
          between(0.05, 1, timed(function()
            local err = fails("timeout", operation(far))
            assert.same({ op, "handshake" }, { err.op, err.stage })
          end))
          -- There is no way back.
          assert.equal("handshake", fails("closed", far:try_read(1)).stage)
        end)
      end)
    end

    test("ends a shutdown that waits for its turn to say goodbye, " .. place, function()
      local far = accepted({ handshake_timeout = 0.05, write_timeout = 3 })
      run(function() between(0.05, 1, timed(function() far:try_shutdown("send") end)) end)
    end)

    test("of 0 does not wait, and of math.huge is no limit, " .. place, function()
      local far = accepted({ handshake_timeout = 0 })
      run(function()
        between(0, 0.5, timed(function()
          assert.equal("handshake", fails("timeout", far:try_read(1)).stage)
        end))
      end)
      far = accepted({ handshake_timeout = math.huge, read_timeout = 0.05 })
      run(function()
        between(0.05, 1, timed(function()
          assert.equal("handshake", fails("timeout", far:try_read(1)).stage)
        end))
        -- That was the read's own time.
        assert.equal("handshake", fails("timeout", far:try_read(1, { timeout = 0 })).stage)
      end)
    end)
  end

  test("counts from the connection's first operation, not from its being accepted", function()
    local far, let_come, connecting = held_up({ handshake_timeout = 0.4 })
    tcp.sleep(0.5)
    let_come()
    spawn(function() connecting:join(PATIENCE):write("in time\n") end)
    assert.equal("in time", far:read_line({ timeout = PATIENCE }))
  end)

  test("is one time for the whole handshake, however many operations wait for it", function()
    local far = accepted({ handshake_timeout = 0.15 })
    between(0.15, 1, timed(function()
      local _, err
      repeat
        _, err = far:try_read(1, { timeout = 0.02 })
        assert.equal("handshake", fails("timeout", nil, err).stage)
      until err.message:find("too long")
    end))
  end)

  test("does not reach beyond the handshake", function()
    local far, let_come, connecting = held_up({ handshake_timeout = 0.4 })
    local reader = spawn(far.try_read_line, far)
    let_come()
    local near = connecting:join(PATIENCE)
    tcp.sleep(0.5)
    assert.equal("waiting", reader:status())
    near:write("late\n")
    assert.equal("late", reader:join(PATIENCE))
  end)

  test("does not reach beyond the handshake, outside tasks", function()
    local peer = peers.start("--tls", "server", "accept", { "sleep", 700 }, { "send", "late\n" }, "stall")
    local conn = opens(secure.connect(peer.host, peer.port, 0.5))
    assert.equal("late", conn:read_line({ timeout = PATIENCE }))
  end)
end)

describe("time that is shorter than the handshake", function()
  after_each(clean)

  test("of a read or write leaves the handshake able to go on", function()
    local far, let_come, connecting = held_up()
    for _, cut in ipairs {
      function() return far:try_read_line({ timeout = 0.01 }) end,
      function() return far:try_read_line({ timeout = 0 }) end,
      function() return far:try_handshake({ timeout = 0.01 }) end,
      function() return far:try_handshake({ timeout = 0 }) end,
      function()
        far:set_write_timeout(0.01)
        local value, err = far:try_write("never")
        far:set_write_timeout(nil)
        assert.equal(0, err.written)
        return value, err
      end,
      function()
        far:set_deadline(0.01)
        local value, err = far:try_read(1)
        fails("timeout", far:try_write("never"))
        far:set_deadline(nil)
        return value, err
      end,
    } do
      assert.equal("handshake", fails("timeout", cut()).stage)
      assert.equal("handshake", fails("timeout", tcp.run(cut)).stage)
    end
    let_come()
    spawn(function() connecting:join(PATIENCE):write("after all\n") end)
    assert.equal("after all", far:read_line({ timeout = PATIENCE }))
    far:write("indeed\n")
    assert.equal("indeed", connecting:join(PATIENCE):read_line({ timeout = PATIENCE }))
  end)

  test("is neither lengthened nor shortened by it", function()
    for _, handshake_timeout in ipairs { 0.6, 60 } do
      local far, let_come, connecting = held_up({ handshake_timeout = handshake_timeout })
      spawn(function()
        tcp.sleep(0.3)
        let_come()
        connecting:join(PATIENCE)
      end)
      -- Begun anew after the handshake, it would take 1.1 s.
      between(0.8, 1.05, timed(function()
        assert.is_nil(fails("timeout", far:try_read(1, { timeout = 0.8 })).stage)
      end))
    end
  end)

  test("is neither lengthened nor shortened by it, in a task beside a writer that completes it", function()
    local far, let_come, connecting = held_up({ handshake_timeout = 0.5 })
    local reader = spawn(function()
      local err
      local taken = timed(function() err = fails("timeout", far:try_read(1, { timeout = 0.7 })) end)
      return err.stage or "none", taken
    end)
    tcp.sleep(0)
    let_come()
    far:write("x")
    local stage, taken = reader:join(PATIENCE)
    assert.equal("none", stage)
    between(0.7, 1.5, taken)
    connecting:join(PATIENCE)
  end)

  test("keeps a deadline across the handshake", function()
    local far, let_come, connecting = held_up()
    far:set_deadline(0.5)
    spawn(function()
      tcp.sleep(0.3)
      let_come()
      connecting:join(PATIENCE)
    end)
    between(0.4, 0.75, timed(function()
      assert.is_nil(fails("timeout", far:try_read_str()).stage)
      assert.is_nil(fails("timeout", far:try_read_line()).stage)
    end))
    -- What needs no wait succeeds.
    far:write("x")
  end)
end)

describe("connect_tls", function()
  after_each(clean)

  local function silent()
    return peers.start("accept", "stall")
  end

  local WAYS_TO_END = {
    cancel = function(begin)
      local seen
      local task = spawn(function()
        local _
        _, seen = begin()
      end)
      tcp.sleep(0.05)
      task:cancel()
      fails("cancelled", task:try_join(PATIENCE))
      return fails("cancelled", nil, seen)
    end,
    with_timeout = function(begin)
      local seen
      fails("timeout", tcp.try_with_timeout(0.05, function()
        local _
        _, seen = begin()
      end))
      return fails("cancelled", nil, seen)
    end,
    timeout = function(begin)
      return fails("timeout", begin(0.05))
    end,
  }
  WAYS_TO_END["with_timeout in a task"] = function(begin) return tcp.run(WAYS_TO_END.with_timeout, begin) end
  WAYS_TO_END["timeout in a task"] = function(begin) return tcp.run(WAYS_TO_END.timeout, begin) end

  for name, way in pairs(WAYS_TO_END) do
    test("ended by " .. name .. " during the handshake leaves nothing open", function()
      local peer = silent()
      collectgarbage("stop")
      finally(function() collectgarbage("restart") end)
      local before = peers.descriptors()
      local err = way(function(timeout) return tcp.try_connect_tls(peer.host, peer.port, timeout or 60) end)
      assert.same({ "connect_tls", "handshake", HOST .. ":" .. peer.port }, { err.op, err.stage, err.peer })
      assert.equal(before, peers.descriptors())
      assert.equal(0, counts().registrations)
    end)
  end

  test("has one time for connecting and handshake", function()
    local peer = silent()
    for _, run in ipairs { function(fn) fn() end, tcp.run } do
      run(function()
        between(0.1, 0.5, timed(function() fails("timeout", tcp.try_connect_tls(peer.host, peer.port, 0.1)) end))
        between(0, 0.5, timed(function() fails("timeout", tcp.try_connect_tls(peer.host, peer.port, 0)) end))
      end)
    end
  end)

  test("of 200 at once reaches a server that accepts slowly", function()
    local CLIENTS = 200
    local listener = opens(secure.listen(HOST, 0))
    local sum = 0
    spawn(function()
      for i = 1, CLIENTS do
        spawn(function(conn)
          local number = conn:read_line()
          sum = sum + number
          conn:write_line("thanks")
          conn:close()
        end, listener:accept())
        if i % 10 == 0 then
          tcp.sleep(0.005)
        end
      end
    end)
    local clients = {}
    for i = 1, CLIENTS do
      clients[i] = spawn(function()
        local conn = opens(secure.connect(HOST, listener:local_port(), { timeout = 60 }))
        conn:write_line(tostring(i))
        return (conn:read_line({ timeout = 60 }))
      end)
    end
    for i = 1, CLIENTS do
      assert.equal("thanks", clients[i]:join(60))
    end
    assert.equal(CLIENTS * (CLIENTS + 1) / 2, sum)
  end)
end)

describe("collecting garbage", function()
  after_each(clean)

  test("closes connections in the middle of a handshake", function()
    local listener = opens(secure.listen(HOST, 0))
    local connecting = {}
    for i = 1, 20 do
      connecting[i] = spawn(secure.try_connect, HOST, listener:local_port(), PATIENCE)
    end
    tcp.run(function()
      for i = 1, 20 do
        local conn = listener:accept(PATIENCE)
        if i % 2 == 0 then
          -- It has taken the client's hello or waits for it.
          conn:try_read(1, { timeout = i % 4 == 0 and 0.005 or 0 })
        end
      end
    end)
    collectgarbage()
    collectgarbage()
    for i = 1, 20 do
      local conn, err = connecting[i]:try_join(PATIENCE)
      if conn then
        -- TLS 1.3: the client was done before its server.
        conn:close()
      else
        assert.is_true(err.kind == "closed" or err.kind == "reset", tostring(err))
        assert.equal("handshake", err.stage)
      end
    end
  end)

  test("leaves nothing of tasks that were cancelled in one", function()
    local before = peers.descriptors()
    local listener = secure.listen(HOST, 0)
    local raws = {}
    for i = 1, 20 do
      raws[i] = tcp.connect(HOST, listener:local_port())
      local conn = listener:accept(PATIENCE)
      local reader, writer = spawn(conn.try_read, conn, 1), spawn(conn.try_write, conn, "x")
      tcp.sleep(0)
      reader:cancel()
      writer:cancel()
    end
    tcp.run()
    collectgarbage()
    collectgarbage()
    for i = 1, 20 do
      raws[i]:close()
    end
    listener:close()
    assert.equal(before, peers.descriptors())
  end)
end)

-- A client that only writes never reads the server's session tickets.
local WRITER = [[
  local tcp = require("tcp")
  local conn = tcp.connect_tls("127.0.0.1", %d, { tls = { ca_bundle = "build/certificates/ca.pem" } })
  conn:write(("x"):rep(%d))
  %s
]]

local CLOSES_STATE = _VERSION ~= "Lua 5.1" or jit

-- How it ends.
local ENDS = {
  ["closes"] = "conn:close() tcp.run()",
  ["closes and ends"] = "conn:close()",
  ["ends"] = "",
  -- Plain Lua 5.1 closes nothing then.
  ["exits with its state closed"] = CLOSES_STATE and "os.exit(0, true)" or nil,
  ["closes and exits with its state closed"] = CLOSES_STATE and "conn:close() os.exit(0, true)" or nil,
  ["forgets its connection"] = "conn = nil collectgarbage() collectgarbage() tcp.sleep(0.5)",
  ["closes in a task"] = "tcp.run(function() conn:close() end)",
}

describe("a TLS 1.3 client that only writes and then", function()
  after_each(clean)

  for name, ending in pairs(ENDS) do
    for _, size in ipairs { 1, 300000 } do
      test(("%s: all of %d bytes arrive"):format(name, size), function()
        local listener = opens(secure.listen(HOST, 0))
        support.with_child(WRITER:format(listener:local_port(), size, ending), function(output)
          local conn = opens(listener:accept(PATIENCE))
          conn:handshake({ timeout = PATIENCE })
          -- The client may be gone by now.
          tcp.sleep(0.1)
          assert.equal(size, #conn:read_str({ timeout = PATIENCE }))
          conn:close()
          assert.equal("", output:read("*a"))
        end)
      end)
    end
  end

  test("closes in this process: all arrives", function()
    local listener = opens(secure.listen(HOST, 0))
    local reading = spawn(function()
      local conn = opens(listener:accept())
      conn:handshake()
      tcp.sleep(0.1)
      return #conn:read_str({ timeout = PATIENCE })
    end)
    local conn = secure.connect(HOST, listener:local_port())
    conn:write(("x"):rep(300000))
    conn:close()
    assert.equal(300000, reading:join(PATIENCE))
  end)
end)

describe("shutdown", function()
  after_each(clean)

  -- What is sealed and has not left stands in its way, though nobody waits for it.
  for place, run in pairs { ["in a task"] = tcp.run, ["outside tasks"] = function(fn) fn() end } do
    test("waits for what the system does not take, and goes on when it does, " .. place, function()
      local near, far = transports.tls.pair()
      opens(near)
      opens(far)
      near:set_option("send_buffer", 16384)
      far:set_option("recv_buffer", 16384)
      near:set_write_timeout(0)
      local total, written = 0
      repeat
        written = fails("timeout", near:try_send(("x"):rep(1000000))).written
        total = total + written
      until written == 0
      near:set_write_timeout(5)
      local reading = spawn(function()
        tcp.sleep(0.05)
        return #far:read_str({ timeout = PATIENCE })
      end)
      run(function() near:shutdown("send") end)
      assert.equal(total, reading:join(PATIENCE))
    end)
  end

  test("as the first operation of an accepted connection completes the handshake", function()
    local far, let_come, connecting = held_up()
    let_come()
    local reading = spawn(function()
      local near = connecting:join(PATIENCE)
      return near:read_str({ timeout = PATIENCE })
    end)
    far:set_write_timeout(5)
    far:shutdown("send")
    assert.equal("", reading:join(PATIENCE))
  end)
end)
