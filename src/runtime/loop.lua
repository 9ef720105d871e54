-- The loop: runs the tasks that are ready, waits for what makes others so, and says who may wait where.
--
-- A wait begins with `enter`, which says whether there is anything to wait for. Then the context is given its place
-- (contexts.lua), and `park` comes back with the outcome once it has been woken. The loop runs where code outside tasks
-- waits, never in a task.

local core, errors, signals, contexts, scopes, suspension = ...

local collectgarbage, error, next, pcall, select, type = collectgarbage, error, next, pcall, select, type
local create, isyieldable, resume, running, status, yield =
  coroutine.create, coroutine.isyieldable, coroutine.resume, coroutine.running, coroutine.status, coroutine.yield
-- Only where Lua has variables that are to be closed.
local close_coroutine = coroutine.close
local interrupted = signals.interrupted
local now, rouse, wait_for_any, watch = core.now, core.rouse, core.wait_for_any, core.watch
local set_alarm_at = core.set_alarm
local hooks_are_shared = core.hooks_are_shared
local outside, within, reading, slots = contexts.outside, contexts.within, contexts.reading, contexts.slots
local make_ready, release, set_time, wake = contexts.make_ready, contexts.release, contexts.set_time, contexts.wake
local ADVICE, WAIT, pause, suspend, wrapped =
  suspension.ADVICE, suspension.WAIT, suspension.pause, suspension.suspend, suspension.wrapped
local READY, TIMED_OUT, CANCELLED, OVERDUE = contexts.READY, contexts.TIMED_OUT, contexts.CANCELLED, contexts.OVERDUE
local INTERRUPTED = 1

local _ENV = nil -- luacheck: ignore

local loop = {
  -- The task that is running.
  current = nil,
  -- How many tasks have not ended, and how many of the module's own.
  live = 0,
  quiet = 0,
  -- Called with a server's task that has ended, and the traceback of its failure.
  handler_ended = nil,
  -- Raised by the loop where every task waits for what cannot come, and told where the wait was called.
  STUCK = {},
}

local looping = false
-- Another loop watches `tcp.pollfd()`.
local is_watched = false

--- Raises the advice for an `op` that cannot wait where it was called.
local function misplaced(context, op, problem)
  release(context)
  context.op = nil
  return errors.misuse("", "cannot wait " .. (ADVICE[problem] or ADVICE.boundary)(op), "")
end

---------------------------------------------------------------------------------------------------------------------
-- Running tasks

local NOTHING = { n = 0 }

local function pack(...)
  local count = select("#", ...)
  return count == 0 and NOTHING or { n = count, ... }
end

--- What is said of a failure: the error as text, and the stack it came from.
local function trace(task, failure)
  return { value = failure, text = errors.task_traceback(task.thread, errors.text(failure)) }
end

local function finish(task, ok, ...)
  release(task)
  contexts.remove(task)
  if task.is_quiet then
    loop.quiet = loop.quiet - 1
  else
    loop.live = loop.live - 1
  end
  local is_told, traceback = task.first ~= nil or task.is_cancelled or task.server, nil
  if ok then
    task.results = pack(...)
  else
    task.failure = pack((...))
    if not task.is_cancelled then
      traceback = trace(task, ...)
      errors.last_of_task = traceback
    end
    if close_coroutine then
      close_coroutine(task.thread)
    end
  end
  task.is_ended, task.thread = true, nil
  if task.first then
    contexts.wake_all(task)
  end
  if task.server then
    loop.handler_ended(task, traceback and traceback.text)
  end
  if not ok and not is_told then
    loop.report(task, task.failure[1], traceback.text)
  end
  if loop.live == 0 and loop.quiet == 0 and outside.waits_for_all then
    wake(outside)
  end
end

loop.finish = finish

local LOST = "coroutine.yield in a task gives its values to nobody: use tcp.sleep(0) to let others run, "
  .. "and tcp.wrap for coroutines of your own"

--- Where hooks belong to all coroutines, Ctrl-C strikes in whichever runs, but it is meant for the whole program.
function loop.is_interrupt(err)
  return hooks_are_shared and type(err) == "string" and err:find("interrupted!$") ~= nil
end

--- What a coroutine has failed with: as it was raised, also where a hook struck in the middle of a function in Rust.
function loop.raised(problem)
  return type(problem) == "userdata" and core.raised(problem) or problem
end

local function came_back(task, ok, ...)
  local mark = (...)
  loop.current = nil
  if ok and mark == WAIT then
    return
  elseif status(task.thread) == "suspended" then
    if ok then
      return finish(task, false, LOST)
    end
    -- It was not resumed at all: there is no room for another coroutine on top of those that are running.
    make_ready(task)
    return error(mark, 0)
  end
  if ok then
    return finish(task, true, ...)
  end
  local problem = loop.raised(mark)
  if loop.is_interrupt(problem) then
    task.is_cancelled = true
    finish(task, false, problem)
    return error(problem, 0)
  end
  return finish(task, false, problem)
end

--- The body of every task: until it is begun, its arguments wait where they belong, on its stack.
local function body(fn, ...)
  yield()
  return fn(...)
end

--- Makes a task; `is_quiet`: of the module's own. It begins when the caller next waits.
function loop.spawn(fn, is_quiet, ...)
  local task = { thread = create(body), is_new = true, is_quiet = is_quiet or nil }
  local ok, problem = resume(task.thread, fn, ...)
  if not ok then
    -- A hook has struck in it.
    return error(loop.raised(problem), 0)
  end
  contexts.add(task)
  if is_quiet then
    loop.quiet = loop.quiet + 1
  else
    loop.live = loop.live + 1
  end
  make_ready(task)
  return task
end

-- The tasks of the round that is under way.
local batch, batch_at, batch_count = {}, 1, 0

--- Runs every task that was ready before. What an error leaves undone is done by the next call.
local function run_batch()
  if batch_at > batch_count then
    local tasks, count = contexts.take_ready(batch)
    batch, batch_at, batch_count = tasks, 1, count
  end
  while batch_at <= batch_count do
    local at = batch_at
    local task = batch[at]
    batch_at, batch[at] = at + 1, nil
    if task and not task.is_ended and not task.place then
      loop.current, task.is_new = task, nil
      -- Who was about to begin may just have been cancelled.
      local thread = task.thread
      if thread then
        came_back(task, resume(thread))
      else
        loop.current = nil
      end
    end
  end
end

---------------------------------------------------------------------------------------------------------------------
-- Turning

loop.release = release

--- Whether code outside tasks can wait without the loop.
function loop.is_alone()
  return loop.live == 0 and loop.quiet == 0
end

-- How often in a row the system is not asked, because code outside tasks has what it waited for.
local HASTE = 16
local hasty = 0

--- One round: runs who is ready, then waits for what comes next, at most until `limit` (nil: as long as it takes).
-- `is_step`: nobody outside tasks waits for anything but them.
local function turn(limit, is_step)
  run_batch()
  if interrupted() then
    return error("interrupted!", 0)
  end
  if not is_step and not outside.place then
    hasty = hasty + 1
    if hasty < HASTE then
      return
    end
    hasty = 0
  end
  -- A finalizer may make somebody ready between the look and the wait.
  contexts.ring = rouse
  if contexts.is_any_ready() or is_step and loop.is_alone() or not is_step and not outside.place then
    limit = 0
  elseif limit == nil and not contexts.is_any_waiting() then
    return loop.stuck()
  end
  local came = wait_for_any(limit)
  contexts.ring = nil
  if came == INTERRUPTED and interrupted() then
    return error("interrupted!", 0)
  end
  contexts.wake_ready()
  contexts.wake_due()
end

local function turn_until_woken()
  while outside.place do
    turn()
  end
end

--- One round for `tcp.step`.
local function step(limit)
  turn(limit, true)
  -- Who has been woken need not wait for the next call.
  run_batch()
end

-- The loop turns in a coroutine of its own: where an interpreter's Ctrl-C strikes in the main one only, it cannot leave
-- half done what the loop was doing.
local function keep_turning(run, limit)
  while true do
    looping, contexts.ring = true, nil
    local ok, err = pcall(run, limit)
    looping, contexts.ring = false, is_watched and set_alarm_at or nil
    run, limit = yield(ok, err)
  end
end

local turner = create(keep_turning)

--- Puts right what an error has left: it came from outside, between two of the loop's own steps.
local function recover()
  local task = loop.current
  if task then
    loop.current = nil
    if not task.place and not task.is_ended and status(task.thread) == "suspended" then
      make_ready(task)
    end
  end
  if hooks_are_shared then
    -- It may have struck between an event and who waits for it.
    contexts.rouse_all()
  end
  release(outside)
  outside.waits_for_all = nil
  if outside.gift ~= nil then
    loop.take_back(outside.giver, outside.gift)
    outside.gift = nil
  end
end

-- The last task has ended where `tcp.step` could not say so: whoever drives the loop by its descriptor has to hear of
-- it.
local has_ended = false

--- Has the loop's descriptor become readable when the next round is worth while.
local function set_alarm()
  set_alarm_at((has_ended or contexts.is_any_ready()) and 0 or core.next_timer())
end

local function locked(run, limit)
  local were_tasks = loop.live > 0
  local resumed, ok, err = resume(turner, run, limit)
  if were_tasks and loop.live == 0 then
    has_ended = true
  end
  if not resumed then
    ok, err = false, ok
    if status(turner) == "dead" then
      turner = create(keep_turning)
      looping, contexts.ring = false, is_watched and set_alarm_at or nil
    end
  end
  if is_watched then
    set_alarm()
  end
  if ok then
    if loop.is_alone() then
      contexts.disarm(outside)
    end
    return
  end
  recover()
  if err == loop.STUCK then
    return errors.misuse("", err.text, "")
  end
  return error(loop.raised(err), 0)
end

--- Raises the advice if the loop itself has called who runs.
function loop.must_be_outside(op)
  if loop.context() == within then
    return misplaced(within, op, "loop")
  end
end

--- One round from outside tasks, at most until `limit`. Whether there are tasks left.
function loop.step(limit)
  loop.must_be_outside("step")
  outside.op = "step"
  locked(step, (scopes.limit(outside, limit)))
  if has_ended then
    has_ended = false
    if is_watched then
      set_alarm()
    end
  end
  return loop.live > 0
end

--- Has `tcp.pollfd()` become readable whenever `loop.step` is worth while.
function loop.watch_from_outside()
  is_watched, contexts.ring = true, set_alarm_at
  set_alarm()
end

---------------------------------------------------------------------------------------------------------------------
-- Waiting

--- Lets others run, unless this cannot be done here. Never fails.
function loop.pass()
  local task = loop.current
  if task then
    make_ready(task)
    if pause(task) then
      contexts.unmake_ready()
    end
  elseif not looping and not loop.is_alone() then
    locked(step, 0)
  end
end

--- Who it is that runs.
function loop.context()
  return loop.current or looping and within or outside
end

--- Before a wait in `op` until `expiry`: the context, the moment when it ends and the outcome then. If there is
-- nothing to wait for, nil and the outcome.
function loop.enter(op, expiry)
  local context = loop.context()
  if context == within then
    return misplaced(within, op, "loop")
  elseif context.place or context.list or context.links or (context.reads or context.ticket) and context.op ~= op then
    -- An error has cut another operation.
    release(context)
  end
  context.waits_for_all, context.outcome = nil, nil
  if context.is_cancelled then
    -- Whoever does not heed that holds up nobody.
    loop.pass()
    return nil, CANCELLED
  end
  local at, scope = scopes.limit(context, expiry)
  context.strikes = scope
  if at and at <= now() then
    if scope then
      scope.has_struck = true
    end
    loop.pass()
    return nil, scope and OVERDUE or TIMED_OUT
  end
  return context, at, scope and OVERDUE or TIMED_OUT
end

--- How a wait has ended. `problem`: it could not begin.
local function after_pause(context, op, problem)
  if problem then
    return misplaced(context, op, problem)
  end
  local result = context.outcome or READY
  context.outcome = nil
  if result == OVERDUE then
    context.strikes.has_struck = true
  end
  return result
end

--- Waits in the place that the context has been given.
function loop.park(context, op, expiry, on_time)
  context.op = op
  if context.is_cancelled and context.place then
    -- It has been cancelled meanwhile, and nobody has woken it before.
    contexts.unlink(context)
    return CANCELLED
  end
  if expiry then
    set_time(context, expiry, on_time)
  end
  if context == outside then
    return after_pause(context, op, locked(turn_until_woken))
  end
  return after_pause(context, op, pause(context))
end

--- Waits for the descriptor of `target`, which has a slot, alone.
function loop.park_at(context, place, slot, target, op, expiry, on_time)
  context.place, context.key, context.op = place, slot, op
  place[slot] = context
  if context.is_cancelled or slots[target] ~= slot and watch(target) ~= slot then
    -- It has been cancelled, or the target closed, meanwhile.
    contexts.unlink(context)
    return context.is_cancelled and CANCELLED or READY
  end
  if expiry then
    set_time(context, expiry, on_time)
  end
  if context == outside then
    return after_pause(context, op, locked(turn_until_woken))
  end
  local thread, problem = running(), "coroutine"
  if thread == context.thread or wrapped[thread] then
    if not isyieldable then
      problem = suspend()
    elseif isyieldable() then
      problem = yield(WAIT)
    else
      problem = "boundary"
    end
  end
  if problem or context.outcome then
    return after_pause(context, op, problem)
  end
  return READY
end

--- Forgets tasks that ended before they began, where no other will come and take them away.
function loop.forget_ended()
  if loop.is_alone() and not looping and not loop.current then
    contexts.take_ready({})
    batch, batch_at, batch_count = {}, 1, 0
  end
end

--- Waits until no task is left.
function loop.park_for_all()
  local context, expiry, on_time = loop.enter("run")
  if not context then
    return expiry
  end
  outside.waits_for_all = true
  contexts.stay(outside)
  local result = loop.park(outside, "run", expiry, on_time)
  outside.waits_for_all = nil
  return result
end

--- What is counted when everything has to be over.
function loop.counts()
  return {
    tasks = loop.live, quiet = loop.quiet, registrations = core.registrations(), timers = core.timers(),
    reading = next(reading) and 1 or 0, waiting = (next(contexts.readers) or next(contexts.writers)) and 1 or 0,
    memory = collectgarbage("count"),
  }
end

return loop
