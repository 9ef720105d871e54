-- start_tls under other loops: `set_timeout(0)`, try_start_tls, and then what events(), pollfd() and timeout() say.

local tcp = require("tcp.core")
local certificates = require("support.certificates")
local handshakes = require("support.handshakes")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")
local upgrades = require("support.upgrades")

local fails = support.fails
local clean, between, timed = handshakes.clean, handshakes.between, handshakes.timed
local spawn, trying, succeeds = tasks.spawn, tasks.trying, tasks.succeeds
local CLIENT, SERVER, with = upgrades.CLIENT, upgrades.SERVER, upgrades.with

local has_luv, uv = require("support.luv")()
local has_cqueues, cqueues = pcall(require, "cqueues")

-- What a loop may use of the processor while nothing happens.
local IDLE = 0.1

-- Descriptors are counted before `after_each`.
local function test(name, body)
  it(name, function()
    body()
    clean()
  end)
end

--- Both ends of a plain connection that do not wait.
local function pair(place)
  local near, far = (place or upgrades.tcp).pair()
  near:set_timeout(0)
  far:set_timeout(0)
  return near, far
end

describe("an upgrade that has no time", function()
  after_each(clean)

  for side, options in pairs { client = CLIENT, server = SERVER } do
    test("stays open, and says what to wait for: a " .. side .. "'s", function()
      local near = pair()
      for _ = 1, 3 do
        local err = fails("timeout", near:try_start_tls(options))
        assert.same({ "start_tls", "handshake" }, { err.op, err.stage })
        assert.is_false(near:is_closed())
        assert.is_true(near:is_tls())
        assert.equal("r", near:events())
        between(9, 10, near:timeout())
      end
      support.raises("timeout", near.start_tls, near, options)
      assert.is_false(near:is_closed())
      assert.is_nil(near:cipher())
    end)

    test("is over with its handshake_timeout, however often it is tried: a " .. side .. "'s", function()
      local near = pair()
      local late = with(options, { handshake_timeout = 0.1 })
      between(0.1, 1, timed(function()
        repeat
          local _, err = near:try_start_tls(late)
          fails("timeout", nil, err)
          between(-1, 0.1, near:timeout() or 0)
          tcp.sleep(0.01)
        until near:is_closed()
      end))
      upgrades.is_over(near)
      assert.is_nil(near:timeout())
      assert.is_nil(near:events())
    end)

    test("is over with the deadline: a " .. side .. "'s", function()
      local near = pair()
      near:set_deadline(0.05)
      fails("timeout", near:try_start_tls(options))
      assert.is_false(near:is_closed())
      tcp.sleep(0.06)
      upgrades.failed("timeout", near, near:try_start_tls(options))
      near = pair()
      near:set_deadline(0)
      upgrades.failed("timeout", near, near:try_start_tls(options))
    end)
  end

  test("is not given another by other options", function()
    local near = pair()
    fails("timeout", near:try_start_tls(with(CLIENT, { handshake_timeout = 0.05 })))
    fails("timeout", near:try_start_tls(with(CLIENT, { handshake_timeout = 100 })))
    between(-1, 0.05, near:timeout())
    tcp.sleep(0.06)
    upgrades.failed("timeout", near, near:try_start_tls(CLIENT))
  end)

  test("is closed by what was slipped in", function()
    for _, is_early in ipairs { true, false } do
      local near, far = pair()
      local function slip()
        far:write("250 slipped in\r\n")
        tcp.sleep(0.002)
      end
      if is_early then
        slip()
      else
        fails("timeout", near:try_start_tls(CLIENT))
        slip()
      end
      upgrades.failed("tls", near, near:try_start_tls(CLIENT))
    end
  end)

  test("is closed by a certificate that is not accepted", function()
    local near, far = pair()
    local stranger = { ca_bundle = transports.certificate("stranger-ca") }
    fails("timeout", near:try_start_tls(stranger))
    fails("timeout", far:try_start_tls(SERVER))
    upgrades.failed("certificate", near, near:try_start_tls(stranger))
    assert.equal("unknown_ca", upgrades.failed("tls", far, far:try_start_tls(SERVER)).alert)
  end)

  test("lets nothing be read or written that is not TLS's", function()
    local near, far = pair()
    fails("timeout", near:try_start_tls(CLIENT))
    assert.equal(0, fails("timeout", near:try_write("secret\n")).written)
    assert.equal(0, fails("timeout", near:try_write_line("secret")).written)
    assert.equal("handshake", fails("timeout", near:try_read_line()).stage)
    assert.equal("handshake", fails("timeout", near:try_handshake()).stage)
    assert.equal(0, near:buffered())
    near:close()
    far:set_timeout(5)
    assert.is_nil((far:read_str()):find("secret", 1, true))
  end)

  test("is closed if it was cancelled instead", function()
    local WAYS = {
      cancel = function(task) task:cancel() end,
      with_timeout = function() tcp.sleep(0.03) end,
    }
    for _, is_begun in ipairs { false, true } do
      for name, end_it in pairs(WAYS) do
        local near = pair()
        local err
        local function try()
          if is_begun then
            fails("timeout", near:try_start_tls(CLIENT))
          end
          -- Nothing comes until its task's time is over.
          tcp.queue():try_pop(5)
          local _
          _, err = near:try_start_tls(CLIENT)
        end
        local task = name == "cancel" and spawn(try) or spawn(tcp.try_with_timeout, 0.01, try)
        tcp.sleep(0)
        end_it(task)
        task:try_join(5)
        upgrades.failed("cancelled", near, nil, err)
      end
    end
  end)

  test("waits for nobody but a read timeout of 0", function()
    local near, far = upgrades.tcp.pair()
    near:set_write_timeout(0)
    near:set_read_timeout(0.001)
    upgrades.failed("timeout", near, near:try_start_tls(CLIENT))
    far:close()
    near, far = upgrades.tcp.pair()
    near:set_write_timeout(0)
    local asking = trying(near, "start_tls", CLIENT)
    tcp.sleep(0.01)
    far:start_tls(SERVER)
    succeeds(asking)
    near:set_write_timeout(nil)
    upgrades.is_usable(near, far)
  end)

  test("waits for room where it has much to say", function()
    local near, far = pair(upgrades.unix)
    far:set_option("send_buffer", 4608)
    fails("timeout", near:try_start_tls(upgrades.unix.client))
    local chain = certificates.contents(transports.certificate("chain"))
      .. certificates.contents(transports.certificate("intermediate")):rep(100)
    local options = { server = true, cert = chain, key = transports.certificate("chain", "key") }
    local seen = ""
    repeat
      local value, err = far:try_start_tls(options)
      if not value then
        fails("timeout", nil, err)
        seen = seen .. far:events()
        near:try_start_tls(upgrades.unix.client)
      end
    until value or #seen > 1000
    assert.matches("^w+r+$", seen)
    assert.equal("TLSv1.3", far:protocol())
  end)
end)

describe("cqueues", function()
  after_each(clean)

  if not has_cqueues then
    it("polls an upgrade", function()
      pending("cqueues cannot be loaded: " .. tostring(cqueues))
    end)
    return
  end

  local polls

  local function patiently(conn, method, ...)
    local value, err = conn["try_" .. method](conn, ...)
    while value == nil do
      assert(err.kind == "timeout", err)
      polls = polls + 1
      assert(cqueues.poll(conn))
      value, err = conn["try_" .. method](conn, ...)
    end
    return value
  end

  local function run(...)
    local queue = cqueues.new()
    polls = 0
    for _, fn in ipairs { ... } do
      queue:wrap(fn)
    end
    local cpu = os.clock()
    assert(queue:loop(10))
    assert.is_true(queue:empty(), "it never ends")
    return os.clock() - cpu
  end

  for _, place in ipairs(upgrades.places) do
    test("polls both sides of an upgrade " .. place.suffix, function()
      local near, far = pair(place)
      local cpu = run(function()
        patiently(near, "write", "STARTTLS\r\n")
        assert(patiently(near, "read_line") == "220 go")
        assert(rawequal(near, patiently(near, "start_tls", place.client)))
        patiently(near, "write", "hello\n")
        assert(patiently(near, "read_line") == "HELLO")
      end, function()
        assert(patiently(far, "read_line") == "STARTTLS")
        cqueues.sleep(0.05)
        patiently(far, "write", "220 go\r\n")
        cqueues.sleep(0.05)
        patiently(far, "start_tls", SERVER)
        patiently(far, "write", patiently(far, "read_line"):upper(), "\n")
      end)
      assert.is_true(polls <= 10, polls .. " polls")
      assert.is_true(cpu < IDLE, "used " .. cpu)
      cqueues.cancel(near:pollfd())
      cqueues.cancel(far:pollfd())
    end)
  end

  test("gives an upgrade up in time", function()
    local near = pair()
    local err
    between(0.2, 1, timed(function()
      run(function()
        local fd = near:pollfd()
        repeat
          local _, problem = near:try_start_tls(with(CLIENT, { handshake_timeout = 0.2 }))
          err = problem
          if not near:is_closed() then
            cqueues.poll(near)
            -- The next one may close it.
            cqueues.cancel(fd)
          end
        until near:is_closed()
      end)
    end))
    assert.equal("timeout", err.kind)
    upgrades.is_over(near)
  end)
end)

describe("luv", function()
  after_each(clean)

  if not has_luv then
    it("polls an upgrade", function()
      pending("luv cannot be loaded: " .. tostring(uv))
    end)
    return
  end

  test("polls an upgrade, and then what follows, for what the connection says", function()
    local near, far = upgrades.tcp.pair()
    near:set_timeout(0)
    local problem, got
    local handles, calls = {}, 0
    local function kept(handle)
      handles[#handles + 1] = handle
      return handle
    end
    local function guarded(fn)
      return function()
        local ok, err = pcall(fn)
        if not ok then
          problem = problem or err
          uv.stop()
        end
      end
    end
    local serving = tasks.spawn(function()
      tcp.sleep(0.05)
      far:start_tls(SERVER)
      tcp.sleep(0.05)
      far:write("hello\n")
    end)
    kept(uv.new_poll(tcp.pollfd())):start("r", guarded(function() tcp.step(0) end))
    -- luv's clock stands still between its runs.
    uv.update_time()
    kept(uv.new_timer()):start(5000, 0, guarded(function() error("it never ends") end))
    local poll = kept(uv.new_poll(near:pollfd()))
    local is_secure = false
    local on_ready
    on_ready = guarded(function()
      calls = calls + 1
      local err
      if not is_secure then
        is_secure, err = near:try_start_tls(CLIENT)
      end
      if is_secure then
        got, err = near:try_read_line()
      end
      if got then
        return uv.stop()
      end
      fails("timeout", nil, err)
      poll:start(near:events(), on_ready)
    end)
    on_ready()
    local cpu = os.clock()
    uv.run()
    cpu = os.clock() - cpu
    for _, handle in ipairs(handles) do
      handle:close()
    end
    uv.run()
    assert.is_nil(problem)
    assert.equal("hello", got)
    assert.is_true(calls <= 8, calls .. " calls")
    assert.is_true(cpu < IDLE, "used " .. cpu)
    serving:join(5)
  end)
end)
