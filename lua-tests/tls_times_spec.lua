-- Time that a TLS handshake has, among tasks and outside them.

local tcp = require("tcp.core")
local handshakes = require("support.handshakes")
local peers = require("support.peers")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local fails = support.fails
local spawn = tasks.spawn
local secure = transports.tls.tcp
local opens, clean, timed = handshakes.opens, handshakes.clean, handshakes.timed
local between, accepted, held_up = handshakes.between, handshakes.accepted, handshakes.held_up
local HOST, PATIENCE = "127.0.0.1", 10

local counts = debug.getregistry()["tcp.counts"]

-- Descriptors are counted before `after_each`.
local function test(name, body)
  it(name, function()
    body()
    clean()
  end)
end

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
