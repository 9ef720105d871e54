-- Coroutines of the script's own whose waits pass through to their task, and the pcall for Lua 5.1 made of them.

local core, errors, loop = ...

local create, pcall, resume, running, select, status, type, yield =
  coroutine.create, pcall, coroutine.resume, coroutine.running, select, coroutine.status, type, coroutine.yield
local error = error
local WAIT, pause, wrapped = loop.WAIT, loop.pause, loop.wrapped

local _ENV = nil -- luacheck: ignore

local coroutines = {}

local pump

--- What a coroutine that was resumed has come to: a wait is the task's, anything else is the caller's.
local function came_back(co, ok, mark, ...)
  if ok and mark == WAIT and loop.current and status(co) == "suspended" then
    return pump(co, pause())
  end
  return ok, mark, ...
end

function pump(co, ...)
  return came_back(co, resume(co, ...))
end

--- A coroutine has the with_timeout that it was in when it was left.
local function resume_in_scope(co, scopes, ...)
  local context = loop.current or loop.outside
  local around = context.scope
  context.scope = scopes[co] or around
  local function leave(...)
    local left = loop.current or loop.outside
    scopes[co] = left.scope ~= around and left.scope or nil
    left.scope = around
    return ...
  end
  return leave(pump(co, ...))
end

local function give_or_raise(ok, ...)
  if ok then
    return ...
  end
  return error((...), 0)
end

local function check_function(name, fn)
  if type(fn) ~= "function" then
    return errors.misuse(name, "bad argument #1 to '", "' (function expected, got " .. core.type_name(fn) .. ")")
  end
end

--- `coroutine.wrap` whose waits pass through to the task.
function coroutines.wrap(fn)
  check_function("wrap", fn)
  local co, scopes = create(fn), {}
  wrapped[co] = true
  return function(...)
    return give_or_raise(resume_in_scope(co, scopes, ...))
  end
end

coroutines.pcall = pcall

if core.can_suspend then
  -- Passes on what the function itself yields, too: it may be the body of a generator.
  local function came_back_from_pcall(co, ok, ...)
    if ok and status(co) == "suspended" then
      return came_back_from_pcall(co, pump(co, yield(...)))
    end
    return ok, ...
  end

  --- `pcall` that may be waited in on plain Lua 5.1.
  function coroutines.pcall(fn, ...)
    if not loop.current or select("#", fn, ...) == 0 then
      return pcall(fn, ...)
    end
    local thread = running()
    if thread ~= loop.current.thread and not wrapped[thread] then
      return pcall(fn, ...)
    end
    local ok, co = pcall(create, fn)
    if not ok then
      -- Not a Lua function: it has no waits that could pass through.
      return pcall(fn, ...)
    end
    wrapped[co] = true
    return came_back_from_pcall(co, pump(co, ...))
  end
end

return coroutines
