-- start_tls among tasks: who is busy, what queues behind it, and what is left of it.

local tcp = require("tcp.core")
local handshakes = require("support.handshakes")
local peers = require("support.peers")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")
local upgrades = require("support.upgrades")

local fails = support.fails
local clean = handshakes.clean
local spawn, trying, succeeds = tasks.spawn, tasks.trying, tasks.succeeds
local CLIENT, SERVER, with = upgrades.CLIENT, upgrades.SERVER, upgrades.with
local PATIENCE = 10

local counts = debug.getregistry()["tcp.counts"]

-- More than the system takes at once.
local LARGE = ("0123456789abcdef"):rep(1024 * 1024)

-- Descriptors are counted before `after_each`.
local function test(name, body)
  it(name, function()
    body()
    clean()
  end)
end

--- Upgrades both ends, `near` in a task.
local function upgrade(near, far, client)
  local asking = trying(near, "start_tls", client or CLIENT)
  far:start_tls(SERVER)
  succeeds(asking)
  upgrades.is_usable(near, far)
end

describe("start_tls is busy", function()
  after_each(clean)

  --- Asserts that it is, in both forms and for both sides, and harms nothing.
  local function is_busy(conn)
    for _, options in ipairs { upgrades.unix.client, SERVER } do
      local err = fails("busy", conn:try_start_tls(options))
      assert.equal("start_tls", err.op)
      support.raises("busy", conn.start_tls, conn, options)
      fails("busy", spawn(conn.start_tls, conn, options):try_join(PATIENCE))
    end
    assert.is_false(conn:is_closed())
    assert.is_false(conn:is_tls())
  end

  for _, place in ipairs(upgrades.places) do
    test("while another task reads, " .. place.suffix, function()
      local near, far = place.pair()
      local reading = trying(near, "read_line")
      tcp.sleep(0)
      is_busy(near)
      far:write("hel")
      tcp.sleep(0.005)
      is_busy(near)
      far:write("lo\n")
      assert.equal("hello", succeeds(reading))
    end)

    test("while another task writes, " .. place.suffix, function()
      local near, far = place.pair()
      local writing = trying(near, "write", LARGE)
      tcp.sleep(0.005)
      is_busy(near)
      assert.is_true(LARGE == far:read(#LARGE))
      succeeds(writing)
    end)

    test("while one reads and others write, and not any more after them, " .. place.suffix, function()
      local near, far = place.pair()
      local reading = trying(near, "read_line")
      local writing = { trying(near, "write", LARGE), trying(near, "write_line", "last") }
      tcp.sleep(0.005)
      is_busy(near)
      far:write("hello\n")
      assert.equal("hello", succeeds(reading))
      is_busy(near)
      assert.is_true(LARGE == far:read(#LARGE))
      assert.equal("last", far:read_line())
      succeeds(writing[1])
      succeeds(writing[2])
      upgrade(near, far, place.client)
    end)
  end

  test("while another task is at it", function()
    local near, far = upgrades.tcp.pair()
    local first = trying(near, "start_tls", CLIENT)
    local second, third = trying(near, "start_tls", CLIENT), trying(near, "start_tls", SERVER)
    tasks.fails("busy", second)
    tasks.fails("busy", third)
    fails("busy", near:try_start_tls(CLIENT))
    far:start_tls(SERVER)
    succeeds(first)
    upgrades.is_usable(near, far)
  end)

  test("no more once the reader was cancelled", function()
    local near, far = upgrades.tcp.pair()
    local reading = spawn(near.read_line, near)
    tcp.sleep(0)
    fails("busy", near:try_start_tls(CLIENT))
    reading:cancel()
    upgrade(near, far)
  end)
end)

describe("while an upgrade is under way", function()
  after_each(clean)

  local READS = { read = 1, read_bytes = 1, recv = 10, read_line = "l", read_until = "x", read_str = 10, peek = 1,
    read_json = false, read_packet = false, read_json_packet = false }

  test("every read is busy, and nothing is buffered", function()
    local near, far = upgrades.tcp.pair()
    local asking = trying(near, "start_tls", CLIENT)
    tcp.sleep(0)
    for name, argument in pairs(READS) do
      fails("busy", near["try_" .. name](near, argument or nil))
      tasks.fails("busy", trying(near, name, argument or nil))
    end
    assert.equal(0, near:buffered())
    assert.is_nil(near:cipher())
    assert.is_nil(near:protocol())
    assert.is_nil(near:peer_cert())
    assert.is_nil(near:resumed())
    far:start_tls(SERVER)
    succeeds(asking)
    upgrades.is_usable(near, far)
  end)

  test("writes queue behind it, in their order, and nothing of them leaves in the clear", function()
    local near, far, near_end, far_end = upgrades.through_relay()
    local wire = {}
    local function note(bytes)
      wire[#wire + 1] = bytes
      return bytes
    end
    local asking = trying(near, "start_tls", CLIENT)
    tcp.sleep(0)
    local writes = {
      trying(near, "write", "secret 1\n"), trying(near, "write_line", "secret 2"),
      trying(near, "write", ("secret 3\n"):rep(100000)), trying(near, "send", "secret 4\n"),
      trying(near, "write_json", { "secret 5" }), trying(near, "write_packet", "secret 6"),
      trying(near, "send_some", "secret 7\n"), trying(near, "write_str", "secret 8\n"),
    }
    tcp.sleep(0.01)
    for _, task in ipairs(writes) do
      assert.equal("waiting", task:status())
    end
    upgrades.carry(near_end, far_end, note)
    upgrades.carry(far_end, near_end, note)
    far:start_tls(SERVER)
    succeeds(asking)
    assert.same({ "secret 1", "secret 2" }, { far:read_line(), far:read_line() })
    assert.is_true(far:read(900000) == ("secret 3\n"):rep(100000))
    assert.equal("secret 4", far:read_line())
    assert.same({ "secret 5" }, far:read_json())
    assert.equal("secret 6", far:read_packet())
    assert.same({ "secret 7", "secret 8" }, { far:read_line(), far:read_line() })
    for _, task in ipairs(writes) do
      assert.is_nil(task:join(PATIENCE).err)
    end
    assert.is_nil(table.concat(wire):find("secret", 1, true))
  end)

  test("the server's writes queue, too", function()
    local near, far = upgrades.tcp.pair()
    local serving = trying(far, "start_tls", SERVER)
    local writes = { trying(far, "write", "220 one\r\n"), trying(far, "write", LARGE) }
    tcp.sleep(0.01)
    near:start_tls(CLIENT)
    succeeds(serving)
    assert.equal("220 one", near:read_line())
    assert.is_true(LARGE == near:read(#LARGE))
    succeeds(writes[1])
    succeeds(writes[2])
  end)

  test("a write that is cancelled or has no time never leaves, and the others do", function()
    local near, far = upgrades.tcp.pair()
    local asking = trying(near, "start_tls", CLIENT)
    tcp.sleep(0)
    local first = trying(near, "write_line", "first")
    local cancelled = spawn(near.write_line, near, "cancelled")
    tcp.sleep(0)
    near:set_write_timeout(0.01)
    assert.equal(0, tasks.fails("timeout", trying(near, "write_line", "late")).written)
    near:set_write_timeout(nil)
    local last = trying(near, "write_line", "last")
    cancelled:cancel()
    tcp.sleep(0.01)
    assert.equal("waiting", first:status())
    far:start_tls(SERVER)
    succeeds(asking)
    assert.same({ "first", "last" }, { far:read_line(), far:read_line() })
    succeeds(first)
    succeeds(last)
  end)

  test("its end is waited for by shutdown", function()
    local near, far = upgrades.tcp.pair()
    local asking = trying(near, "start_tls", CLIENT)
    tcp.sleep(0)
    local writing, ending = trying(near, "write", "all"), trying(near, "shutdown", "send")
    tcp.sleep(0.01)
    assert.equal("waiting", ending:status())
    far:start_tls(SERVER)
    succeeds(asking)
    succeeds(writing)
    succeeds(ending)
    assert.equal("all", far:read_str())
    far:write("back\n")
    assert.equal("back", near:read_line())
  end)

  test("handshake waits for it, too", function()
    local near, far = upgrades.tcp.pair()
    local asking = trying(near, "start_tls", CLIENT)
    tcp.sleep(0)
    local shaking = trying(near, "handshake")
    local writing = trying(near, "write_line", "hello")
    tcp.sleep(0.01)
    far:start_tls(SERVER)
    succeeds(asking)
    succeeds(shaking)
    succeeds(writing)
    assert.equal("hello", far:read_line())
  end)

  test("whatever waits is told of its failure, and nothing has left", function()
    local FAILURES = {
      tls = function(_, far) far:write("HTTP/1.1 400 Bad Request\r\n\r\n") end,
      closed = function(_, far) far:shutdown("send") end,
      cancelled = function(asking) asking:cancel() end,
    }
    for kind, fail in pairs(FAILURES) do
      local near, far = upgrades.tcp.pair()
      local asking = spawn(function()
        near:start_tls(CLIENT)
      end)
      tcp.on_error = function() end
      tcp.sleep(0)
      local writes = { trying(near, "write", "secret\n"), trying(near, "write", LARGE), trying(near, "write_json", {}) }
      local ending = trying(near, "shutdown", "send")
      tcp.sleep(0.005)
      fail(asking, far)
      fails(kind, asking:try_join(PATIENCE))
      upgrades.is_over(near)
      for _, task in ipairs(writes) do
        assert.equal(0, tasks.fails("closed", task).written)
      end
      tasks.fails("closed", ending)
      assert.is_nil((far:read_str({ timeout = 5 })):find("secret", 1, true))
      tcp.on_error = nil
      far:close()
    end
  end)

  test("others are not delayed, however many say nothing", function()
    local waiting = {}
    for i = 1, 100 do
      local near, far = upgrades.tcp.pair()
      waiting[i] = trying(i % 2 == 0 and near or far, "start_tls", i % 2 == 0 and CLIENT or SERVER)
    end
    handshakes.between(0, 1, handshakes.timed(function()
      upgrade(upgrades.tcp.pair())
    end))
    for _, task in ipairs(waiting) do
      assert.equal("waiting", task:status())
      task:cancel()
    end
    tcp.run()
  end)

  test("a task that cannot wait where it is leaves nobody behind", function()
    local near, far = upgrades.tcp.pair()
    local task = spawn(function()
      local inner = coroutine.create(function() near:start_tls(CLIENT) end)
      return coroutine.resume(inner)
    end)
    local ok, advice = task:join(PATIENCE)
    assert.is_false(ok)
    assert.matches("cannot wait in a coroutine", advice)
    -- Whatever has become of it, nothing is in the clear.
    near:set_write_timeout(0)
    near:try_write("secret\n")
    near:close()
    assert.is_nil((far:read_str({ timeout = 5 })):find("secret", 1, true))
  end)
end)

describe("an upgrade that is gone on with", function()
  after_each(clean)

  test("by a task forgets no write that has begun to wait", function()
    local near, far = upgrades.tcp.pair()
    local options = with(CLIENT, { handshake_timeout = math.huge })
    near:set_read_timeout(0)
    fails("timeout", near:try_start_tls(options))
    local writing = spawn(near.write_line, near, "hello")
    tcp.sleep(0.005)
    near:set_read_timeout(nil)
    local asking = trying(near, "start_tls", options)
    tcp.sleep(0.005)
    far:start_tls(SERVER)
    succeeds(asking)
    assert.equal("hello", far:read_line({ timeout = 2 }))
    writing:join(PATIENCE)
  end)

  for name, go_on in pairs {
    handshake = function(conn) return conn:try_handshake() end,
    read_line = function(conn) return conn:try_read_line() end,
    write = function(conn) return conn:try_write("x") end,
  } do
    test("by " .. name .. " gets through", function()
      local near, far = upgrades.tcp.pair()
      near:set_timeout(0)
      fails("timeout", near:try_start_tls(CLIENT))
      near:set_timeout(nil)
      local serving = trying(far, "start_tls", SERVER)
      local answering = spawn(function()
        local conn = succeeds(serving)
        conn:write("hello\n")
      end)
      assert(go_on(near))
      answering:join(PATIENCE)
      assert.equal("TLSv1.3", near:protocol())
    end)
  end
end)

describe("of upgrades", function()
  after_each(clean)

  --- How much there is of what could be left, and KiB of memory.
  local function left()
    collectgarbage()
    collectgarbage()
    local all = counts()
    local memory = all.memory
    all.memory, all.descriptors = nil, peers.descriptors()
    return all, memory
  end

  -- How each of 300 ends.
  local ENDS = {
    ["that succeed"] = function(near, far)
      upgrade(near, far)
    end,
    ["that fail"] = function(near, far)
      local serving = trying(far, "start_tls", SERVER)
      fails("certificate", near:try_start_tls({ ca_bundle = transports.certificate("stranger-ca") }))
      tasks.fails("tls", serving)
    end,
    ["that are cancelled, with a write behind them,"] = function(near)
      local asking = spawn(near.try_start_tls, near, CLIENT)
      local writing = trying(near, "write", "x")
      tcp.sleep(0)
      asking:cancel()
      tasks.fails("closed", writing)
    end,
    ["that have no time"] = function(near, far)
      near:set_timeout(0)
      far:set_timeout(0)
      fails("timeout", near:try_start_tls(CLIENT))
      fails("timeout", far:try_start_tls(with(SERVER, { handshake_timeout = math.huge })))
    end,
  }

  local function repeatedly(run, times)
    for _ = 1, times do
      local near, far = upgrades.tcp.pair()
      run(near, far)
      transports.close_all(near, far)
      clean()
    end
  end

  for name, run in pairs(ENDS) do
    it(name .. " nothing is left after 300", function()
      repeatedly(run, 20)
      local before, memory = left()
      -- LuaJIT keeps what it compiles, now and then: what is left of each would be left every time.
      local least = math.huge
      for _ = 1, 3 do
        repeatedly(run, 100)
        local after, memory_after = left()
        assert.same(before, after)
        least, memory = math.min(least, memory_after - memory), memory_after
      end
      assert.is_true(least < 8, ("%.0f KiB more"):format(least))
    end)
  end
end)
