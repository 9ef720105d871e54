local tcp = require("tcp.core")
local waits = require("support.waits")
local support = require("support")
local transports = require("support.transports")

local fails = support.fails
local is_plain_51 = _VERSION == "Lua 5.1" and not jit
local wait, clean = waits.wait, waits.clean

local function test(name, body)
  it(name, waits.cleanly(body))
end

local function pack(...)
  return { n = select("#", ...), ... }
end

after_each(clean)

for _, over in ipairs(transports.all) do
  describe("coroutines" .. over.suffix, function()
    local function pair()
      return waits.pair(over)
    end

    describe("tcp.wrap", function()
      local RUNNERS = { ["in a task"] = tcp.run, ["outside tasks"] = function(fn, ...) return fn(...) end }

      for place, run in pairs(RUNNERS) do
        test("passes arguments and results both ways across waits " .. place, function()
          run(function()
            local resumed
            local generator = tcp.wrap(function(...)
              wait()
              resumed = pack(coroutine.yield(...))
              wait()
              return nil, "end", nil
            end)
            assert.same({ n = 3, 1, nil, nil }, pack(generator(1, nil, nil)))
            assert.same({ n = 3, nil, "end", nil }, pack(generator(nil, 2)))
            assert.same({ n = 2, nil, 2 }, resumed)
          end)
        end)

        test("gives no result where there is none " .. place, function()
          run(function()
            local generator = tcp.wrap(function()
              coroutine.yield()
              wait()
            end)
            assert.equal(0, select("#", generator()))
            assert.equal(0, select("#", generator()))
          end)
        end)

        test("raises errors as they are " .. place, function()
          run(function()
            for _, value in ipairs { {}, "text", 7, false } do
              local generator = tcp.wrap(function()
                wait()
                error(value, 0)
              end)
              local ok, err = tcp.pcall(generator)
              assert.is_false(ok)
              assert.equal(value, err)
              assert.is_false(pcall(generator), "a dead coroutine was resumed")
            end
            local _, err = tcp.pcall(tcp.wrap(function()
              wait()
              tcp.connect("127.0.0.1", 1)
            end))
            fails("refused", nil, err)
          end)
        end)

        test("nests and serves as an iterator " .. place, function()
          run(function()
            local depth = 20
            local function numbers(level)
              return tcp.wrap(function()
                if level == depth then
                  for i = 1, 3 do
                    wait()
                    coroutine.yield(i)
                  end
                  return
                end
                local inner = numbers(level + 1)
                local value = inner()
                while value do
                  wait()
                  coroutine.yield(value)
                  value = inner()
                end
              end)
            end
            local generator, sum = numbers(1), 0
            if is_plain_51 and place == "in a task" then
              local value = generator()
              while value do
                sum, value = sum + value, generator()
              end
            else
              for value in generator do
                sum = sum + value
              end
            end
            assert.equal(6, sum)
          end)
        end)

        test("is refused to resume itself, and is usable afterwards " .. place, function()
          run(function()
            local generator
            generator = tcp.wrap(function()
              local ok = pcall(generator)
              wait()
              return ok
            end)
            assert.is_false(generator())
          end)
        end)
      end

      test("refuses what is no function", function()
        for _, value in ipairs { "x", 1, {}, true, setmetatable({}, { __call = print }) } do
          local ok, err = pcall(tcp.wrap, value)
          assert.is_false(ok)
          assert.matches("bad argument #1 to 'wrap' %(function expected, got " .. type(value), err)
        end
        support.misuse("bad argument #1 to 'wrap' (function expected, got nil)", function()
          tcp.wrap()
        end)
      end)

      test("goes on in another task, and outside", function()
        local near, far = pair()
        local generator = tcp.wrap(function()
          while true do
            coroutine.yield((far:read_line()))
          end
        end)
        near:write("1\n2\n3\n")
        assert.equal("1", tcp.run(generator))
        assert.equal("2", tcp.run(generator))
        assert.equal("3", generator())
        local first = tcp.spawn(generator)
        tcp.sleep(0)
        near:write("4\n5\n")
        assert.equal("4", first:join())
        assert.equal("5", generator())
      end)

      test("is not resumed by another task while one waits in it", function()
        local near, far = pair()
        local generator = tcp.wrap(function()
          return (far:read_line())
        end)
        local first, second = tcp.spawn(generator), tcp.spawn(generator)
        local ok, err = second:try_join()
        assert.is_nil(ok)
        assert.matches("cannot resume", tostring(err))
        assert.is_false(pcall(generator))
        near:write("mine\n")
        assert.equal("mine", first:join(10))
      end)

      test("is left by a cancelled task's waits", function()
        local queue, seen = tcp.queue(), nil
        local generator = tcp.wrap(function()
          local _, err = queue:try_pop()
          seen = err
          queue:pop()
        end)
        local task = tcp.spawn(generator)
        tcp.sleep(0)
        task:cancel()
        fails("cancelled", task:try_join(10))
        fails("cancelled", nil, seen)
        queue:push(1)
        assert.equal(1, queue:pop(0))
      end)

      describe("and with_timeout:", function()
        test("a wrapped coroutine's waits end with the scope around its call", function()
          local _, far = pair()
          for _, run in pairs(RUNNERS) do
            local generator = tcp.wrap(function()
              far:read_line()
            end)
            fails("timeout", run(tcp.try_with_timeout, 0.01, generator))
          end
        end)

        -- The body has a scope of its own, which it leaves by yielding; on plain 5.1 only a task can.
        local function scoped(far, seconds)
          return tcp.wrap(function()
            return tcp.with_timeout(seconds, function()
              while true do
                coroutine.yield("in")
                far:read_line()
              end
            end)
          end)
        end

        test("a scope that is left by a yield does not cut the caller's waits", function()
          local _, far = pair()
          tcp.run(function()
            local generator = scoped(far, 0.01)
            assert.equal("in", generator())
            tcp.sleep(0.02)
            local ok, err = tcp.pcall(generator)
            assert.is_false(ok)
            fails("timeout", nil, err)
            tcp.sleep(0.001)
          end)
        end)

        test("the scope around a call counts beside the coroutine's own", function()
          local _, far = pair()
          tcp.run(function()
            local generator = scoped(far, 5)
            assert.equal("in", generator())
            local began = tcp.now()
            local ok, err = tcp.try_with_timeout(0.01, generator)
            assert.is_nil(ok)
            assert.matches("0.01 s", fails("timeout", nil, err).message, 1, true)
            assert.is_true(tcp.now() - began < 4)
          end)
        end)

        test("a scope around an earlier call is forgotten", function()
          local near, far = pair()
          tcp.run(function()
            local generator = tcp.wrap(function()
              tcp.with_timeout(60, coroutine.yield, "in")
              coroutine.yield("out")
              return (far:read_line())
            end)
            assert.equal("in", tcp.with_timeout(0.01, generator))
            tcp.sleep(0.02)
            assert.equal("out", generator())
            tcp.spawn(function()
              tcp.sleep(0.01)
              near:write("late\n")
            end)
            assert.equal("late", generator())
          end)
        end)

        test("a scope ended in another task leaves the first task's alone", function()
          local _, far = pair()
          local generator = tcp.wrap(function()
            tcp.with_timeout(60, coroutine.yield)
            return "ended"
          end)
          local first = tcp.spawn(function()
            generator()
            return tcp.try_with_timeout(0.05, function()
              tcp.sleep(0.01)
              far:read_line({ timeout = 5 })
            end)
          end)
          tcp.sleep(0)
          assert.equal("ended", tcp.run(generator))
          assert.equal("with_timeout", fails("timeout", first:try_join(2)).op)
          tcp.run()
        end)
      end)
    end)
  end)
end
