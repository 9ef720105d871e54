-- Suspending a task, and what is said where that cannot be done.

local core = ...

local error, pcall, setmetatable, string, tostring = error, pcall, setmetatable, string, tostring
local isyieldable, running, coroutine_wrap, yield =
  coroutine.isyieldable, coroutine.running, coroutine.wrap, coroutine.yield
local getinfo, getlocal = core.debug and core.debug.getinfo, core.debug and core.debug.getlocal
local xpcall_function, pcall_function = xpcall, pcall
-- Only on plain Lua 5.1, and only if its state is laid out as it should be. Otherwise a wait is tried, and it is Lua
-- that says why it cannot be.
local can_suspend = core.can_suspend
if can_suspend then
  local in_callback
  local in_coroutine = coroutine_wrap(function()
    string.gsub("x", "x", function()
      in_callback = can_suspend()
    end)
    return can_suspend()
  end)()
  if not in_coroutine or in_callback then
    function can_suspend() return true end
  end
end

local _ENV = nil -- luacheck: ignore

-- What a task yields when it waits. Nobody else has it, and no metamethod is asked whether something equals it.
local WAIT = core.WAITS

-- Coroutines whose waits pass through to their task.
local wrapped = setmetatable({}, { __mode = "k" })

-- Each of these gives nothing once the loop resumes the task, and otherwise names the problem.
local suspend
if isyieldable then
  function suspend()
    if not isyieldable() then
      return "boundary"
    end
    return yield(WAIT)
  end
elseif can_suspend then
  function suspend()
    if not can_suspend() then
      return "boundary"
    end
    return yield(WAIT)
  end
else
  function suspend()
    local ok, problem = pcall(yield, WAIT)
    if ok then
      return problem
    elseif tostring(problem):find("attempt to yield", 1, true) then
      return "boundary"
    end
    -- A hook has struck.
    return error(problem, 0)
  end
end

--- Suspends `task`, which is running. What it gives names what stands in the way.
local function pause(task)
  local thread = running()
  if thread ~= task.thread and not wrapped[thread] then
    return "coroutine"
  end
  return suspend()
end

-- What an iterator calls, where a loop of one's own has to call it.
local INSTEAD = {
  lines = "read_line", chunks = "recv", packets = "read_packet", json_packets = "read_json_packet",
  json_values = "read_json", connections = "accept", values = "pop",
}

local function is_ours(info)
  return info.source:sub(1, 5) == "=tcp/"
end

--- Whether the function at a level of plain Lua 5.1's stack is in a for loop, though an iterator that made a tail call
-- has lost its name.
local function has_generator(level)
  if not getinfo(level + 1, "l") then
    return false
  end
  local i = 1
  local name = getlocal(level + 1, i)
  while name and name ~= "(for generator)" do
    i = i + 1
    name = getlocal(level + 1, i)
  end
  return name ~= nil
end

local function in_a_loop(op)
  return "in a for loop on Lua 5.1: use while" .. (op == "sleep" and "" or " and try_" .. (INSTEAD[op] or op))
end

--- What stands between the wait and the bottom of its coroutine. Only plain 5.1 minds what the interpreter calls.
local function boundary(op)
  local level = 2
  local info = getinfo and getinfo(level, "nSf")
  while info do
    local is_pcall = info.func == pcall_function or info.func == xpcall_function
    if can_suspend and info.name == "(for generator)" then
      return in_a_loop(op)
    elseif can_suspend and is_pcall then
      return "in pcall on Lua 5.1: use tcp.pcall"
    elseif can_suspend and info.what == "tail" and has_generator(level + 1) then
      return in_a_loop(op)
    elseif info.what == "C" and not is_pcall then
      return ("in a callback of %s: wait before or after it"):format(info.name or "a C function")
    elseif info.namewhat == "metamethod" and info.name:find("gc$") then
      return "in a finalizer: spawn a task"
    end
    level = level + 1
    info = getinfo(level, "nSf")
  end
  if can_suspend then
    return "in a metamethod or a finalizer on Lua 5.1: wait before, or spawn a task"
  end
  return "here: something that is not Lua is between this call and its task"
end

local ADVICE = {
  coroutine = function()
    return "in a coroutine of the script's own inside a task: make it with tcp.wrap"
  end,
  loop = function()
    return "in on_error or a finalizer: spawn a task"
  end,
  boundary = boundary,
}

return {
  ADVICE = ADVICE,
  WAIT = WAIT,
  is_ours = is_ours,
  pause = pause,
  suspend = suspend,
  wrapped = wrapped,
}
