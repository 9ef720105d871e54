-- Tasks: what runs beside what. How they wait is in loop.lua.

local core, errors, contexts, scopes, loop, waiting, coroutines = ...

local error, getmetatable, pairs, pcall, rawget, select, setmetatable, tonumber, tostring, type =
  error, getmetatable, pairs, pcall, rawget, select, setmetatable, tonumber, tostring, type
local unpack = table.unpack or unpack
local misuse, raise = errors.misuse, errors.raise
local cut, moment, now = core.cut, core.moment, core.now
local self_name, type_name = core.self_name, core.type_name
local PENDING, outcome = core.PENDING, core.outcome
local expiry_of = waiting.expiry_of
local READY, CANCELLED = contexts.READY, contexts.CANCELLED

local _ENV = nil -- luacheck: ignore

local tasks = {}

-- What scripts hold of a task. The context itself, which is asked for absent fields all the time, has no metatable.
local Task = { __name = "Task" }
local methods = {}
Task.__index = methods

--- The context of a task.
local function context_of(name, self)
  if type(self) ~= "table" or getmetatable(self) ~= Task then
    return misuse(name, "bad self to '", "' (Task expected, got " .. self_name(self) .. "; use ':')")
  end
  return self[1]
end

local function is_callable(value)
  local metatable = type(value) ~= "function" and getmetatable(value)
  return type(value) == "function" or type(metatable) == "table" and rawget(metatable, "__call") ~= nil
end

--- A function that does what `fn` does when it is called.
local function function_of(name, position, fn)
  if type(fn) == "function" then
    return fn
  elseif is_callable(fn) then
    return function(...)
      return fn(...)
    end
  end
  return misuse(name, "bad argument #" .. position .. " to '", "' (function expected, got " .. type_name(fn) .. ")")
end

tasks.function_of = function_of

---------------------------------------------------------------------------------------------------------------------
-- One task

local function spawn(name, fn, ...)
  fn = function_of(name, 1, fn)
  local context = loop.spawn(fn, false, ...)
  local task = setmetatable({ context, fn }, Task)
  context.handle = task
  return task
end

function tasks.spawn(fn, ...)
  return spawn("spawn", fn, ...)
end

function methods.status(self)
  local context = context_of("status", self)
  if context.is_cancelled then
    return "cancelled"
  elseif context.is_ended then
    return context.results and "done" or "failed"
  end
  return loop.current == context and "running" or "waiting"
end

--- For good: its current and every later wait ends. If it has not begun, it never will.
function tasks.cancel(context)
  if context.is_ended then
    return
  end
  context.is_cancelled, context.is_limited = true, true
  if context.is_new then
    loop.finish(context, true)
    loop.forget_ended()
  else
    contexts.wake(context, CANCELLED)
  end
end

function methods.cancel(self)
  return tasks.cancel(context_of("cancel", self))
end

function Task:__tostring()
  return ("Task (%s)"):format(methods.status(self))
end

--- Whether `task` waits, directly or not, for the end of the context that asks.
local function waits_for(task, context)
  while task do
    if task == context then
      return true
    end
    task = task.joins
  end
  return false
end

local function cancelled(task)
  local err = cut(nil, "join", CANCELLED)
  err.task = task.handle
  if task.failure and not errors.is_error(task.failure[1], "cancelled") then
    err.message = err.message .. ", and failed then: " .. errors.text(task.failure[1])
  end
  return err
end

--- How a task ended: whether it succeeded, whether the failure is an error object of this join, what it gave.
local function result_of(task)
  if task.is_cancelled then
    return false, true, cancelled(task)
  elseif task.failure then
    return false, false, task.failure[1]
  end
  return true, false, unpack(task.results, 1, task.results.n)
end

local function join(name, self, timeout)
  local task = context_of(name, self)
  local expiry = expiry_of(name, 1, timeout)
  local context = loop.context()
  if waits_for(task, context) then
    local problem = task == context and "a task cannot wait for itself" or "that task waits for this one"
    return misuse(name, "bad self to '", "' (" .. problem .. ")")
  end
  local op = name == "run" and "run" or "join"
  if not task.is_ended then
    local waiter, at, on_time = loop.enter(op, expiry)
    local ended = at
    if waiter then
      waiter.joins = task
      contexts.append(waiter, task)
      if task.is_ended then
        contexts.unlink(waiter)
        ended = READY
      else
        ended = loop.park(waiter, op, at, on_time)
      end
    end
    if ended ~= READY then
      return false, true, cut(nil, op, ended)
    end
  end
  return result_of(task)
end

local function give_or_raise(ok, is_own, ...)
  if ok then
    return ...
  elseif is_own then
    return raise((...))
  end
  return error((...), 0)
end

local function give(ok, _, ...)
  if not ok then
    return nil, (...)
  elseif select("#", ...) == 0 then
    return true
  end
  return ...
end

function methods.join(self, timeout)
  return give_or_raise(join("join", self, timeout))
end

function methods.try_join(self, timeout)
  return give(join("try_join", self, timeout))
end

--- What a task that failed has to say, where nobody waits for it.
function loop.report(task, failure, traceback)
  if task.is_quiet then
    return
  end
  local handler = rawget(tasks.module, "on_error")
  if handler ~= nil then
    local ok, problem = pcall(handler, failure, traceback, task.handle)
    if ok then
      return
    elseif loop.is_interrupt(problem) then
      return error(problem, 0)
    end
    core.report("tcp: on_error failed: " .. errors.text(problem))
  end
  local origin = loop.origin(task)
  core.report(("tcp: a task%s failed: %s"):format(origin and " (" .. origin .. ")" or "", traceback))
end

---------------------------------------------------------------------------------------------------------------------
-- All tasks

local function not_in_a_task(name)
  if loop.current then
    return misuse(name, "bad call of '", "' (in a task, where the loop runs already; use spawn and join)")
  end
  loop.must_be_outside(name)
end

--- Until no task is left; with a function, until that one has ended.
function tasks.run(fn, ...)
  not_in_a_task("run")
  if fn ~= nil or select("#", ...) > 0 then
    return give_or_raise(join("run", spawn("run", fn, ...)))
  end
  if not loop.is_alone() then
    local ended = loop.park_for_all()
    if ended ~= READY then
      return raise(cut(nil, "run", ended))
    end
  end
end

--- One round: runs what is ready, waits at most `timeout` seconds for more. Whether tasks are left.
function tasks.step(timeout)
  not_in_a_task("step")
  if timeout == nil then
    return loop.step(0)
  end
  return loop.step(expiry_of("step", 1, timeout))
end

function tasks.pollfd()
  local fd = core.loop_fd()
  if fd == PENDING then
    return raise((outcome()))
  end
  loop.watch_from_outside()
  return fd
end

---------------------------------------------------------------------------------------------------------------------
-- with_timeout

--- What comes after the function: the results, or who is to blame.
local function leave(context, scope, seconds, ok, ...)
  if not scopes.close(context, scope) then
    return ok, false, ...
  end
  local err = errors.new("timeout", "with_timeout", ("timed out after %s s"):format(tostring(tonumber(seconds))))
  if not ok and not errors.is_error((...), "cancelled") then
    err.message = err.message .. ", and failed then: " .. errors.text((...))
  end
  return false, true, err
end

local function with_timeout(name, seconds, fn, ...)
  local expiry = moment(seconds, 1, name)
  if expiry == PENDING then
    return misuse(name, outcome())
  end
  fn = function_of(name, 2, fn)
  local context = loop.context()
  local scope = scopes.open(context, expiry or 1 / 0)
  return leave(context, scope, seconds, coroutines.pcall(fn, ...))
end

function tasks.with_timeout(seconds, fn, ...)
  return give_or_raise(with_timeout("with_timeout", seconds, fn, ...))
end

function tasks.try_with_timeout(seconds, fn, ...)
  return give(with_timeout("try_with_timeout", seconds, fn, ...))
end

---------------------------------------------------------------------------------------------------------------------

--- Puts the functions into the module.
function tasks.install(module)
  tasks.module = module
  for _, name in pairs { "spawn", "run", "step", "pollfd", "with_timeout", "try_with_timeout" } do
    module[name] = tasks[name]
  end
  module.sleep, module.now = waiting.sleep, now
  module.wrap, module.pcall = coroutines.wrap, coroutines.pcall
end

return tasks
