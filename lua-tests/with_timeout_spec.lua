local tcp = require("tcp.core")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local fails, spawn, misuse = support.fails, tasks.spawn, support.misuse
local with_timeout, try_with_timeout = tcp.with_timeout, tcp.try_with_timeout

--- Sleeps, and is told that this was cut short.
local function overslept()
  local ok, err = tcp.pcall(tcp.sleep, 60)
  assert(not ok and tcp.is_error(err, "cancelled"), tostring(err))
  return err
end

-- Where a limit has to hold: each runs a function there.
local PLACES = {
  ["outside tasks"] = function(fn) return fn() end,
  ["outside tasks beside one"] = function(fn)
    local other = spawn(tcp.sleep, 60)
    fn()
    other:cancel()
  end,
  ["in a task"] = tcp.run,
  ["in a coroutine outside tasks"] = function(fn)
    local co = coroutine.create(fn)
    local ok, err = coroutine.resume(co)
    assert(ok, err)
    assert(coroutine.status(co) == "dead")
  end,
  ["in a wrapped coroutine"] = function(fn) tcp.run(function()
    local wrapped = tcp.wrap(fn)
    wrapped()
  end) end,
  ["in a tcp.pcall"] = function(fn)
    tcp.run(function()
      local ok, err = tcp.pcall(fn)
      assert(ok, err)
    end)
  end,
}

-- What a limit does.
local CLAIMS = {
  ["passes arguments and results"] = function()
    local values = { n = select("#", with_timeout(1, function(...) tcp.sleep(0) return ... end, nil, 2, nil)),
      with_timeout(1, function(...) tcp.sleep(0) return ... end, nil, 2, nil) }
    assert.same({ n = 3, [2] = 2 }, values)
    assert.equal(0, select("#", with_timeout(1, function() end)))
    assert.same({ true }, { try_with_timeout(1, function() tcp.sleep(0) end) })
    assert.same({ 1, 2 }, { try_with_timeout(1, function() return 1, 2 end) })
    assert.equal("a", with_timeout(1, string.char, 97))
  end,
  ["raises timeout, with the position of the call"] = function()
    local at = debug.getinfo(1, "l").currentline + 1
    local ok, err = tcp.pcall(function() with_timeout(0.005, tcp.sleep, 60) return nil end)
    assert.is_false(ok)
    assert.equal("timeout", err.kind)
    assert.equal("with_timeout", err.op)
    assert.matches("with_timeout_spec%.lua:" .. at .. "$", err.where)
    err = fails("timeout", try_with_timeout(0.005, tcp.sleep, 60))
    assert.is_nil(err.where)
    assert.equal("with_timeout", err.op)
  end,
  ["cancels every later wait, and nothing else"] = function()
    local queue, reached = tcp.queue(), 0
    queue:push("there")
    local sleeper = spawn(function() return "done" end)
    sleeper:join()
    fails("timeout", try_with_timeout(0.005, function()
      assert.equal("sleep", overslept().op)
      overslept()
      fails("cancelled", tcp.queue():try_pop(0))
      fails("cancelled", spawn(tcp.sleep, 0.001):try_join())
      assert.equal("there", queue:pop())
      assert.equal("done", sleeper:join())
      reached = reached + 1
      return "fine"
    end))
    assert.equal(1, reached)
    tcp.sleep(0.003)
  end,
  ["is over after it"] = function()
    fails("timeout", try_with_timeout(0.002, overslept))
    with_timeout(0.002, function() end)
    tcp.sleep(0.005)
    tcp.sleep(0)
    fails("timeout", tcp.queue():try_pop(0.001))
  end,
  ["reports what the function fails with in time"] = function()
    for _, value in ipairs { "text", {}, 5, select(2, tcp.json.try_decode("[")) } do
      local ok, err = tcp.pcall(with_timeout, 1, function() tcp.sleep(0) error(value, 0) end)
      assert.is_false(ok)
      assert.is_true(rawequal(value, err))
    end
    local ok, err = tcp.pcall(with_timeout, 1, function() tcp.queue():pop(0.001) end)
    assert.is_false(ok)
    assert.equal("pop", err.op, "a limit of its own is not the scope's")
    assert.equal("timeout", err.kind)
  end,
  ["is timeout also when the function then fails otherwise"] = function()
    local err = fails("timeout", try_with_timeout(0.002, function() overslept() error("the reason", 0) end))
    assert.matches("the reason", err.message)
    fails("timeout", try_with_timeout(0.002, function()
      overslept()
      error(setmetatable({}, { __tostring = function() error("evil") end }))
    end))
  end,
  ["nests: the shortest wins, and the right one reports"] = function()
    -- The inner one is shorter.
    assert.equal("outer goes on", with_timeout(60, function()
      local err = fails("timeout", try_with_timeout(0.002, overslept))
      assert.matches("0%.002", err.message)
      tcp.sleep(0.002)
      return "outer goes on"
    end))
    -- The outer one is shorter: the inner one passes `cancelled` on.
    local seen
    local err = fails("timeout", try_with_timeout(0.002, function()
      local _
      _, seen = try_with_timeout(60, tcp.sleep, 60)
      overslept()
    end))
    assert.equal("cancelled", seen.kind)
    assert.matches("0%.002", err.message)
    -- The inner one swallows the outer one's, and has results.
    local inner
    fails("timeout", try_with_timeout(0.002, function()
      inner = with_timeout(60, function() overslept() return "inner" end)
    end))
    assert.equal("inner", inner)
    -- Three deep, the middle one is shortest.
    assert.equal("ok", with_timeout(60, function()
      fails("timeout", try_with_timeout(0.002, function()
        fails("cancelled", try_with_timeout(30, tcp.sleep, 60))
        fails("cancelled", tcp.queue():try_pop())
      end))
      tcp.sleep(0)
      return "ok"
    end))
  end,
  ["of nothing lets no wait happen, of math.huge every one"] = function()
    assert.equal(1, with_timeout(0, function() return 1 end))
    local queue = tcp.queue()
    assert.equal(2, with_timeout(0, function() queue:push(2) return queue:pop() end))
    fails("timeout", try_with_timeout(0, tcp.sleep, 0.001))
    assert.equal(3, with_timeout(math.huge, function() tcp.sleep(0.002) return 3 end))
    assert.equal(4, with_timeout("5", function() tcp.sleep(0) return 4 end))
    fails("timeout", try_with_timeout(0.002, function()
      with_timeout(math.huge, overslept)
      with_timeout(1e300, overslept)
    end))
  end,
  ["that the function outlives without waiting does not matter"] = function()
    assert.equal("late", with_timeout(0.001, function()
      local began = tcp.now()
      while tcp.now() - began < 0.003 do
        began = began + 0
      end
      return "late"
    end))
  end,
  ["cuts what it finds shorter, not what is longer"] = function()
    fails("timeout", try_with_timeout(0.002, function() tcp.queue():pop(60) end))
    with_timeout(60, function() fails("timeout", tcp.queue():try_pop(0.002)) end)
  end,
}

for _, over in ipairs(transports.all) do
  CLAIMS["loses no bytes" .. over.suffix] = function()
    local conn = over.connect_to("accept", { "send", "half" }, { "read", 1 }, { "send", " line\n" }, "stall")
    assert.equal("h", conn:peek(1))
    fails("timeout", try_with_timeout(0.005, function() return (conn:read_line()) end))
    assert.equal(4, conn:buffered())
    conn:write("x")
    assert.equal("half line", with_timeout(60, function() return (conn:read_line()) end))
    conn:close()
  end
end

for place, run in pairs(PLACES) do
  describe("with_timeout " .. place, function()
    after_each(tasks.finish_all)
    for claim, fn in pairs(CLAIMS) do
      it(claim, function()
        run(fn)
        for _ = 1, 100 do
          if not tcp.step(0.05) then
            break
          end
        end
      end)
    end
  end)
end

describe("with_timeout", function()
  after_each(tasks.finish_all)

  it("takes a time and something to call", function()
    for _, name in ipairs { "with_timeout", "try_with_timeout" } do
      misuse("bad argument #1 to '" .. name .. "' (seconds expected, 0 or more, got -1)", tcp[name], -1, print)
      misuse("bad argument #1 to '" .. name .. "' (number expected, got nil)", tcp[name], nil, print)
      misuse("bad argument #2 to '" .. name .. "' (function expected, got nil)", tcp[name], 1)
      misuse("bad argument #2 to '" .. name .. "' (function expected, got string)", tcp[name], 1, "x")
    end
    assert.equal(7, with_timeout(1, setmetatable({}, { __call = function(_, x) return x end }), 7))
  end)

  it("limits run and join outside tasks, and the tasks go on", function()
    local task = spawn(function() tcp.sleep(0.02) return "done" end)
    fails("timeout", try_with_timeout(0.002, tcp.run))
    fails("timeout", try_with_timeout(0.002, task.join, task))
    fails("timeout", try_with_timeout(0.002, tcp.run, function() tcp.sleep(0.02) end))
    assert.equal("done", task:join())
    tcp.run()
  end)

  it("does not reach into the tasks that are spawned inside", function()
    local task
    fails("timeout", try_with_timeout(0.002, function()
      task = spawn(function() tcp.sleep(0.01) return "unharmed" end)
      tcp.sleep(60)
    end))
    assert.equal("unharmed", task:join())
  end)

  it("is no shelter from cancel, and cancel is not taken for it", function()
    local seen = {}
    local task = spawn(function()
      local _, err = try_with_timeout(0.01, function()
        seen[1] = overslept()
        seen[2] = overslept()
        error(seen[2], 0)
      end)
      seen[3] = err
      tcp.sleep(0)
      seen[4] = "not reached"
    end)
    tcp.sleep(0)
    task:cancel()
    local err = fails("cancelled", task:try_join())
    assert.equal(task, err.task)
    assert.equal("cancelled", seen[3].kind)
    assert.is_nil(seen[4])
  end)

  it("keeps what was handed over in time", function()
    local queue = tcp.queue()
    local task = spawn(function()
      return with_timeout(60, function() return (queue:pop()) end)
    end)
    tcp.sleep(0)
    queue:push("value")
    assert.equal("value", task:join())
    -- Nobody who gave up takes a value along.
    task = spawn(function() return try_with_timeout(0.002, queue.pop, queue) end)
    assert.is_nil((task:join()))
    queue:push("second")
    assert.equal("second", queue:pop())
  end)

  local function generator(seconds, ...)
    local waits = { ... }
    return function()
      with_timeout(seconds, function()
        for _, wait in ipairs(waits) do
          coroutine.yield()
          tcp.sleep(wait)
        end
      end)
    end
  end

  it("of a generator does not reach into its caller", function()
    tcp.run(function()
      local step = tcp.wrap(generator(0.002, 60))
      step()
      tcp.sleep(0.005)
      fails("timeout", try_with_timeout(60, step))
    end)
    if _VERSION ~= "Lua 5.1" or jit then
      local co = coroutine.create(generator(0.002, 60))
      coroutine.resume(co)
      tcp.sleep(0.005)
      local ok, err = coroutine.resume(co)
      assert.is_false(ok)
      assert.equal("timeout", err.kind)
      tcp.sleep(0)
      -- One that is never gone on with, in the main program and in a task.
      coroutine.wrap(generator(0.002, 60))()
      tcp.sleep(0.005)
      tcp.run(function()
        coroutine.wrap(generator(0.002, 60))()
        tcp.sleep(0.005)
      end)
    end
  end)

  it("of the caller reaches into a generator that has one of its own", function()
    local began = tcp.now()
    tcp.run(function()
      local step = tcp.wrap(generator(30, 10))
      step()
      fails("timeout", try_with_timeout(0.005, step))
    end)
    assert.is_true(tcp.now() - began < 5)
  end)

  it("that has ended does not reach into a generator begun inside", function()
    tcp.run(function()
      local step
      with_timeout(0.002, function()
        step = tcp.wrap(generator(30, 0.001, 0.001))
        step()
      end)
      tcp.sleep(0.005)
      step()
      step()
    end)
  end)

  it("sets no timers that stay", function()
    for _ = 1, 2000 do
      with_timeout(60, tcp.sleep, 0)
    end
    tcp.run(function()
      for _ = 1, 2000 do
        with_timeout(60, tcp.sleep, 0)
      end
    end)
    assert.is_false(tcp.step(0))
  end)
end)
