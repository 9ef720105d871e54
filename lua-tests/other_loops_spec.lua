local tcp = require("tcp.core")
local support = require("support")
local transports = require("support.transports")
local waits = require("support.waits")

local fails = support.fails

local has_cqueues, cqueues = pcall(require, "cqueues")

-- What a loop may use of the processor while nothing happens.
local IDLE = 0.1

local function pair(over)
  local client, conn = over.pair()
  client:set_timeout(0)
  conn:set_timeout(0)
  return client, conn
end

--- A connection that a task has waited on before, so that tcp's own loop watches it, too.
local function watched_pair(over)
  local client, conn = pair(over)
  local task = tcp.spawn(function()
    return conn:read_line({ timeout = 5 })
  end)
  tcp.step(0)
  client:write_line("before")
  assert.equal("before", task:join(5))
  return client, conn
end

local function close_all(...)
  for _, it in ipairs { ... } do
    it:close()
  end
  waits.see_off()
end

--- Tries until it needs no wait: `wait(conn)` is the other loop's.
local function patiently(wait, conn, method, ...)
  local value, err = conn["try_" .. method](conn, ...)
  while value == nil and err do
    assert(err.kind == "timeout", err)
    wait(conn)
    value, err = conn["try_" .. method](conn, ...)
  end
  return value
end

--- Sends all of it in pieces.
local function send_all(wait, conn, data)
  local at = 1
  while at <= #data do
    at = at + patiently(wait, conn, "send_some", data, at)
  end
end

--- The number of bytes up to the end of the stream.
local function drain(wait, conn)
  local count = 0
  local data = patiently(wait, conn, "recv", 65536)
  while data do
    count = count + #data
    data = patiently(wait, conn, "recv", 65536)
  end
  return count
end

local MANY = 8 * 1024 * 1024

describe("cqueues", function()
  if not has_cqueues then
    it("polls a connection as it is", function()
      pending("cqueues cannot be loaded: " .. tostring(cqueues))
    end)
    return
  end

  local polls

  local function wait(conn)
    polls = polls + 1
    assert(cqueues.poll(conn))
  end

  --- Runs the functions side by side.
  local function run(...)
    local queue = cqueues.new()
    polls = 0
    for _, fn in ipairs { ... } do
      queue:wrap(fn)
    end
    local cpu = os.clock()
    assert(queue:loop(20))
    assert.is_true(queue:empty())
    return os.clock() - cpu
  end

  for _, over in ipairs(transports.all) do
    for name, make in pairs { fresh = pair, ["watched before"] = watched_pair } do
      it("polls a connection as it is, with no busy loop: " .. name .. over.suffix, function()
        local client, conn = make(over)
        local got = {}
        local cpu = run(function()
          for i = 1, 4 do
            cqueues.sleep(0.05)
            patiently(wait, client, "write_line", "line " .. i)
            assert(patiently(wait, client, "read", 2) == "ok")
          end
          client:shutdown("send")
        end, function()
          local line = patiently(wait, conn, "read_line")
          for i = 1, 4 do
            got[i] = line
            patiently(wait, conn, "write", "ok")
            line = i < 4 and patiently(wait, conn, "read_line")
          end
          assert(patiently(wait, conn, "recv") == nil)
        end)
        assert.same({ "line 1", "line 2", "line 3", "line 4" }, got)
        assert.is_true(polls <= 16, "polled " .. polls .. " times")
        assert.is_true(cpu < IDLE, "used " .. cpu)
        close_all(client, conn)
      end)

      it("waits for room to write and for bytes at once: " .. name .. over.suffix, function()
        local client, conn = make(over)
        local data, sent_back = ("x"):rep(MANY), 0
        local count
        run(function()
          send_all(wait, client, data)
          patiently(wait, client, "shutdown", "send")
          sent_back = drain(wait, client)
        end, function()
          cqueues.sleep(0.1)
          count = drain(wait, conn)
          send_all(wait, conn, data)
          patiently(wait, conn, "shutdown", "send")
        end)
        assert.same({ MANY, MANY }, { count, sent_back })
        close_all(client, conn)
      end)
    end

    it("wakes at the connection's deadline" .. over.suffix, function()
      local client, conn = pair(over)
      conn:set_deadline(0.2)
      local taken
      run(function()
        fails("timeout", conn:try_read(1))
        local began = cqueues.monotime()
        cqueues.poll(conn)
        taken = cqueues.monotime() - began
      end)
      assert.is_true(taken > 0.15 and taken < 1, "took " .. taken)
      assert.equal(0, conn:timeout())
      close_all(client, conn)
    end)

    it("is woken by the peer's end, and by its reset" .. over.suffix, function()
      local client, conn = pair(over)
      run(function()
        cqueues.sleep(0.05)
        client:close()
      end, function()
        assert(patiently(wait, conn, "read_str") == "")
      end)
      close_all(conn)
      conn = over.connect_to("accept", { "sleep", 50 }, "reset")
      conn:set_timeout(0)
      local err
      run(function()
        local _, first = conn:try_read(1)
        assert(first.kind == "timeout")
        repeat
          wait(conn)
          _, err = conn:try_read(1)
        until err.kind ~= "timeout"
      end)
      assert.equal("reset", err.kind)
      assert.is_true(polls <= 3, "polled " .. polls .. " times")
      close_all(conn)
    end)
  end

  it("brings tcp's tasks on through tcp.pollfd", function()
    local log = {}
    local task = tcp.spawn(function()
      for i = 1, 3 do
        tcp.sleep(0.03)
        log[i] = i
      end
    end)
    local steps = 0
    local cpu = run(function()
      local loop = { pollfd = tcp.pollfd(), events = "r" }
      while tcp.step(0) do
        steps = steps + 1
        cqueues.poll(loop)
      end
    end)
    assert.equal("done", task:status())
    assert.same({ 1, 2, 3 }, log)
    assert.is_true(steps <= 12, steps .. " steps")
    assert.is_true(cpu < IDLE, "used " .. cpu)
  end)

  it("hears by tcp.pollfd that the last task has ended in what was called outside", function()
    local client, conn = pair(transports.plain)
    local task = tcp.spawn(tcp.sleep, 0.04)
    local taken
    run(function()
      local began = cqueues.monotime()
      while tcp.step(0) do
        cqueues.poll({ pollfd = tcp.pollfd(), events = "r" }, 2)
      end
      taken = cqueues.monotime() - began
    end, function()
      cqueues.sleep(0.01)
      local due = tcp.now() + 0.05
      repeat until tcp.now() > due
      fails("timeout", conn:try_read(1))
    end)
    assert.equal("done", task:status())
    assert.is_true(taken < 1, "took " .. taken)
    close_all(client, conn)
  end)
end)

describe("tcp.step", function()
  for _, over in ipairs(transports.all) do
    it("brings tasks on from frame to frame, and tells whether some are left" .. over.suffix, function()
      assert.is_false(tcp.step())
      local client, conn = pair(over)
      local log = {}
      tcp.spawn(function()
        local line = conn:read_line({ timeout = 5 })
        log[#log + 1] = "line " .. line
      end)
      tcp.spawn(function()
        tcp.sleep(0.05)
        client:write_line("x")
        log[#log + 1] = "slept"
      end)
      local frames, longest = 0, 0
      local is_left
      repeat
        local began = tcp.now()
        is_left = tcp.step(0.01)
        longest = math.max(longest, tcp.now() - began)
        frames = frames + 1
      until not is_left or frames > 1000
      assert.same({ "slept", "line x" }, log)
      assert.is_true(frames >= 4 and frames < 100, frames .. " frames")
      assert.is_true(longest < 0.2, "a frame of " .. longest)
      close_all(client, conn)
    end)
  end

  it("does not wait without a time, and no longer than the next event with one", function()
    local task = tcp.spawn(tcp.sleep, 0.05)
    local began = tcp.now()
    assert.is_true(tcp.step())
    assert.is_true(tcp.step(0))
    assert.is_true(tcp.now() - began < 0.04)
    while tcp.step(math.huge) do
      assert.is_true(tcp.now() - began < 2)
    end
    assert.equal("done", task:status())
    assert.is_true(tcp.now() - began < 2)
  end)

  it("does not wait for nothing", function()
    local began = tcp.now()
    tcp.spawn(function() end)
    assert.is_false(tcp.step(1))
    assert.is_false(tcp.step(1))
    assert.is_false(tcp.step(math.huge))
    assert.is_true(tcp.now() - began < 0.5)
    local queue = tcp.queue()
    local task = tcp.spawn(queue.pop, queue)
    local ok, err = pcall(tcp.step, math.huge)
    assert.is_false(ok)
    assert.matches("'step' would wait for ever: 1 task waits", err)
    task:cancel()
    assert.is_false(tcp.step(0))
  end)

  it("is misuse in a task, and with what is no time", function()
    support.misuse("bad argument #1 to 'step' (seconds expected, 0 or more, got -1)", tcp.step, -1)
    tcp.run(function()
      support.misuse("bad call of 'step' (in a task, where the loop runs already; use spawn and join)", tcp.step)
    end)
  end)
end)
