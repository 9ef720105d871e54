-- Ends of TLS connections: collected in a handshake, closed right after a write, shut down.

local tcp = require("tcp.core")
local handshakes = require("support.handshakes")
local peers = require("support.peers")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local fails = support.fails
local spawn = tasks.spawn
local secure = transports.tls.tcp
local opens, clean = handshakes.opens, handshakes.clean
local held_up = handshakes.held_up
local HOST, PATIENCE = "127.0.0.1", 10

-- Descriptors are counted before `after_each`.
local function test(name, body)
  it(name, function()
    body()
    clean()
  end)
end

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
