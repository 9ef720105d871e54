-- Where a wait goes: outside tasks, one blocking wait that a signal brings back to Lua.

local core, errors = ...

local debug = core.debug
local coroutine_running, error = coroutine.running, error
local gethook, sethook = debug and debug.gethook, debug and debug.sethook
local hooks_are_shared = core.hooks_are_shared
local block, current_thread, timed_out = core.block, core.current_thread, core.timed_out
local PENDING, outcome = core.PENDING, core.outcome
local READY, TIMED_OUT = 0, 1

local _ENV = nil -- luacheck: ignore

local waiting = {}

-- The thread that the interpreter's SIGINT handler sets its hook on. The registry has it from Lua 5.2 on. Lua 5.1
-- does not tell in a coroutine which thread that is: there it is known if the module was loaded outside coroutines,
-- or else from the first wait outside them on.
local main_thread = core.main_thread_key and debug and debug.getregistry()[core.main_thread_key]

local function is_main()
  local thread, main = coroutine_running()
  if main == nil then
    main = thread == nil
  end
  if main and not main_thread then
    main_thread = current_thread()
  end
  return main
end

is_main()

-- After Ctrl-C an interpreter sets a hook that fires at the next instruction, but on its main thread only, unless
-- hooks belong to all threads, as on LuaJIT. In a coroutine the wait has to raise what the hook would have raised.
-- An interpreter's hook counts single instructions; debuggers and coverage tools count more, or lines.
local function interrupted()
  if hooks_are_shared or is_main() or not main_thread or not gethook then
    return false
  end
  local hook, mask, count = gethook(main_thread)
  if hook == "external hook" and count == 1 and mask:find("c", 1, true) then
    sethook(main_thread)
    return true
  end
  return false
end

--- Waits until `target` is worth another step. Gives false when `expiry` came first.
function waiting.wait(target, interest, expiry)
  while true do
    if interrupted() then
      return error("interrupted!", 0)
    end
    local woken = block(target, interest, expiry)
    if woken == READY then
      return true
    elseif woken == TIMED_OUT then
      return false
    end
  end
end

--- As `wait`; gives the error of operation `op` instead of false, and nothing otherwise.
function waiting.wait_or_error(target, interest, expiry, op)
  if not waiting.wait(target, interest, expiry) then
    return timed_out(target, op)
  end
end

--- Waits for nothing but time.
function waiting.sleep(seconds)
  local expiry = core.sleep(seconds)
  if expiry == PENDING then
    return errors.misuse("sleep", outcome())
  end
  waiting.wait(nil, 0, expiry)
end

return waiting
