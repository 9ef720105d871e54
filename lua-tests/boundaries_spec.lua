-- luacheck: ignore 512 (loops that are left at once)
local tcp = require("tcp.core")
local waits = require("support.waits")
local support = require("support")
local transports = require("support.transports")

local fails = support.fails
local is_plain_51 = _VERSION == "Lua 5.1" and not jit
local SOURCE = debug.getinfo(1, "S").short_src
local is_usable, clean = waits.is_usable, waits.clean

--- Gives what it got, after a wait that no clock can end before it begins. It stands here because advice names the
-- line.
local function wait(...)
  tcp.spawn(function() end):join()
  return ...
end

local function assert_advice(text, err)
  return waits.assert_advice(SOURCE, text, err)
end

local function advises(text, fn, ...)
  return waits.advises(SOURCE, text, fn, ...)
end

local function test(name, body)
  it(name, waits.cleanly(body))
end

-- luassert's `assert` makes tables of errors.
local function must(value, err)
  return value or error(err, 0)
end

local function rethrow(ok, value)
  return ok and value or error(value, 0)
end

local function wait_here()
  local value = wait(1)
  return value
end

after_each(clean)

-- What calls the function it is given where no Lua can suspend it.
local CALLBACKS = {
  ["gsub"] = function(fn)
    local text = ("abc"):gsub(".", function(letter)
      return fn(letter:upper())
    end)
    return text
  end,
  ["sort"] = function(fn)
    local list = { "C", "A", "B" }
    table.sort(list, function(a, b)
      fn("")
      return a < b
    end)
    return table.concat(list)
  end,
  ["a chunk's reader"] = function(fn)
    local pieces = { "return ", "'ABC'" }
    return must(load(function()
      return fn(table.remove(pieces, 1))
    end))()
  end,
  ["require"] = function(fn)
    package.preload["boundaries.chunk"] = function()
      return fn("ABC")
    end
    package.loaded["boundaries.chunk"] = nil
    return (require("boundaries.chunk"))
  end,
  ["a wrapped coroutine in gsub"] = function(fn)
    local text = ("abc"):gsub(".", tcp.wrap(function(letter)
      while true do
        fn("")
        letter = coroutine.yield(letter:upper())
      end
    end))
    return text
  end,
}

for _, over in ipairs(transports.all) do
  describe("waiting" .. over.suffix, function()
    local function pair()
      return waits.pair(over)
    end

    describe("a callback of a C function", function()
      for name, call in pairs(CALLBACKS) do
        test("may not wait in a task, and is told so: " .. name, function()
          local near, far = pair()
          for _, fn in ipairs {
            wait,
            function() return (far:try_read_line()) end,
            function() return far:read_line() end,
          } do
            local ok, err = tcp.spawn(call, fn):try_join(10)
            assert.is_nil(ok)
            assert.equal("string", type(err))
            assert.matches("cannot wait ", err, 1, true)
            assert.is_nil(err:find("tcp/", 1, true), "it shows the module's insides: " .. err)
            assert.is_nil(err:find("attempt to yield", 1, true), err)
          end
          is_usable(near, far)
        end)

        test("works where there is no need to wait: " .. name, function()
          local near, far = pair()
          near:write(("x"):rep(100))
          far:peek(1)
          local function reads(...)
            tcp.sleep(0)
            assert.equal("x", far:read(1))
            fails("timeout", far:try_read(1000, { timeout = 0 }))
            return ...
          end
          assert.equal("ABC", tcp.run(call, reads))
        end)

        test("may wait outside tasks: " .. name, function()
          local task = tcp.spawn(wait, "beside")
          assert.equal("ABC", call(wait))
          assert.equal("beside", task:join())
        end)
      end

      test("is named", function()
        advises("cannot wait in a callback of gsub: wait before or after it", CALLBACKS.gsub, wait_here)
        advises("cannot wait in a callback of sort: wait before or after it", CALLBACKS.sort, wait_here)
      end)

      if not is_plain_51 then
        test("is named although Lua's pcall, a metamethod or an iterator stands between", function()
          for _, between in ipairs {
            function() return rethrow(pcall(wait_here)) end,
            function() return setmetatable({}, { __index = wait_here }).x end,
            function() for _ in function() return wait_here() and nil end do error("no end") end end,
          } do
            local ok, err = tcp.spawn(CALLBACKS.gsub, function()
              local value = between()
              return value
            end):try_join(10)
            assert.is_nil(ok)
            assert.is_nil(err:find("5.1", 1, true), err)
            assert.matches("in a callback of gsub", err, 1, true)
          end
        end)
      end

      test("can be a finalizer, which leaves the task as it was", function()
        local seen
        local function finalize()
          seen = { pcall(wait_here) }
        end
        tcp.run(function()
          local object = newproxy and newproxy(true) or setmetatable({}, { __gc = finalize })
          if newproxy then
            getmetatable(object).__gc = finalize
          end
          object = nil -- luacheck: ignore
          collectgarbage()
          collectgarbage()
          return wait()
        end)
        assert.is_false(seen[1])
        assert.matches("cannot wait ", seen[2], 1, true)
        assert.is_nil(is_plain_51 == false and seen[2]:find("5.1", 1, true) or nil, seen[2])
      end)
    end)

    -- What the interpreter calls, or pcall: plain 5.1 cannot suspend it, every other Lua can.
    local METAMETHODS = "cannot wait in a metamethod or a finalizer on Lua 5.1: wait before, or spawn a task"
    local PCALL = "cannot wait in pcall on Lua 5.1: use tcp.pcall"

    local function with_metamethod(name, fn)
      return setmetatable({}, { [name] = fn })
    end

    local CALLS = {
      ["__index"] = { METAMETHODS, function(fn)
        local value = with_metamethod("__index", fn).key
        return value
      end },
      ["__index through two tables"] = { METAMETHODS, function(fn)
        local value = setmetatable({}, { __index = with_metamethod("__index", fn) }).key
        return value
      end },
      ["__newindex"] = { METAMETHODS, function(fn) with_metamethod("__newindex", fn).key = 1 end },
      ["__add"] = { METAMETHODS, function(fn) return with_metamethod("__add", fn) + 1 end },
      ["__concat"] = { METAMETHODS, function(fn) return "x" .. with_metamethod("__concat", fn) end },
      ["__lt"] = { METAMETHODS, function(fn)
        local metatable = { __lt = fn }
        return setmetatable({}, metatable) < setmetatable({}, metatable)
      end },
      ["__unm"] = { METAMETHODS, function(fn) return -with_metamethod("__unm", fn) end },
      ["pcall"] = { PCALL, function(fn) rethrow(pcall(fn)) end },
      ["xpcall"] = { PCALL, function(fn)
        rethrow(xpcall(function() return fn() end, function(err) return err end))
      end },
    }

    describe("on this Lua", function()
      for name, case in pairs(CALLS) do
        local advice, call = case[1], case[2]
        local function run_it(fn)
          local result = call(fn)
          return result
        end

        -- A tail call leaves no trace of who called.
        for manner, fn in pairs { plainly = wait_here, ["by a tail call"] = function() return wait(1) end } do
          test(("%s %s wait in a task, %s"):format(name, is_plain_51 and "cannot" or "can", manner), function()
            local near, far = pair()
            if is_plain_51 then
              local err = select(2, tcp.spawn(run_it, fn):try_join(10))
              assert.matches(advice, tostring(err), 1, true)
            else
              tcp.run(run_it, fn)
            end
            is_usable(near, far)
          end)
        end

        test(name .. " works where there is no need to wait, and outside tasks", function()
          tcp.run(run_it, function() return tcp.now() end)
          local task = tcp.spawn(wait, "beside")
          run_it(wait_here)
          assert.equal("beside", task:join())
        end)
      end

      test("pcall in a task gives the advice as an error, or what it called gave", function()
        local ok, value = tcp.run(function()
          local ok, value = pcall(wait_here)
          wait()
          return ok, value
        end)
        if is_plain_51 then
          assert.is_false(ok)
          assert_advice(PCALL, value)
        else
          assert.same({ true, 1 }, { ok, value })
        end
      end)
    end)
  end)
end
