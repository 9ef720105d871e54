local tcp = require("tcp.core")
local waits = require("support.waits")
local peers = require("support.peers")
local support = require("support")
local transports = require("support.transports")

local fails = support.fails
local SOURCE = debug.getinfo(1, "S").short_src
local OWN = "cannot wait in a coroutine of the script's own inside a task: make it with tcp.wrap"
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

local function test(name, body)
  it(name, waits.cleanly(body))
end

after_each(clean)

for _, over in ipairs(transports.all) do
  describe("a coroutine of the script's own" .. over.suffix, function()
    local function pair()
      return waits.pair(over)
    end

    -- Each leaves its wait by the advice; a link or a mark left behind would show.
    local WAITS = {
      ["read_line"] = function(far) far:read_line() end,
      ["try_read_line"] = function(far) far:try_read_line() end,
      ["read_line with a timeout"] = function(far) far:read_line({ timeout = 60 }) end,
      ["try_recv"] = function(far) far:try_recv() end,
      ["sleep"] = function() tcp.sleep(60) end,
      ["accept"] = function(_, listener) listener:accept() end,
      ["try_accept"] = function(_, listener) listener:try_accept(60) end,
      ["connect"] = function(_, _, port) over.tcp.connect("127.0.0.1", port) end,
      ["try_connect"] = function(_, _, port) over.tcp.try_connect("127.0.0.1", port) end,
      ["pop"] = function(_, _, _, queue) queue:pop() end,
      ["try_pop"] = function(_, _, _, queue) queue:try_pop(60) end,
      ["push"] = function(_, _, _, queue)
        queue:push(1)
        queue:push(2)
      end,
      ["join"] = function(_, _, _, _, other) other:join() end,
      ["try_join"] = function(_, _, _, _, other) other:try_join(60) end,
    }

    for name, wait_in in pairs(WAITS) do
      test("may not wait in a task, and nothing is left of " .. name, function()
        local near, far = pair()
        local listener, queue = waits.opens(over.tcp.listen("127.0.0.1", 0)), tcp.queue(1)
        local port = peers.start("--silent").port
        local other
        local task = tcp.spawn(function()
          local co = coroutine.create(wait_in)
          local ok, err = coroutine.resume(co, far, listener, port, queue, other)
          assert.is_false(ok)
          assert_advice(OWN, err)
          assert.equal("dead", coroutine.status(co))
          tcp.sleep(0.01)
          return "went on"
        end)
        other = tcp.spawn(function()
          tcp.sleep(0.005)
          -- Only a join that was left behind would stand in its way.
          return task:join()
        end)
        assert.equal("went on", task:join(10))
        assert.equal("went on", other:join(10))
        is_usable(near, far)
        if queue:count() == 1 then
          assert.equal(1, queue:pop(0))
        end
        queue:push("next")
        assert.equal("next", queue:pop(0))
      end)
    end

    test("is told so in tcp.pcall, inside and around tcp.wrap", function()
      local function waiting()
        local value = wait(1)
        return value
      end
      for _, fn in ipairs {
        function() return select(2, assert(tcp.pcall(waiting))) end,
        function() return tcp.wrap(waiting)() end,
        function() return tcp.with_timeout(5, waiting) end,
      } do
        tcp.run(function()
          local ok, err = coroutine.resume(coroutine.create(fn))
          assert.is_false(ok)
          assert.matches(OWN, err, 1, true)
          return tcp.wrap(function()
            local inner_ok, inner = coroutine.resume(coroutine.create(waiting))
            assert.is_false(inner_ok)
            assert_advice(OWN, inner)
          end)()
        end)
      end
    end)

    test("may wait outside tasks, with and without tasks alive", function()
      local near, far = pair()
      for _, beside in ipairs { 0, 3 } do
        local ended = 0
        for _ = 1, beside do
          tcp.spawn(function()
            wait()
            ended = ended + 1
          end)
        end
        local co = coroutine.wrap(function()
          for _ = 1, 2 do
            wait()
            near:write("x\n")
            coroutine.yield(far:read_line())
          end
        end)
        assert.equal("x", co())
        assert.equal("x", co())
        tcp.run()
        assert.equal(beside, ended)
      end
    end)

    test("needs no tcp.wrap where there is no need to wait", function()
      local near, far = pair()
      near:write("one\n")
      far:peek(1)
      assert.equal("one", tcp.run(function()
        return coroutine.wrap(function()
          fails("timeout", far:try_read(100, { timeout = 0 }))
          return (far:read_line())
        end)()
      end))
    end)
  end)
end
