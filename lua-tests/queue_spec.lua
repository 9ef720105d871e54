local tcp = require("tcp.core")
local support = require("support")
local tasks = require("support.tasks")

local fails, misuse, spawn = support.fails, support.misuse, tasks.spawn

-- Plain Lua 5.1 cannot wait in a `for` of a task.
local IS_PLAIN_51 = _VERSION == "Lua 5.1" and not jit

--- Everything that is in a queue now.
local function rest(queue)
  local values = {}
  while queue:count() > 0 do
    values[#values + 1] = queue:pop()
  end
  return values
end

--- Lets every task go as far as it can.
local function settle()
  for _ = 1, 5 do
    tcp.sleep(0)
  end
end

--- Tasks that each pop once: a list of what came of them, `{ value, err }`.
local function poppers(queue, n, timeout)
  local got, list = {}, {}
  for i = 1, n do
    list[i] = spawn(function()
      got[i] = { queue:try_pop(timeout) }
    end)
  end
  settle()
  return got, list
end

describe("a queue", function()
  after_each(tasks.finish_all)

  it("gives values in their order, and knows how many", function()
    local queue = tcp.queue()
    assert.equal(0, queue:count())
    for i = 1, 300 do
      assert.equal(0, select("#", queue:push(i)))
      assert.equal(i, queue:count())
    end
    for i = 1, 300 do
      assert.equal(i, queue:pop())
      assert.equal(300 - i, queue:count())
    end
    assert.is_true(queue:try_push("x"))
    assert.equal("Queue (1)", tostring(queue))
    assert.equal("x", queue:try_pop())
    queue:close()
    assert.equal("Queue (0, closed)", tostring(queue))
  end)

  it("takes false and whatever else is not nil", function()
    local queue = tcp.queue()
    local values = { false, true, 0, "", {}, print, tcp.null, queue }
    local got, n = {}, 0
    local function pop_all()
      for i = 1, #values do
        local n_results, value, err = (function(...) return select("#", ...), ... end)(queue:try_pop())
        assert(n_results >= 1 and err == nil, tostring(err))
        got[i] = value
        n = n + 1
      end
    end
    local popper = spawn(pop_all)
    tcp.sleep(0)
    for _, value in ipairs(values) do
      queue:push(value)
      tcp.sleep(0)
    end
    popper:join()
    assert.equal(#values, n)
    for i, value in ipairs(values) do
      assert.is_true(rawequal(value, got[i]))
      queue:push(value)
    end
    pop_all()
    -- Through a push that had to wait, too.
    local narrow = tcp.queue(1)
    spawn(function() narrow:push(false) narrow:push(false) narrow:push(false) narrow:close() end)
    settle()
    assert.same({ false, false, false }, { narrow:pop(), narrow:pop(), narrow:pop() })
    assert.is_nil(narrow:pop())
  end)

  it("takes no nil, no other self and no bad capacity or time", function()
    local queue = tcp.queue()
    for _, name in ipairs { "push", "try_push" } do
      misuse("bad argument #1 to '" .. name .. "' (value expected, got nil)", queue[name], queue)
      misuse("bad argument #1 to '" .. name .. "' (value expected, got nil)", queue[name], queue, nil)
    end
    for _, name in ipairs { "push", "try_push", "pop", "try_pop", "close", "count", "values" } do
      misuse("bad self to '" .. name .. "' (Queue expected, got nil; use ':')", queue[name])
      misuse("bad self to '" .. name .. "' (Queue expected, got string; use ':')", queue[name], "x")
      misuse("bad self to '" .. name .. "' (Queue expected, got table; use ':')", queue[name], {})
    end
    for _, name in ipairs { "pop", "try_pop" } do
      misuse("bad argument #1 to '" .. name .. "' (seconds expected, 0 or more, got -1)", queue[name], queue, -1)
      misuse("bad argument #1 to '" .. name .. "' (number expected, got table)", queue[name], queue, {})
    end
    for _, capacity in ipairs { 0, -1, 1.5, "x", true, 0 / 0 } do
      assert.is_false((pcall(tcp.queue, capacity)))
    end
    queue:close()
    misuse("bad argument #1 to 'push' (value expected, got nil)", queue.push, queue)
    assert.is_true(tcp.queue(math.huge):try_push(1) and tcp.queue("2"):try_push(1))
  end)

  it("holds its capacity and no more; who pushes waits in turn", function()
    for capacity = 1, 3 do
      local queue = tcp.queue(capacity)
      for i = 1, 6 do
        spawn(function() queue:push(i) end)
      end
      for i = 1, 6 do
        settle()
        assert.equal(math.min(capacity, 7 - i), queue:count())
        assert.equal(i, queue:pop())
      end
    end
  end)

  it("serves who waits longest, and nobody who comes later in between", function()
    local queue = tcp.queue()
    local got = poppers(queue, 3)
    for i = 1, 3 do
      queue:push(i)
    end
    assert.equal(0, queue:count())
    fails("timeout", queue:try_pop(0))
    settle()
    assert.same({ { 1 }, { 2 }, { 3 } }, got)
  end)

  it("pops with a timeout", function()
    local queue = tcp.queue()
    for _, place in ipairs { function(fn) fn() end, tcp.run } do
      place(function()
        local err = fails("timeout", queue:try_pop(0))
        assert.equal("pop", err.op)
        fails("timeout", queue:try_pop(0.002))
        local ok, raised = tcp.pcall(function() return (queue:pop(0.002)) end)
        assert.is_false(ok)
        assert.matches("queue_spec%.lua:%d+: pop: timed out", tostring(raised))
        queue:push(1)
        assert.equal(1, queue:pop(0))
        spawn(function() tcp.sleep(0.002) queue:push(2) end)
        assert.equal(2, queue:pop(math.huge))
      end)
    end
  end)

  it("closed, wakes who waits to pop with nil", function()
    local queue = tcp.queue()
    local got = poppers(queue, 3)
    local raising = spawn(function() return select("#", (queue:pop(60))), queue:pop(60) end)
    settle()
    queue:close()
    queue:close()
    assert.same({ 1 }, { raising:join() })
    assert.same({ {}, {}, {} }, got)
    assert.is_nil(queue:pop())
    assert.is_nil(queue:pop(0))
    local value, err = queue:try_pop(5)
    assert.is_nil(value)
    assert.is_nil(err)
  end)

  it("closed, fails who waits to push, and every later push; what is in it can be popped", function()
    local queue = tcp.queue(2)
    queue:push("a")
    queue:push("b")
    local errs = {}
    for i = 1, 3 do
      spawn(function() errs[i] = select(2, queue:try_push(i)) end)
    end
    local raising = spawn(function() queue:push(4) end)
    settle()
    queue:close()
    local err = fails("closed", raising:try_join())
    assert.matches("queue_spec%.lua:%d+$", err.where)
    for i = 1, 3 do
      assert.equal("closed", errs[i].kind)
      assert.equal("push", errs[i].op)
    end
    fails("closed", queue:try_push(5))
    assert.is_false((pcall(queue.push, queue, 6)))
    assert.same({ "a", "b" }, rest(queue))
    assert.is_nil(queue:pop())
  end)

  it("iterates over values until it is closed and empty", function()
    local queue = tcp.queue()
    for _, value in ipairs { 1, false, 3 } do
      queue:push(value)
    end
    queue:close()
    local got = {}
    for value in queue:values() do
      got[#got + 1] = value
    end
    assert.same({ 1, false, 3 }, got)
    -- Outside tasks the iterator may wait everywhere.
    local other = tcp.queue(1)
    spawn(function()
      for i = 1, 5 do
        other:push(i)
      end
      other:close()
    end)
    got = {}
    for value in other:values() do
      got[#got + 1] = value
    end
    assert.same({ 1, 2, 3, 4, 5 }, got)
  end)

  it("has an iterator that waits in a task, or says what to do instead", function()
    tcp.on_error = function() end
    local queue = tcp.queue()
    local task = spawn(function()
      local sum = 0
      for value in queue:values() do
        sum = sum + value
      end
      return sum
    end)
    tcp.sleep(0)
    if IS_PLAIN_51 then
      local _, err = task:try_join()
      assert.matches("cannot wait in a for loop on Lua 5%.1: use while and try_pop", err)
    end
    for i = 1, 10 do
      queue:push(i)
    end
    queue:close()
    if not IS_PLAIN_51 then
      assert.equal(55, task:join())
    end
    assert.is_true(IS_PLAIN_51 or queue:count() == 0)
  end)

  it("lets nothing be lost where nothing can wait", function()
    local queue, full = tcp.queue(), tcp.queue(1)
    full:push("first")
    tcp.run(function()
      for _, wait in ipairs { function() queue:pop() end, function() full:push("second") end } do
        local ok, err = pcall(table.sort, { 3, 2, 1 }, wait)
        assert(not ok)
        assert.matches("cannot wait in ", err)
        ok, err = coroutine.resume(coroutine.create(wait))
        assert(not ok)
        assert.matches("tcp%.wrap", err)
      end
    end)
    queue:push(1)
    assert.equal(1, queue:count())
    assert.same({ "first" }, rest(full))
  end)
end)
