-- Ctrl-C: what an interpreter's handler asks for has to happen in the coroutine that waits.

local core = ...

local debug = core.debug
local coroutine_running = coroutine.running
local gethook, sethook = debug and debug.gethook, debug and debug.sethook
local hooks_are_shared = core.hooks_are_shared
local current_thread = core.current_thread

local _ENV = nil -- luacheck: ignore

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

local signals = {}

--- Whether the wait has to raise what the hook would have raised. After Ctrl-C an interpreter sets a hook that fires
-- at the next instruction, but on its main thread only, unless hooks belong to all threads, as on LuaJIT.
-- An interpreter's hook counts single instructions; debuggers and coverage tools count more, or lines.
function signals.interrupted()
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

return signals
