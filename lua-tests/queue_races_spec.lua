local tcp = require("tcp.core")
local tasks = require("support.tasks")

local spawn = tasks.spawn

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

-- What ends a wait early: each makes an attempt `fn` in a task, and ends it when `strike()` is called, or by itself.
local ENDS = {
  cancel = function(fn)
    local task = spawn(fn)
    return function() task:cancel() end
  end,
  ["a timeout"] = function(fn)
    spawn(function() tcp.try_with_timeout(0.003, fn) end)
    return function() tcp.sleep(0.006) end
  end,
}

for name, begin in pairs(ENDS) do
  describe("a queue's wait that ends by " .. name, function()
    after_each(tasks.finish_all)

    it("takes no value along, and the next in line is served", function()
      local queue = tcp.queue()
      local before = poppers(queue, 1)
      local taken
      local strike = begin(function() taken = queue:pop() end)
      settle()
      local after = poppers(queue, 1)
      strike()
      settle()
      queue:push("a")
      queue:push("b")
      queue:push("c")
      settle()
      assert.same({ { "a" } }, before)
      assert.same({ { "b" } }, after)
      assert.is_nil(taken)
      assert.same({ "c" }, rest(queue))
    end)

    it("leaves no value behind that it was to push", function()
      local queue = tcp.queue(1)
      queue:push("first")
      local strike = begin(function() queue:push("never") end)
      settle()
      spawn(function() queue:push("second") end)
      settle()
      strike()
      settle()
      assert.same({ "first", "second" }, { queue:pop(), queue:pop() })
      assert.equal(0, queue:count())
    end)

    it("just after a value was handed over keeps it", function()
      local queue, kept = tcp.queue(), nil
      local strike = begin(function() kept = queue:pop() end)
      tcp.sleep(0)
      queue:push("value")
      strike()
      settle()
      assert.equal("value", kept)
      assert.equal(0, queue:count())
    end)

    it("just after a value was taken from a push counts as pushed", function()
      local queue, done = tcp.queue(1), nil
      queue:push(1)
      local strike = begin(function() done = queue:try_push(2) end)
      tcp.sleep(0)
      assert.equal(1, queue:pop())
      strike()
      settle()
      assert.is_true(done)
      assert.same({ 2 }, rest(queue))
    end)

    it("just after the queue was closed hears of that", function()
      local queue, err = tcp.queue(1), nil
      queue:push(1)
      local strike = begin(function() err = select(2, queue:try_push(2)) end)
      tcp.sleep(0)
      queue:close()
      strike()
      settle()
      assert.equal("closed", err.kind)
      assert.same({ 1 }, rest(queue))
    end)
  end)
end

describe("queues between many", function()
  after_each(tasks.finish_all)

  --- So many producers push so many numbers each, consumers pop them: every number comes once.
  local function exchange(producers, consumers, each, capacity, disturb)
    local queue, left = tcp.queue(capacity), producers
    local seen, got = {}, 0
    for p = 1, producers do
      spawn(function()
        for i = 1, each do
          queue:push((p - 1) * each + i)
        end
        left = left - 1
        if left == 0 then
          queue:close()
        end
      end)
    end
    for _ = 1, consumers do
      spawn(function()
        local value, err = queue:try_pop(disturb)
        while value or err do
          if value then
            assert(not seen[value], "came twice")
            seen[value] = true
            got = got + 1
          end
          value, err = queue:try_pop(disturb)
        end
      end)
    end
    tcp.run()
    assert.equal(producers * each, got)
    assert.equal(0, queue:count())
  end

  for _, capacity in ipairs { 1, 3, 64, 100, math.huge } do
    it("of capacity " .. capacity .. " carry every value once", function()
      exchange(100, 1, 20, capacity)
      exchange(1, 100, 1000, capacity)
      exchange(50, 50, 50, capacity)
      exchange(10, 10, 50, capacity, 0)
    end)
  end

  it("lose nothing when waiting poppers are cancelled all the time", function()
    local queue, got, sent = tcp.queue(2), 0, 300
    local pending = {}
    local producer = spawn(function()
      for i = 1, sent do
        queue:push(i)
        if i % 3 == 0 then
          tcp.sleep(0)
        end
      end
    end)
    local rounds = 0
    while got < sent and rounds < 20000 do
      rounds = rounds + 1
      pending[#pending + 1] = spawn(function()
        local value = queue:try_pop()
        got = got + (value and 1 or 0)
      end)
      if rounds % 2 == 0 then
        tcp.sleep(0)
      end
      if rounds % 3 == 0 then
        table.remove(pending, 1):cancel()
      end
    end
    assert.equal(sent, got)
    producer:join()
    queue:close()
    tcp.run()
    assert.equal(sent, got)
  end)

  it("take time that grows with the number of values, not with its square", function()
    local function time_of(n)
      local began = os.clock()
      local queue = tcp.queue()
      for i = 1, n do
        queue:push(i)
      end
      for i = 1, n do
        -- Never quite empty, and never quite full.
        queue:push(i)
        assert(queue:pop() == i)
      end
      local sum = 0
      while queue:count() > 0 do
        sum = sum + queue:pop()
      end
      assert(sum == n * (n + 1) / 2)
      return os.clock() - began
    end
    local short = time_of(10000) + 0.005
    assert.is_true(time_of(100000) < short * 60)
  end)

  it("take as little for many who wait", function()
    local queue = tcp.queue()
    local began = os.clock()
    local got, list = poppers(queue, 20000)
    for i = 1, 20000, 2 do
      list[i]:cancel()
    end
    for i = 1, 10000 do
      queue:push(i)
    end
    tcp.run()
    assert.equal(1, got[2][1])
    assert.equal(10000, got[20000][1])
    assert.equal("cancelled", got[1][2].kind)
    assert.is_true(os.clock() - began < 5)
  end)
end)
