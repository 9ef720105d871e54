local tcp = require("tcp.core")
local support = require("support")
local tasks = require("support.tasks")

local fails, misuse = support.fails, support.misuse
local unpack = table.unpack or unpack
local spawn = tasks.spawn

local told

--- Collects what tasks fail with: lists of the error, the traceback and the task.
local function listen()
  told = {}
  tcp.on_error = function(...)
    told[#told + 1] = { n = select("#", ...), ... }
  end
end

local function count(...)
  return select("#", ...), ...
end

local function line()
  return debug.getinfo(2, "l").currentline
end

-- Errors of every sort. A task that is joined hands over the very value.
local ERRORS = {
  ["a string"] = "plain", ["a table"] = {}, ["a number"] = 7, ["false"] = false, ["a function"] = print,
  ["an error object"] = select(2, tcp.json.try_decode("[")),
  ["a table whose __tostring fails"] = setmetatable({}, { __tostring = function() error("evil") end }),
}

describe("a task", function()
  before_each(listen)
  after_each(tasks.finish_all)

  it("begins when its maker waits, not before, in the order of spawning", function()
    local order = {}
    for i = 1, 5 do
      spawn(function(...)
        order[#order + 1] = i + select("#", ...)
      end, nil, nil)
    end
    assert.equal(0, #order)
    tcp.sleep(0)
    assert.same({ 3, 4, 5, 6, 7 }, order)
  end)

  it("gives its results to join, again and again, nil, none and many of them", function()
    for n, values in ipairs { { n = 0 }, { n = 1 }, { n = 3, nil, 2 }, { n = 3, false, "x" }, { n = 200 } } do
      local task = spawn(function(...) return ... end, unpack(values, 1, values.n))
      for _ = 1, 2 do
        local got = { count(task:join()) }
        assert.equal(values.n, got[1], "case " .. n)
        for i = 1, values.n do
          assert.equal(values[i], got[i + 1])
        end
      end
      assert.equal("done", task:status())
      local try_count, first = count(task:try_join())
      assert.equal(math.max(values.n, 1), try_count)
      if values.n == 0 then
        assert.is_true(first)
      end
    end
    assert.equal(0, #told)
  end)

  it("takes whatever can be called", function()
    local callable = setmetatable({}, { __call = function(_, a) return a end })
    assert.equal(1, spawn(callable, 1):join())
    assert.equal("a", spawn(string.char, 97):join())
    assert.equal(2, tcp.run(callable, 2))
    for name, value in pairs { string = "x", number = 1, table = {}, ["nil"] = false } do
      local given = value or nil
      misuse("bad argument #1 to 'spawn' (function expected, got " .. name .. ")", tcp.spawn, given)
      misuse("bad argument #1 to 'run' (function expected, got " .. name .. ")", tcp.run, given, 1)
    end
  end)

  for name, value in pairs(ERRORS) do
    it("fails with " .. name .. ", which join raises and try_join gives unchanged", function()
      local task = spawn(function() error(value, 0) end)
      for _ = 1, 2 do
        local ok, err = pcall(task.join, task)
        assert.is_false(ok)
        assert.is_true(rawequal(value, err))
        local n, none, given = count(task:try_join())
        assert.equal(2, n)
        assert.is_nil(none)
        assert.is_true(rawequal(value, given))
      end
      assert.equal("failed", task:status())
      assert.equal(0, #told)
    end)

    it("that nobody joins is told of " .. name .. " at once; a later join raises it still", function()
      local is_after
      local task = spawn(function() error(value, 0) end)
      spawn(function() is_after = #told == 1 end)
      tcp.run()
      assert.is_true(is_after)
      assert.equal(3, told[1].n)
      assert.is_true(rawequal(value, told[1][1]))
      assert.equal("string", type(told[1][2]), "the traceback is a text")
      assert.matches("stack traceback:.*tasks_spec", told[1][2])
      assert.is_true(rawequal(task, told[1][3]))
      local ok, err = pcall(task.join, task)
      assert.is_false(ok)
      assert.is_true(rawequal(value, err))
      assert.equal(1, #told)
    end)

    it("reports " .. name .. " on stderr by default, and goes on, also when on_error fails with it", function()
      local child = [[
        local tcp = require("tcp.core")
        local value = %s
        %s
        tcp.spawn(function() error(value, 0) end)
        tcp.spawn(function() tcp.sleep(0.001) io.stderr:write("went on\n") end)
        tcp.run()
      ]]
      local values = { ["a string"] = "'plain'", ["a table"] = "{}", ["a number"] = "7", ["false"] = "false",
        ["a function"] = "print", ["an error object"] = "select(2, tcp.json.try_decode('['))" }
      local text = values[name] or "setmetatable({}, { __tostring = function() error('evil') end })"
      local output = support.child(child:format(text, ""))
      assert.matches("^tcp: a task %(.-%) failed: .*stack traceback:.*\nwent on\n$", output)
      output = support.child(child:format(text, "tcp.on_error = function(err) error(err, 0) end"))
      assert.matches("on_error failed.*\nwent on\n$", output)
    end)
  end

  it("fails with nil, too", function()
    local task = spawn(function() error() end)
    tcp.run()
    assert.equal("failed", task:status())
    assert.is_string(told[1][2])
    assert.is_false((pcall(task.join, task)))
    assert.equal(nil, (task:try_join()))
  end)

  it("that fails while it is joined tells nobody else; once the joiner gave up, it does", function()
    local function fail()
      tcp.sleep(0.02)
      error("late", 0)
    end
    local task = spawn(fail)
    assert.same({ n = 2, "late" }, { n = 2, select(2, task:try_join()) })
    assert.equal(0, #told)
    task = spawn(fail)
    local joiner = spawn(function() task:join() end)
    fails("timeout", task:try_join(0.001))
    joiner:cancel()
    tcp.run()
    assert.equal(1, #told)
    assert.equal(task, told[1][3])
  end)

  it("has a traceback of its own", function()
    local function deep()
      tcp.sleep(0)
      error("here")
    end
    spawn(function()
      deep()
      return nil
    end)
    tcp.run()
    assert.matches("^[^\n]*tasks_spec%.lua:%d+: here\nstack traceback:\n.*deep", told[1][2])
    assert.is_nil(told[1][2]:find("busted", 1, true))
  end)

  it("knows its status in every state", function()
    local queue, seen = tcp.queue(), nil
    local task
    task = spawn(function()
      seen = task:status()
      return queue:pop()
    end)
    assert.equal("waiting", task:status())
    tcp.sleep(0)
    assert.equal("running", seen)
    assert.equal("waiting", task:status())
    assert.equal("Task (waiting)", tostring(task))
    queue:push(1)
    assert.equal(1, task:join())
    assert.equal("done", task:status())
    local other = spawn(function() task:cancel() return task:status() end)
    assert.equal("done", other:join(), "what is done cannot be cancelled")
  end)

  it("that yields by itself fails, and says what to do", function()
    local task = spawn(function() coroutine.yield(1) end)
    local _, err = task:try_join()
    assert.matches("^coroutine.yield in a task.*tcp%.wrap", err)
    assert.equal("failed", task:status())
  end)

  it("may use coroutines of its own that do not wait; one that waits is told of tcp.wrap", function()
    assert.same({ 1, 2 }, tcp.run(function()
      local next_value = coroutine.wrap(function() coroutine.yield(1) coroutine.yield(2) end)
      return { next_value(), next_value() }
    end))
    local task = spawn(function() tcp.sleep(0.02) return "done" end)
    for _, wait in ipairs { function() tcp.sleep(1) end, function() tcp.queue():pop() end,
      function() task:join() end } do
      local ok, err = tcp.run(function() return coroutine.resume(coroutine.create(wait)) end)
      assert.is_false(ok)
      assert.matches("tasks_spec%.lua:%d+: cannot wait in a coroutine .*tcp%.wrap", err)
    end
    assert.equal("done", task:join())
  end)

  it("that failed to join is not taken for one that joins", function()
    local a, b
    b = spawn(function() tcp.sleep(0) tcp.sleep(0) return a:join() end)
    a = spawn(function()
      coroutine.resume(coroutine.create(function() b:join() end))
      tcp.sleep(0.01)
      return "a"
    end)
    assert.equal("a", b:join())
  end)

  it("may wait in functions that have no name", function()
    local function maker()
      return function() tcp.sleep(0.001) return "made" end
    end
    assert.equal("made", tcp.run(function() return (maker()()) end))
    assert.equal("on the spot", tcp.run(function()
      return ((function() tcp.sleep(0.001) return "on the spot" end)())
    end))
  end)

  it("wraps coroutines as coroutine.wrap does", function()
    tcp.run(function()
      local wrapped = tcp.wrap(function(...)
        assert(count(...) == 2)
        tcp.sleep(0)
        assert(count(coroutine.yield()) == 3)
        assert(count(coroutine.yield(nil, nil)) == 0)
      end)
      assert.equal(0, (count(wrapped(nil, nil))))
      assert.equal(2, (count(wrapped(1, 2, nil))))
      assert.equal(0, (count(wrapped())))
      assert.is_false((tcp.pcall(wrapped)))
      assert.same({ 1, true }, { count(tcp.pcall(function() tcp.sleep(0) end)) })
    end)
  end)

  it("cannot resume a wrapped coroutine that another task waits in", function()
    local next_value = tcp.wrap(function()
      for i = 1, 5 do
        tcp.sleep(0.005)
        coroutine.yield(i)
      end
    end)
    local first = spawn(function() return next_value() end)
    local second = spawn(function() return next_value() end)
    local _, err = second:try_join()
    assert.matches("^[^\n]*cannot resume non%-suspended coroutine$", tostring(err))
    assert.equal(1, first:join())
    assert.equal(2, tcp.run(next_value))
  end)
end)

describe("join", function()
  before_each(listen)
  after_each(tasks.finish_all)

  it("waits as long as it is told", function()
    local task = spawn(function() tcp.sleep(0.03) return "x" end)
    assert.equal("join", fails("timeout", task:try_join(0)).op)
    fails("timeout", task:try_join(0.001))
    local at = line() + 1
    local ok, err = pcall(function() return (task:join(0.001)) end)
    assert.is_false(ok)
    assert.matches("tasks_spec%.lua:" .. at .. ": join: timed out", tostring(err))
    assert.equal("x", task:join(math.huge))
    assert.equal("x", task:join(0), "what needs no wait succeeds")
  end)

  it("wakes all that join, with the same error", function()
    local value, got = {}, {}
    local task = spawn(function() tcp.sleep(0) error(value) end)
    for i = 1, 10 do
      spawn(function() got[i] = select(2, task:try_join()) end)
    end
    tcp.run()
    for i = 1, 10 do
      assert.equal(value, got[i])
    end
    assert.equal(0, #told)
  end)

  it("of oneself or in a circle is misuse", function()
    local task
    task = spawn(function() task:join() end)
    local _, err = task:try_join()
    assert.matches("tasks_spec%.lua:%d+: bad self to 'join' %(a task cannot wait for itself%)$", err)
    local ring = {}
    for i = 1, 3 do
      ring[i] = spawn(function() return ring[i % 3 + 1]:try_join() end)
    end
    for i = 1, 3 do
      _, err = ring[i]:try_join()
      assert.matches("bad self to 'try_join' %(that task waits for this one%)$", err)
    end
  end)

  it("takes no other self and no bad time", function()
    local task = spawn(function() end)
    for _, name in ipairs { "join", "try_join", "cancel", "status" } do
      misuse("bad self to '" .. name .. "' (Task expected, got table; use ':')", task[name], {})
      misuse("bad self to '" .. name .. "' (Task expected, got nil; use ':')", task[name])
      misuse("bad self to '" .. name .. "' (Task expected, got table; use ':')", task[name], tcp.queue())
    end
    for _, name in ipairs { "join", "try_join" } do
      misuse("bad argument #1 to '" .. name .. "' (seconds expected, 0 or more, got -1)", task[name], task, -1)
      misuse("bad argument #1 to '" .. name .. "' (number expected, got table)", task[name], task, {})
    end
    task:join()
  end)
end)
