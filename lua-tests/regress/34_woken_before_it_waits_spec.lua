-- What a finalizer did between the look for something to wait for and the wait was not noticed: the value that it
-- pushed lay in the queue while its popper slept. A hook stands for the finalizer, at each instruction in turn.

local tcp = require("tcp.core")
local transports = require("support.transports")

local function read_and_close(near, far)
  return function() return select(2, far:try_read(1, { timeout = 10 })).kind end, function()
    far:close()
    near:close()
  end, "closed"
end

-- Name: what waits, and what makes that needless, both with the same things.
local WAITS = {
  ["pop, for a push"] = function()
    local queue = tcp.queue()
    return function() return queue:pop(10) end, function() queue:push("came") end, "came"
  end,
  ["pop, for two pushes"] = function()
    local queue = tcp.queue()
    return function() return queue:pop(10) .. queue:pop(10) end, function() queue:push(1) queue:push(2) end, "12"
  end,
  ["pop, for a close"] = function()
    local queue = tcp.queue()
    return function() return queue:pop(10) == nil end, function() queue:close() end, true
  end,
  ["push, for a pop"] = function()
    local queue = tcp.queue(1)
    queue:push("first")
    return function() queue:push("second", 10) return queue:pop(0) end, function() queue:pop(0) end, "second"
  end,
  ["push, for a close"] = function()
    local queue = tcp.queue(1)
    queue:push("first")
    return function()
      return select(2, queue:try_push("second", 10)).kind
    end, function() queue:close() end, "closed"
  end,
  ["read, for a close"] = function()
    return read_and_close(transports.plain.pair())
  end,
  ["read, for a close, once it has been watched"] = function()
    local near, far = transports.plain.pair()
    tcp.run(function() far:try_read(1, { timeout = 0.001 }) end)
    return read_and_close(near, far)
  end,
  ["accept, for a close"] = function()
    local listener = tcp.listen("127.0.0.1", 0)
    return function() return select(2, listener:try_accept(10)).kind end, function() listener:close() end, "closed"
  end,
  ["join, for a cancel"] = function()
    local other = tcp.spawn(tcp.sleep, 60)
    return function() return select(2, other:try_join(10)).kind end, function() other:cancel() end, "cancelled"
  end,
}

--- Calls `wait`, and `act` at its `n`th instruction, or at the latest when it has begun to wait. Gives whether it was
-- in time for the hook.
local function with_hook(n, wait, act)
  local count, is_done, by_hook = 0, false, false
  local function once()
    if not is_done then
      is_done = true
      act()
    end
  end
  tcp.spawn(function()
    tcp.sleep(0)
    tcp.sleep(0)
    -- On LuaJIT the hook is everybody's: it must not strike in the middle of this.
    debug.sethook()
    once()
  end)
  debug.sethook(function()
    count = count + 1
    if count == n then
      debug.sethook()
      by_hook = not is_done
      once()
    end
  end, "", 1)
  local value = wait()
  debug.sethook()
  return value, by_hook
end

describe("a wait notices what comes just before it:", function()
  for name, prepare in pairs(WAITS) do
    for place, run in pairs { ["in a task"] = tcp.run, ["outside tasks"] = function(fn) return fn() end } do
      it(name .. " " .. place, function()
        local n, by_hook, value = 0, nil, nil
        repeat
          n = n + 1
          local wait, act, expected = prepare()
          run(function() value, by_hook = with_hook(n, wait, act) end)
          tcp.run()
          assert.equal(expected, value, "at instruction " .. n)
        until not by_hook
        assert.is_true(n > 20, "the hook was called for " .. n .. " instructions only")
      end)
    end
  end
end)
