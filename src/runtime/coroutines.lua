-- Coroutines of the script's own whose waits pass through to their task, and the pcall for Lua 5.1 made of them.

local core, errors, suspension, loop = ...

local create, resume, running, status, yield =
  coroutine.create, coroutine.resume, coroutine.running, coroutine.status, coroutine.yield
local pcall, select, tostring, type = pcall, select, tostring, type
local error, getmetatable, setmetatable = error, getmetatable, setmetatable
-- Only where Lua has variables that are to be closed.
local close = coroutine.close
local WAIT, pause, wrapped = suspension.WAIT, suspension.pause, suspension.wrapped

local _ENV = nil -- luacheck: ignore

local coroutines = {}

local pump

-- Coroutines whose wait is their task's just now: nobody else may resume them.
local waiting = setmetatable({}, { __mode = "k" })

--- Whether a coroutine is in the middle of a wait of its task's.
function coroutines.waits(co)
  return waiting[co] ~= nil
end

--- What a coroutine that was resumed has come to: a wait is the task's, anything else is the caller's.
local function came_back(co, ok, ...)
  if ok and (...) == WAIT and loop.current and status(co) == "suspended" then
    waiting[co] = true
    return pump(co, pause(loop.current))
  end
  return ok, ...
end

function pump(co, ...)
  if waiting[co] and status(co) == "dead" then
    -- Somebody has closed it in the middle of its wait.
    loop.release(loop.current)
  end
  waiting[co] = nil
  return came_back(co, resume(co, ...))
end

--- Lua 5.1 makes coroutines of Lua functions only: nil for anything else.
local function try_create(fn)
  local ok, co = pcall(create, fn)
  if ok then
    return co
  elseif not tostring(co):find("function expected", 1, true) then
    -- A hook has struck.
    return error(co, 0)
  end
end

local function create_any(fn)
  return try_create(fn) or create(function(...)
    return fn(...)
  end)
end

local function give_or_raise(co, ok, ...)
  if ok then
    return ...
  elseif close then
    close(co)
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
  local co = create_any(fn)
  wrapped[co] = true
  return function(...)
    if waiting[co] then
      return error("cannot resume non-suspended coroutine", 0)
    end
    return give_or_raise(co, pump(co, ...))
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
  function coroutines.pcall(...)
    local thread = loop.current and running()
    if not thread or thread ~= loop.current.thread and not wrapped[thread] or select("#", ...) == 0 then
      return pcall(...)
    end
    local fn = ...
    local co = try_create(fn)
    local metatable = type(fn) ~= "function" and getmetatable(fn)
    if not co and fn ~= yield and not (type(metatable) == "table" and metatable.__call) then
      -- It is not Lua, and has no waits that could pass through.
      return pcall(...)
    end
    co = co or create_any(fn)
    wrapped[co] = true
    return came_back_from_pcall(co, pump(co, select(2, ...)))
  end
end

return coroutines
