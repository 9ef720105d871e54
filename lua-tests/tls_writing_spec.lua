-- Writing over TLS where it differs: what is encrypted and has not left, ends of the stream, alerts, polling.

local peers = require("support.peers")
local servers = require("support.servers")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local over = transports.tls
local tcp, connect_to, pair = over.tcp, over.connect_to, over.pair
local fails = support.fails
local trying, succeeds, task_fails = tasks.trying, tasks.succeeds, tasks.fails

local PATIENCE = 20
-- More than the system's buffers on both sides hold.
local LENGTH = 8 * 1024 * 1024

--- `count` bytes of which no 8 are the same as 8 others.
local function tagged(count)
  local tags = {}
  for i = 1, math.ceil(count / 8) do
    tags[i] = ("%07x."):format(i)
  end
  return table.concat(tags):sub(1, count)
end

local BIG = tagged(LENGTH)

--- Pseudo-random integers 1 to `limit`, the same on every Lua.
local function generator(seed)
  local state = seed
  return function(limit)
    state = state * 16807 % 2147483647
    return state % limit + 1
  end
end

--- A task that reads to the end of the stream.
local function reading(conn)
  return trying(conn, "read_str", { timeout = PATIENCE })
end

--- Asserts that a stream was cut off somewhere in `bytes`.
local function ends_within(bytes, reader, conn)
  task_fails("truncated", reader)
  local got = conn:read(conn:buffered())
  assert.is_true(#got <= #bytes and got == bytes:sub(1, #got))
end

--- Writes until the system takes no more: how much of `text` is written, the last of it encrypted only.
local function fill(conn, text, method)
  -- Less than is encrypted at once.
  conn:set_option("send_buffer", 4096)
  conn:set_write_timeout(0)
  local written = 0
  while true do
    local count, err = conn["try_" .. method](conn, text:sub(written + 1, written + 20000))
    written = written + (count or err.written)
    if err then
      assert.equal("timeout", err.kind)
      conn:set_write_timeout(PATIENCE)
      return written
    end
  end
end

describe("writing over TLS", function()
  after_each(function()
    assert.is_false(tcp.step(0), "a task is left")
  end)

  local PLACES = { ["in a task"] = tcp.run, ["outside tasks"] = function(fn, ...) return fn(...) end }

  for place, run in pairs(PLACES) do
    it("goes on at written + 1 however it is cut, " .. place, function()
      for seed = 1, 4 do
        local random = generator(seed * 4711)
        local near, far = pair()
        near:set_option("send_buffer", 4096 * random(16))
        local reader = tcp.spawn(function()
          local got, chunk = {}
          repeat
            chunk = far:recv(random(100000))
            got[#got + 1] = chunk
            if random(20) == 1 then
              tcp.sleep(0.004)
            end
          until not chunk
          return table.concat(got)
        end)
        local cuts = 0
        local function write()
          local at = 1
          while at <= #BIG / 2 do
            local piece = BIG:sub(at, math.min(at + random(4) ^ 9 + random(100), #BIG / 2))
            near:set_write_timeout(({ 0, 0.0005, 0.002 })[random(3)])
            local way = random(5)
            local ok, err
            if way == 1 then
              ok, err = near:try_write(piece)
            elseif way == 2 then
              ok, err = near:try_write({ piece:sub(1, 10), piece:sub(11) }, "")
            elseif way == 3 then
              ok, err = near:try_send(piece)
            elseif way == 4 then
              ok, err = near:try_write_str(piece)
            else
              ok, err = near:try_send_some("skipped" .. piece, 8)
            end
            if not ok then
              assert.equal("timeout", err.kind)
              cuts = cuts + (err.written > 0 and 1 or 0)
              assert.is_true(err.written <= #piece)
              at = at + err.written
            else
              at = at + (way == 5 and ok or #piece)
            end
            if way == 5 and not ok then
              assert.equal(0, err.written)
            end
          end
          near:set_write_timeout(PATIENCE)
          near:shutdown("send")
        end
        run(write)
        local got = reader:join(PATIENCE)
        assert.equal(#BIG / 2, #got)
        assert.is_true(got == BIG:sub(1, #BIG / 2))
        assert.is_true(cuts > 0)
        near:close()
        far:close()
      end
    end)

    for _, method in ipairs { "send", "send_some" } do
      for _, is_watched in ipairs { false, true } do
        local name = ("what %s has encrypted leaves while the answer is waited for, %s%s"):format(method, place,
          is_watched and ", watched" or "")
        it(name, function()
          local near, far = pair()
          if is_watched then
            tcp.run(function()
              fails("timeout", near:try_read(1, { timeout = 0.001 }))
            end)
          end
          local written = fill(near, BIG, method)
          local reader = tcp.spawn(function()
            local got, err = far:try_read(written, { timeout = 3 })
            if not err then
              far:write("answer")
            end
            return { value = got, err = err }
          end)
          local answer, err
          run(function()
            answer, err = near:try_read(6, { timeout = 6 })
          end)
          local got = succeeds(reader)
          near:close()
          far:close()
          assert.is_true(got == BIG:sub(1, written))
          assert.equal("answer", answer, tostring(err))
        end)
      end
    end

    it("what send_some has taken arrives although the connection is closed then, " .. place, function()
      local near, far = pair()
      local written = fill(near, BIG, "send_some")
      run(near.close, near)
      local got = succeeds(reading(far))
      assert.is_true(got == BIG:sub(1, written))
      far:close()
    end)
  end

  it("keeps the writes of many tasks apart", function()
    local random = generator(99)
    local near, far = pair({ max_packet = 2 ^ 20 }, { max_packet = 2 ^ 20 })
    near:set_option("send_buffer", 16384)
    local writers = {}
    for i = 1, 8 do
      writers[i] = tcp.spawn(function()
        for n = 1, 25 do
          near:write_packet(("%d:%d:"):format(i, n) .. string.char(64 + i):rep(random(40000)))
          if random(4) == 1 then
            tcp.sleep(0)
          end
        end
      end)
    end
    local seen = {}
    tcp.run(function()
      for _ = 1, 8 * 25 do
        local i, n, rest = far:read_packet({ timeout = PATIENCE }):match("^(%d):(%d+):(.+)$")
        i = tonumber(i)
        seen[i] = (seen[i] or 0) + 1
        assert(seen[i] == tonumber(n))
        assert(not rest:find("[^" .. string.char(64 + i) .. "]"))
      end
    end)
    for i = 1, 8 do
      writers[i]:join(PATIENCE)
    end
    near:close()
    assert.is_nil(far:recv())
    far:close()
  end)

  it("goes on with what is queued behind a write that timed out", function()
    local near, far = pair()
    near:set_write_timeout(0.05)
    local cut = trying(near, "write", BIG)
    tcp.sleep(0.01)
    near:set_write_timeout(nil)
    local queued = { trying(near, "write_line", "one"), trying(near, "write_packet", "two") }
    local empty = trying(near, "write", "")
    local written = task_fails("timeout", cut).written
    assert.is_true(written > 0 and written < #BIG)
    local reader = reading(far)
    assert.equal(near, succeeds(queued[1]))
    assert.is_true(succeeds(queued[2]))
    assert.equal(near, succeeds(empty))
    near:write(BIG:sub(written + 1))
    near:close()
    assert.is_true(succeeds(reader) == BIG:sub(1, written) .. "one\r\n\0\0\0\3two" .. BIG:sub(written + 1))
    far:close()
  end)

  it("that is cancelled ends the sending side, and the peer sees a stream cut off", function()
    for _, method in ipairs { "write", "write_line", "send" } do
      local near, far = pair()
      local err
      local task = tcp.spawn(function()
        local _
        _, err = near["try_" .. method](near, BIG)
      end)
      tcp.sleep(0.02)
      task:cancel()
      fails("cancelled", task:try_join(PATIENCE))
      assert.equal("cancelled", err.kind)
      assert.is_true(err.written > 0 and err.written < #BIG)
      assert.equal(0, fails("closed", near:try_write("later")).written)
      far:write("heard")
      assert.equal("heard", near:read(5, { timeout = PATIENCE }))
      local reader = reading(far)
      assert.is_true(near:try_shutdown("send"))
      ends_within(BIG:sub(1, err.written), reader, far)
      far:write("still heard")
      assert.equal("still heard", near:read(11, { timeout = PATIENCE }))
      near:close()
      far:close()
    end
  end)

  it("cancelled before its turn breaks nothing", function()
    local near, far = pair()
    local first, second = trying(near, "write", BIG), trying(near, "write_line", "never")
    tcp.sleep(0.01)
    second:cancel()
    fails("cancelled", second:try_join(PATIENCE))
    local reader = reading(far)
    succeeds(first)
    near:close()
    assert.is_true(succeeds(reader) == BIG)
    far:close()
  end)

  it("of a write that the peer never reads is ended by close, with no close_notify behind half of it", function()
    local near, far = pair()
    local writer = trying(near, "write", BIG)
    tcp.sleep(0.02)
    near:close()
    local err = task_fails("closed", writer)
    assert.is_true(err.written > 0 and err.written < #BIG)
    ends_within(BIG:sub(1, err.written), reading(far), far)
    far:close()
  end)

  it("is whole and ended in an orderly way when close follows at once", function()
    for _, version in ipairs { "--tls", "--tls12" } do
      local near, far = pair()
      local reader = reading(far)
      near:write(BIG)
      near:close()
      assert.is_true(succeeds(reader) == BIG)
      far:close()

      local peer = peers.start({ version, "server" }, "accept", "drain")
      local conn = tcp.connect(peer.host, peer.port)
      conn:write(BIG)
      conn:close()
      assert.is_true(peer:got() == BIG)
    end
  end)

  it("takes lists of 10,000 small strings, and lists of bytes", function()
    local list, bytes = {}, {}
    for i = 1, 10000 do
      list[i] = tostring(i)
      bytes[i] = i % 256
    end
    local near, far = pair()
    local reader = reading(far)
    near:write(list)
    near:write("a", list, bytes, { BIG, "b" }, list)
    near:close()
    local text = table.concat(list)
    local wire = text .. "a" .. text .. string.char((table.unpack or unpack)(bytes, 1, 5000))
      .. string.char((table.unpack or unpack)(bytes, 5001, 10000)) .. BIG .. "b" .. text
    assert.is_true(succeeds(reader) == wire)
    far:close()
  end)

  it("of nothing sends nothing, and waits for what is encrypted", function()
    local near, far = pair()
    assert.equal(near, near:write(""))
    assert.equal(near, near:write({}, "", {}))
    assert.equal(0, near:send(""))
    assert.equal(0, near:send_some(""))
    fails("timeout", far:try_recv({ timeout = 0.02 }))
    local written = fill(near, BIG, "send")
    near:set_write_timeout(0.01)
    assert.equal(0, fails("timeout", near:try_write("")).written)
    near:set_write_timeout(PATIENCE)
    local reader = trying(far, "read", written, { timeout = PATIENCE })
    near:write("")
    -- Everything has left: nobody has to care for it any more.
    assert.is_true(succeeds(reader) == BIG:sub(1, written))
    near:close()
    assert.is_nil(far:recv())
    far:close()
  end)

  it("shutdown of the sending side comes behind queued writes, and behind what is encrypted", function()
    local near, far = pair()
    local writes = { trying(near, "write", BIG), trying(near, "write_line", "last") }
    tcp.sleep(0.01)
    local shutdown = trying(near, "shutdown", "send")
    tcp.sleep(0)
    local late = trying(near, "write", "late")
    local reader = reading(far)
    succeeds(writes[1])
    succeeds(writes[2])
    assert.is_true(succeeds(shutdown))
    task_fails("closed", late)
    assert.is_true(succeeds(reader) == BIG .. "last\r\n")
    assert.is_nil(far:recv())
    far:write("answer")
    far:close()
    assert.equal("answer", near:read_str())
    near:close()
  end)

  it("shutdown that timed out can be called again", function()
    local near, far = pair()
    local written = fill(near, BIG, "send")
    near:set_write_timeout(0)
    fails("timeout", near:try_shutdown("send"))
    -- The system may have found room for more.
    near:try_shutdown("send")
    local reader = reading(far)
    near:set_write_timeout(PATIENCE)
    assert.is_true(near:try_shutdown("send"))
    assert.is_true(near:try_shutdown("send"))
    assert.is_true(succeeds(reader) == BIG:sub(1, written))
    near:close()
    far:close()
  end)

  it("is full duplex with large data in every direction", function()
    local near, far = pair()
    local begun = {
      trying(near, "write", BIG), trying(far, "write", { BIG, BIG }),
      trying(near, "read", 2 * #BIG), trying(far, "read", #BIG),
    }
    assert.is_true(succeeds(begun[4]) == BIG)
    assert.is_true(succeeds(begun[3]) == BIG .. BIG)
    succeeds(begun[1])
    succeeds(begun[2])
    near:close()
    far:close()
  end)

  it("to a peer that resets the connection fails with reset, and says how far it got", function()
    for _, method in ipairs { "write", "write_line", "send" } do
      local conn = connect_to("accept", { "send", "before" }, { "skip", 100000 }, "reset")
      assert.equal("before", conn:read(6))
      local err = fails("reset", conn["try_" .. method](conn, BIG))
      assert.equal(method, err.op)
      assert.is_true(err.written >= 100000 and err.written < #BIG)
      assert.equal(0, fails("reset", conn:try_write("x")).written)
      fails("reset", conn:try_read(1))
      conn:close()
    end
  end)

  it("to a peer that breaks off with an alert reports the alert", function()
    local server = servers.start("openssl", function(server)
      local pwd = assert(require("lfs").currentdir()) .. "/"
      return {
        "s_server", "-accept", server.host .. ":" .. server.port, "-quiet", "-tls1_3", "-Verify", "1",
        "-cert", pwd .. transports.certificate("server"), "-key", pwd .. transports.certificate("server", "key"),
      }
    end)
    local results = {}
    for i, run in ipairs { PLACES["in a task"], PLACES["outside tasks"] } do
      -- TLS 1.3 asks for the client's certificate when the client is done already.
      local conn = tcp.connect(server.host, server.port)
      run(function()
        local ok, err
        local deadline = tcp.now() + PATIENCE
        repeat
          ok, err = conn:try_write(BIG:sub(1, 100000))
          -- OpenSSL discards what comes until there is a pause.
          tcp.sleep(0.6)
        until not ok or tcp.now() > deadline
        results[i] = { err, select(2, conn:try_write("later")), select(2, conn:try_read(1)) }
      end)
      conn:close()
    end
    server:stop()
    for _, errors in ipairs(results) do
      for at = 1, 3 do
        local err = fails("tls", nil, errors[at])
        assert.equal("certificate_required", err.alert)
        assert.equal(({ "write", "write", "read" })[at], err.op)
      end
    end
  end)
end)
