-- luacheck: ignore 512 (loops that are left at once)
local tcp = require("tcp.core")
local support = require("support")

local fails = support.fails
local load_text = loadstring or load
local unpack = table.unpack or unpack

local function test(name, body)
  it(name, function()
    body()
    assert.is_false(tcp.step(0), "a task is left")
  end)
end

--- Gives what it got, after a wait.
local function wait(...)
  tcp.sleep(0.001)
  return ...
end

local function give_wait()
  return wait
end

local object = { wait = function(_, value) return wait(value) end, list = { wait } }
local waits_as_global = "wait_of_calls_spec"

-- How a function may be called from Lua. None of these is a boundary; the interpreter gives some no name.
local CALLS = {
  ["a local"] = function(v) local r = wait(v) return r end,
  ["a tail call"] = function(v) return wait(v) end,
  ["a tail call of a tail call"] = function(v)
    local function inner() return wait(v) end
    local function outer() return inner() end
    local r = outer()
    return r
  end,
  ["a method"] = function(v) local r = object:wait(v) return r end,
  ["a field"] = function(v) local r = object.wait(nil, v) return r end,
  ["an entry of a list"] = function(v) local r = object.list[1](v) return r end,
  ["a computed entry"] = function(v) local r = object[("WAIT"):lower()](nil, v) return r end,
  ["a global"] = function(v)
    rawset(_G, waits_as_global, wait)
    local r = _G[waits_as_global](v)
    rawset(_G, waits_as_global, nil)
    return r
  end,
  ["a call's result"] = function(v) local r = give_wait()(v) return r end,
  ["a closure on the spot"] = function(v)
    local r = (function() local x = wait(v) return x end)()
    return r
  end,
  ["one or the other"] = function(v, none) local r = (none or wait)(v) return r end,
  ["this and that"] = function(v) local r = (v and wait)(v) return r end,
  ["a vararg"] = function(v)
    local function call(...) local r = (...)(v) return r end
    local r = call(wait)
    return r
  end,
  ["a statement"] = function(v)
    (rawget(_G, "no such thing") or wait)()
    return v
  end,
  ["an argument"] = function(v) local r = wait(wait(wait(v))) return r end,
  ["a callable table"] = function(v)
    local callable = setmetatable({}, { __call = function(_, x) local r = wait(x) return r end })
    local r = callable(v)
    return r
  end,
  ["a numeric loop"] = function(v)
    for _ = 1, 2 do wait() end
    return v
  end,
  ["the body of a loop with an iterator"] = function(v)
    for _, x in ipairs { v } do
      local r = give_wait()(x)
      return r
    end
  end,
  ["varargs"] = function(...)
    local function pass(...) local a, b = wait(...) return a, b end
    local r = pass(...)
    return r
  end,
  ["a chunk"] = function(v) local r = load_text("local wait, v = ... local r = wait(v) return r")(wait, v) return r end,
  ["a chunk's tail call"] = function(v) return load_text("local wait, v = ... return wait(v)")(wait, v) end,
  ["a chunk without names"] = function(v)
    local text = "local wait, v = ... local r = (function() local x = wait(v) return x end)() return r"
    local r = assert(load_text(text))(wait, v)
    return r
  end,
  ["50 levels"] = function(v)
    local function down(n)
      if n == 0 then
        return wait(v)
      end
      local r = down(n - 1)
      return r
    end
    local r = down(50)
    return r
  end,
  ["50 levels without names"] = function(v)
    local function down(n)
      local r = n == 0 and wait(v) or n > 0 and (function() local x = (n and down)(n - 1) return x end)()
      return r
    end
    local r = down(50)
    return r
  end,
}

local AROUND = {
  ["a task"] = function(fn) return fn end,
  ["tcp.pcall"] = function(fn) return function(...) return select(2, assert(tcp.pcall(fn, ...))) end end,
  ["with_timeout"] = function(fn) return function(...) return tcp.with_timeout(10, fn, ...) end end,
  ["tcp.wrap"] = tcp.wrap,
}

describe("a wait in a task", function()
  for name, call in pairs(CALLS) do
    test("is possible under " .. name, function()
      for around, make in pairs(AROUND) do
        local value, err = tcp.spawn(make(call), "value"):try_join(10)
        assert.equal("value", value, around .. ": " .. tostring(err))
      end
    end)
  end
end)

test("a function that is not Lua can be a task, and be wrapped", function()
  assert.equal("X", tcp.run(string.upper, "x"))
  assert.equal("X", tcp.spawn(string.upper, "x"):join())
  assert.equal("X", tcp.wrap(string.upper)("x"))
  assert.equal("X", tcp.with_timeout(10, string.upper, "x"))
  assert.same({ nil, "as it was" }, { tcp.spawn(error, "as it was", 0):try_join() })
end)

describe("tcp.pcall", function()
  local RUNNERS = { ["in a task"] = tcp.run, ["outside tasks"] = function(fn, ...) return fn(...) end }

  for place, run in pairs(RUNNERS) do
    test("gives results as they are " .. place, function()
      run(function()
        for _, fn in ipairs { wait, function(...) return ... end, select("#", wait) == 1 and unpack and wait } do
          assert.equal(1, select("#", tcp.pcall(fn)))
          assert.equal(4, select("#", tcp.pcall(fn, nil, 2, nil)))
          assert.same({ true, "a", "b" }, { tcp.pcall(fn, "a", "b") })
        end
      end)
    end)

    test("gives errors as they are " .. place, function()
      run(function()
        for _, value in ipairs { {}, "text", 7, false, setmetatable({}, { __tostring = error }) } do
          local ok, err = tcp.pcall(function()
            wait()
            error(value, 0)
          end)
          assert.is_false(ok)
          assert.is_true(rawequal(value, err))
        end
        assert.same({ n = 2, false }, { n = select("#", tcp.pcall(error)), (tcp.pcall(error)) })
        fails("refused", nil, select(2, tcp.pcall(tcp.connect, "127.0.0.1", 1)))
      end)
    end)

    test("calls what is not Lua, and what cannot be called, as pcall does " .. place, function()
      run(function()
        assert.same({ true, "X" }, { tcp.pcall(string.upper, "x") })
        assert.same({ pcall(string.rep) }, { tcp.pcall(string.rep) })
        for _, value in ipairs { 1, "x", {}, false } do
          local ok, err = tcp.pcall(value)
          assert.is_false(ok)
          assert.matches("attempt to call a " .. type(value), err)
        end
        assert.is_false(tcp.pcall(nil))
        assert.is_false(pcall(tcp.pcall))
        local callable = setmetatable({}, { __call = function(_, v) return wait(v) end })
        assert.same({ true, "v" }, { tcp.pcall(callable, "v") })
      end)
    end)

    test("nests 100 levels deep " .. place, function()
      run(function()
        local function down(n)
          if n == 0 then
            wait()
            error("bottom", 0)
          end
          local ok, err = tcp.pcall(down, n - 1)
          wait()
          return error(not ok and err, 0)
        end
        assert.same({ false, "bottom" }, { tcp.pcall(down, 100) })
      end)
    end)

    test("ends a recursion that never ends " .. place, function()
      run(function()
        local function down()
          local ok, err = tcp.pcall(down)
          return ok and err
        end
        down()
        wait()
      end)
    end)
  end

  test("lets the yields of a generator pass in a task", function()
    tcp.run(function()
      local generator = tcp.wrap(function(...)
        local got = { tcp.pcall(function(...)
          wait()
          local a = coroutine.yield(...)
          local _, b = tcp.pcall(coroutine.yield, a)
          wait()
          error(b, 0)
        end, ...) }
        coroutine.yield(unpack(got))
      end)
      assert.same({ 1, nil, 3 }, { generator(1, nil, 3) })
      assert.equal("a", generator("a"))
      assert.same({ false, "b" }, { generator("b") })
    end)
  end)

  test("is passed by a cancellation, which ends later waits, too", function()
    local seen = {}
    local task = tcp.spawn(function()
      for i = 1, 3 do
        seen[i] = select(2, tcp.pcall(tcp.pcall, tcp.sleep, 60))
        seen[i] = seen[i] or select(2, tcp.pcall(tcp.sleep, 60))
      end
      tcp.sleep(60)
    end)
    tcp.sleep(0)
    task:cancel()
    fails("cancelled", task:try_join(10))
    for i = 2, 3 do
      fails("cancelled", nil, seen[i])
    end
  end)
end)
