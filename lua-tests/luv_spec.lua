local tcp = require("tcp.core")
local support = require("support")
local transports = require("support.transports")
local waits = require("support.waits")

local fails = support.fails
local unpack = table.unpack or unpack

local has_luv, uv = require("support.luv")()

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

describe("luv", function()
  if not has_luv then
    it("polls the descriptors", function()
      pending("luv cannot be loaded: " .. tostring(uv))
    end)
    return
  end

  local handles, steps, problem

  before_each(function()
    handles, steps, problem = {}, 0, nil
  end)

  local function kept(handle)
    handles[#handles + 1] = handle
    return handle
  end

  --- luv's own way with errors of callbacks is to print them.
  local function guarded(fn)
    return function()
      local ok, err = pcall(fn)
      if not ok then
        problem = problem or err
        uv.stop()
      end
    end
  end

  local function on(fd, events, fn)
    local poll = kept(uv.new_poll(fd))
    poll:start(events, guarded(fn))
    return poll
  end

  local function after(seconds, fn)
    -- Timers count from when the loop last looked at the clock.
    uv.update_time()
    kept(uv.new_timer()):start(seconds * 1000, 0, guarded(fn))
  end

  --- Only tcp.pollfd() says when to step.
  local function drive()
    on(tcp.pollfd(), "r", function()
      steps = steps + 1
      tcp.step(0)
    end)
  end

  --- Runs luv's loop until it is stopped, at most for 5 s, and gives the processor's time.
  local function run()
    after(5, function()
      error("it never ends")
    end)
    local cpu = os.clock()
    uv.run()
    cpu = os.clock() - cpu
    for _, handle in ipairs(handles) do
      handle:close()
    end
    uv.run()
    assert.is_nil(problem)
    return cpu
  end

  for _, over in ipairs(transports.all) do
    it("polls a connection" .. over.suffix, function()
      local client, conn = watched_pair(over)
      local got, calls = {}, 0
      on(conn:pollfd(), "r", function()
        calls = calls + 1
        local line, err = conn:try_read_line()
        while line do
          got[#got + 1] = line
          line, err = conn:try_read_line()
        end
        if err.kind == "closed" then
          uv.stop()
        else
          fails("timeout", nil, err)
          assert.equal("r", conn:events())
        end
      end)
      after(0.05, function() client:write("one\ntwo\nthr") end)
      after(0.10, function() client:write("ee\n") end)
      after(0.15, function() client:close() end)
      assert.is_true(run() < IDLE)
      assert.same({ "one", "two", "three" }, got)
      assert.is_true(calls <= 6, calls .. " calls")
      close_all(conn)
    end)
  end

  it("polls a handshake, and then much both ways, for what the connection says", function()
    local listener = transports.tls.tcp.listen("127.0.0.1", 0)
    local port = listener:local_port()
    local data, sent, answer = ("x"):rep(1024 * 1024), 0, nil
    local task = tcp.spawn(function()
      local client = transports.tls.tcp.connect("127.0.0.1", port)
      client:write(data, "\n")
      answer = client:read_str()
      client:close()
      uv.stop()
    end)
    tcp.step(0)
    local conn = listener:accept(5)
    conn:set_timeout(0)
    conn:set_option("send_buffer", 16384)
    drive()
    local poll, got = kept(uv.new_poll(conn:pollfd())), nil
    local on_ready
    local function proceed()
      local value, err
      if not got then
        got, err = conn:try_read_line()
        value = got
      elseif sent < #data then
        value, err = conn:try_send_some(data, sent + 1)
        sent = sent + (value or 0)
      else
        value, err = conn:try_shutdown("send")
        if value then
          poll:stop()
          return false
        end
      end
      assert(value or err.kind == "timeout", err)
      return value
    end
    on_ready = guarded(function()
      local value = proceed()
      while value do
        value = proceed()
      end
      if value == nil then
        poll:start(conn:events(), on_ready)
      end
    end)
    on_ready()
    run()
    assert.equal("done", task:status())
    assert.is_true(data == got and data == answer)
    close_all(conn, listener)
  end)

  it("polls a listener", function()
    local listener = tcp.listen("127.0.0.1", 0)
    local clients, accepted = {}, 0
    on(listener:pollfd(), "r", function()
      local conn, err = listener:try_accept(0)
      while conn do
        accepted = accepted + 1
        conn:close()
        conn, err = listener:try_accept(0)
      end
      fails("timeout", nil, err)
      if accepted == 30 then
        uv.stop()
      end
    end)
    for turn = 1, 3 do
      after(turn * 0.03, function()
        for _ = 1, 10 do
          clients[#clients + 1] = tcp.connect("127.0.0.1", listener:local_port())
        end
      end)
    end
    assert.is_true(run() < IDLE)
    close_all(unpack(clients))
    listener:close()
  end)

  for _, over in ipairs(transports.all) do
    it("drives tasks that sleep, connect, accept, read and come later" .. over.suffix, function()
      local log = {}
      local listener = over.tcp.listen("127.0.0.1", 0)
      drive()
      tcp.spawn(function()
        local conn = listener:accept()
        local line = conn:read_line()
        log[#log + 1] = line
        conn:write_line("bye")
        conn:close()
      end)
      after(0.05, function()
        tcp.spawn(function()
          tcp.sleep(0.05)
          local conn = over.tcp.connect("localhost", listener:local_port())
          tcp.sleep(0.05)
          conn:write_line("hello")
          local line = conn:read_line()
          log[#log + 1] = line
          conn:close()
          uv.stop()
        end)
      end)
      local cpu = run()
      assert.same({ "hello", "bye" }, log)
      assert.is_true(steps < 40, steps .. " steps")
      assert.is_true(cpu < IDLE, "used " .. cpu)
      listener:close()
      assert.is_false(tcp.step(0))
    end)
  end

  -- What code outside tasks does to a task, and what it must come to.
  local queue = tcp.queue()
  local changes = {
    { "a push", function() return queue:pop() end, function() queue:push("pushed") end, "pushed" },
    { "a cancellation", tcp.sleep, function(task) task:cancel() end, "cancelled" },
    { "a wait of its own", function() tcp.sleep(0.01) tcp.sleep(0.05) return "slept" end,
      function() tcp.sleep(0.03) end, "slept" },
    { "a wait that fails", function() tcp.sleep(0.01) tcp.sleep(0.05) return "slept" end,
      function(task) fails("timeout", task:try_join(0.02)) end, "slept" },
    { "what does not wait", function() tcp.sleep(0) tcp.sleep(0) tcp.sleep(0) return "passed" end,
      function() tcp.sleep(0) end, "passed" },
  }
  for _, change in ipairs(changes) do
    it("goes on after code outside tasks did this: " .. change[1], function()
      drive()
      local ended
      local task = tcp.spawn(change[2], 100)
      tcp.spawn(function()
        local value, err = task:try_join()
        ended = value or err.kind
        uv.stop()
      end)
      after(0.02, function()
        change[3](task)
      end)
      run()
      assert.equal(change[4], ended)
      assert.is_false(tcp.step(0))
    end)
  end

  for _, over in ipairs(transports.all) do
    it("sees to what is left of a closed connection" .. over.suffix, function()
      local client, conn = pair(over)
      drive()
      client:write("unread")
      conn:peek(1, { timeout = 5 })
      conn:write("answer")
      conn:close()
      client:set_timeout(5)
      assert.equal("answer", client:read_str())
      client:close()
      after(0.1, uv.stop)
      run()
      assert.is_true(steps < 10, steps .. " steps")
    end)
  end
end)
