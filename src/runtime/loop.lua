-- The loop: who runs, who waits, and what wakes whom.
--
-- A *context* is whoever can wait: a task, or `outside`, the code that is in none. A context waits in one place at a
-- time. `enter` says whether it may, its place is linked (a slot of the reactor, a list, …), and `park` comes back
-- with the outcome once `wake` has given one. The loop itself runs where code outside tasks waits, never in a task.
--
-- A context's fields while it waits: `op`, `expiry`, `on_time` (the outcome when time is up), `place` (`readers` or
-- `writers`, where it is alone at the slot `key`; or ELSEWHERE, with `links` and `key`, or `list`), and then `outcome`,
-- unless that is READY. Beyond a single wait: `reads` (the connection it reads from), `writes` and `ticket` (a queued
-- write of its own), `scopes` (its with_timeouts, by coroutine), `is_limited` (it has some, or was cancelled), `armed`
-- (its timer).

local core, errors, signals = ...

local collectgarbage, error, next, pcall, select, setmetatable, string, type =
  collectgarbage, error, next, pcall, select, setmetatable, string, type
local create, resume, running, status, coroutine_wrap, yield =
  coroutine.create, coroutine.resume, coroutine.running, coroutine.status, coroutine.wrap, coroutine.yield
local isyieldable = coroutine.isyieldable
local getinfo, getlocal = core.debug and core.debug.getinfo, core.debug and core.debug.getlocal
local xpcall_function, pcall_function = xpcall, pcall
local interrupted = signals.interrupted
local now, outcome = core.now, core.outcome
local arm_timer, disarm_timer, take_due = core.arm, core.disarm, core.take_due
local wait_for_any, next_ready = core.wait_for_any, core.next_ready
local hooks_are_shared = core.hooks_are_shared
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

local READY, TIMED_OUT, CANCELLED, OVERDUE = 0, 1, 2, 3
local INTERRUPTED = 1

-- What a task yields when it waits. Nobody else has it.
local WAIT = {}

-- The place of a context that does not wait alone for a descriptor.
local ELSEWHERE = {}

local outside = { op = "run", id = 0, is_limited = true }
-- Code that the loop itself calls: on_error, and finalizers that strike in it. It cannot wait.
local within = { op = "run" }

local loop = {
  READY = READY,
  TIMED_OUT = TIMED_OUT,
  CANCELLED = CANCELLED,
  OVERDUE = OVERDUE,
  WAIT = WAIT,
  outside = outside,
  -- The task that is running.
  current = nil,
  -- How many tasks have not ended, and how many of the module's own.
  live = 0,
  quiet = 0,
  -- Who waits on a slot of the reactor: a context, or a list of them.
  readers = {},
  writers = {},
  -- Who is in the middle of reading from a connection.
  reading = {},
  -- Coroutines whose waits pass through to their task.
  wrapped = setmetatable({}, { __mode = "k" }),
}

local readers, writers, reading, wrapped = loop.readers, loop.writers, loop.reading, loop.wrapped

-- How many wait for a descriptor, how many for time, and how many have a timer.
local watching, timed, armed = 0, 0, 0
-- Contexts by their number, all that have not ended, and numbers to be given again.
local by_id = { [0] = outside }
local last_id = 0
local free_ids, free_count = {}, 0

-- Tasks to be run next, and those of the round that is under way.
local ready, ready_count = {}, 0
local batch, batch_at, batch_count = {}, 1, 0

local looping = false
-- Another loop watches `tcp.pollfd()`.
local is_watched = false

---------------------------------------------------------------------------------------------------------------------
-- Where a context waits

--- Waits where only another context can come: `links[key]` is the place.
function loop.link(context, links, key)
  context.links, context.key = links, key
  links[key] = context
end

--- Waits behind the others of a list.
function loop.append(context, list)
  context.list = list
  local last = list.last
  context.before, context.behind = last, nil
  if last then
    last.behind = context
  else
    list.first = context
  end
  list.last = context
end

--- Waits for the descriptor of a slot, together with others.
function loop.append_watching(context, list, slot)
  readers[slot] = list
  loop.append(context, list)
  watching = watching + 1
  context.is_watching = true
end

local function leave(context, list)
  local before, behind = context.before, context.behind
  if before then
    before.behind = behind
  else
    list.first = behind
  end
  if behind then
    behind.before = before
  else
    list.last = before
  end
  context.list, context.before, context.behind = nil, nil, nil
end

local function unlink(context)
  local place, links, list = context.place, context.links, context.list
  if place == readers or place == writers then
    place[context.key] = nil
    watching = watching - 1
  elseif links then
    links[context.key] = nil
    context.links = nil
  elseif list then
    leave(context, list)
  end
  if context.is_watching then
    context.is_watching = false
    watching = watching - 1
  end
  if context.expiry then
    context.expiry = nil
    timed = timed - 1
  end
  context.place, context.joins = nil, nil
end

--- Lets go of what a context holds beyond a wait, when its operation ends in the middle.
local function release(context)
  local conn, ticket = context.reads, context.ticket
  if context.place then
    unlink(context)
  end
  if conn then
    context.reads = nil
    reading[conn] = nil
  end
  if ticket then
    conn = context.writes
    context.writes, context.ticket = nil, nil
    core.write_cut(conn, ticket, "write", CANCELLED)
    outcome()
    loop.next_turn(conn)
  end
end

loop.release = release

---------------------------------------------------------------------------------------------------------------------
-- Time: a context's timer stays when the wait ends early, and is set anew only for an earlier moment. What is waited
-- for again and again with the same timeout sets one timer in all that time.

local function arm(context, expiry)
  local before = context.armed
  if before then
    disarm_timer(context.id, before)
  else
    armed = armed + 1
  end
  context.armed = expiry
  arm_timer(context.id, expiry)
end

local function disarm(context)
  if context.armed then
    disarm_timer(context.id, context.armed)
    context.armed = nil
    armed = armed - 1
  end
end

---------------------------------------------------------------------------------------------------------------------
-- Waking

local function make_ready(task)
  ready_count = ready_count + 1
  ready[ready_count] = task
  if is_watched and not looping then
    core.set_alarm(0)
  end
end

loop.make_ready = make_ready

local function wake(context, result)
  if context.place then
    unlink(context)
    context.outcome = result
    if context ~= outside then
      make_ready(context)
    end
  end
end

loop.wake = wake

--- Wakes whoever waits on a slot, or in a list.
local function wake_all(waiter)
  if waiter.place then
    return wake(waiter)
  end
  local context = waiter.first
  while context do
    wake(context)
    context = waiter.first
  end
end

loop.wake_all = wake_all

local function wake_due()
  local id = take_due()
  while id do
    local context = by_id[id]
    local at, expiry = context.armed, context.expiry
    context.armed = nil
    armed = armed - 1
    if expiry and expiry <= at then
      wake(context, context.on_time)
    elseif expiry then
      arm(context, expiry)
    end
    id = take_due()
  end
end

---------------------------------------------------------------------------------------------------------------------
-- What cannot wait, and what to do instead

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

--- Raises the advice for an `op` that cannot wait where it was called.
local function misplaced(context, op, problem)
  release(context)
  return errors.misuse("", "cannot wait " .. ADVICE[problem](op), "")
end

---------------------------------------------------------------------------------------------------------------------
-- Suspending a task. Each of these gives nothing once it is resumed by the loop, and otherwise names the problem.

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
    if not ok then
      return "boundary"
    end
    return problem
  end
end

local function pause()
  local thread = running()
  if thread ~= loop.current.thread and not wrapped[thread] then
    return "coroutine"
  end
  return suspend()
end

loop.pause = pause

---------------------------------------------------------------------------------------------------------------------
-- Running tasks

local NOTHING = { n = 0 }

local function pack(...)
  local count = select("#", ...)
  return count == 0 and NOTHING or { n = count, ... }
end

local function finish(task, ok, ...)
  release(task)
  disarm(task)
  if task.is_quiet then
    loop.quiet = loop.quiet - 1
  else
    loop.live = loop.live - 1
  end
  by_id[task.id] = nil
  free_count = free_count + 1
  free_ids[free_count] = task.id
  task.is_ended = true
  if ok then
    task.results = pack(...)
  else
    task.failure = pack((...))
  end
  local thread = task.thread
  task.thread = nil
  local is_told = task.first ~= nil or task.is_cancelled
  if task.first then
    wake_all(task)
  end
  if not ok and not is_told then
    loop.report(task, task.failure[1], thread)
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

local function came_back(task, ok, ...)
  local mark = (...)
  loop.current = nil
  if ok and mark == WAIT then
    return
  elseif ok and status(task.thread) == "suspended" then
    return finish(task, false, LOST)
  end
  if not ok and loop.is_interrupt(mark) then
    task.is_cancelled = true
    finish(task, false, mark)
    return error(mark, 0)
  end
  return finish(task, ok, ...)
end

--- The body of every task: until it is begun, its arguments wait where they belong, on its stack.
local function body(fn, ...)
  yield()
  return fn(...)
end

--- Makes a task; `is_quiet`: of the module's own. It begins when the caller next waits.
function loop.spawn(fn, is_quiet, ...)
  local id = last_id + 1
  if free_count > 0 then
    id = free_ids[free_count]
    free_count = free_count - 1
  else
    last_id = id
  end
  local task = { thread = create(body), id = id, is_new = true, is_quiet = is_quiet or nil }
  by_id[id] = task
  resume(task.thread, fn, ...)
  if is_quiet then
    loop.quiet = loop.quiet + 1
  else
    loop.live = loop.live + 1
  end
  make_ready(task)
  return task
end

--- Runs every task that was ready before. What an error leaves undone is done by the next call.
local function run_batch()
  if batch_at > batch_count then
    batch, ready = ready, batch
    batch_at, batch_count, ready_count = 1, ready_count, 0
  end
  while batch_at <= batch_count do
    local at = batch_at
    batch_at = at + 1
    local task = batch[at]
    batch[at] = nil
    if not task.is_ended then
      loop.current, task.is_new = task, nil
      came_back(task, resume(task.thread))
    end
  end
end

---------------------------------------------------------------------------------------------------------------------
-- Turning

--- `op at script.lua:12` of a task that waits.
local function described(task)
  local level, info = 0
  repeat
    info = getinfo and getinfo(task.thread, level, "Sl")
    level = level + 1
  until not info or info.currentline > 0 and not is_ours(info)
  return info and ("%s at %s:%d"):format(task.op, info.short_src, info.currentline) or task.op
end

local SHOWN = 10

-- Raised by the loop, and told where the wait was called.
local STUCK = {}

local function stuck()
  local waits, count = {}, 0
  for id, task in next, by_id do
    if id > 0 and not task.is_quiet then
      count = count + 1
      waits[#waits + 1] = count <= SHOWN and described(task) or nil
    end
  end
  local text = "'" .. outside.op .. "' would wait for ever"
  if count > 0 then
    local list = waits[1]
    for i = 2, #waits do
      list = list .. ", " .. waits[i]
    end
    if count > SHOWN then
      list = list .. (" and %d more"):format(count - SHOWN)
    end
    text = text .. (": %d task%s for what cannot come: "):format(count, count == 1 and " waits" or "s wait") .. list
  else
    text = text .. ": there is no task that could end it"
  end
  STUCK.text = text
  return error(STUCK, 0)
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
  elseif not is_step and not outside.place then
    hasty = hasty + 1
    if hasty < HASTE then
      return
    end
    hasty = 0
    limit = 0
  elseif ready_count > 0 or is_step and loop.live == 0 and loop.quiet == 0 then
    limit = 0
  elseif limit == nil and watching == 0 and timed == 0 then
    return stuck()
  end
  if limit == 0 and watching == 0 and armed == 0 then
    return
  end
  if wait_for_any(limit) == INTERRUPTED and interrupted() then
    return error("interrupted!", 0)
  end
  local slot, readable, writable = next_ready()
  while slot do
    local context = readable and readers[slot]
    if context and context.place == readers and not context.expiry and context ~= outside then
      -- What `wake` does, for nearly every wait.
      readers[slot], context.place = nil, nil
      watching = watching - 1
      ready_count = ready_count + 1
      ready[ready_count] = context
    elseif context then
      wake_all(context)
    end
    context = writable and writers[slot]
    if context then
      wake_all(context)
    end
    slot, readable, writable = next_ready()
  end
  if armed > 0 then
    wake_due()
  end
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
    looping = true
    local ok, err = pcall(run, limit)
    looping = false
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
  release(outside)
  outside.waits_for_all = nil
  if outside.gift ~= nil then
    loop.take_back(outside.giver, outside.gift)
    outside.gift = nil
  end
end

local function locked(run, limit)
  local _, ok, err = resume(turner, run, limit)
  if is_watched then
    -- What this round has left is for the other loop to bring on.
    core.set_alarm(ready_count > 0 and 0 or core.next_timer())
  end
  if ok then
    return
  end
  recover()
  if err == STUCK then
    return errors.misuse("", STUCK.text, "")
  end
  return error(err, 0)
end

--- One round from outside tasks, at most until `limit`. Whether there are tasks left.
function loop.step(limit)
  if looping then
    return misplaced(within, "step", "loop")
  end
  outside.op = "step"
  locked(step, limit)
  return loop.live > 0
end

--- Has `tcp.pollfd()` become readable whenever `loop.step` is worth while.
function loop.watch_from_outside()
  is_watched = true
  core.set_alarm(ready_count > 0 and 0 or core.next_timer())
end

--- Whether code outside tasks can wait without the loop.
function loop.is_alone()
  return loop.live == 0 and loop.quiet == 0
end

---------------------------------------------------------------------------------------------------------------------
-- Waiting

--- Lets others run, unless this cannot be done here. Never fails.
function loop.pass()
  local task = loop.current
  if task then
    make_ready(task)
    task.op = "sleep"
    if pause() then
      ready[ready_count] = nil
      ready_count = ready_count - 1
    end
  elseif not looping and not loop.is_alone() then
    loop.step(0)
  end
end

--- Who it is that runs.
function loop.context()
  return loop.current or looping and within or outside
end

--- The scope that ends first of those that the running code is in. A coroutine that has been left is not around it.
local function nearest_scope(context)
  local nearest
  for thread, scope in next, context.scopes do
    local state = thread ~= context and status(thread)
    if state ~= "suspended" and state ~= "dead" then
      scope = scope.nearest
      if not nearest or scope.expiry < nearest.expiry or scope.expiry == nearest.expiry and scope.id < nearest.id then
        nearest = scope
      end
    end
  end
  return nearest
end

--- When the running code's time is over, its own limits and those around it.
function loop.limit(context, expiry)
  local scope = context.scopes and nearest_scope(context)
  if scope and scope.expiry < (expiry or 1 / 0) then
    return scope.expiry, scope
  end
  return expiry
end

--- Before a wait in `op` until `expiry`: the context, the moment when it ends and the outcome then. If there is
-- nothing to wait for, nil and the outcome.
function loop.enter(op, expiry)
  local context = loop.context()
  if context == within then
    return misplaced(within, op, "loop")
  elseif context.place then
    -- An error came between a wait and the loop.
    unlink(context)
  end
  context.waits_for_all = nil
  if context.is_cancelled then
    -- Whoever does not heed that holds up nobody.
    loop.pass()
    return nil, CANCELLED
  end
  local at, scope = loop.limit(context, expiry)
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

local function set_time(context, expiry, on_time)
  context.expiry, context.on_time = expiry, on_time
  timed = timed + 1
  local before = context.armed
  if not before or before > expiry then
    arm(context, expiry)
  end
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

--- Waits where the context has been linked.
function loop.park(context, op, expiry, on_time)
  context.op, context.place = op, ELSEWHERE
  if expiry then
    set_time(context, expiry, on_time)
  end
  if context == outside then
    return after_pause(context, op, locked(turn_until_woken))
  end
  return after_pause(context, op, pause())
end

--- Waits for the descriptor of a slot, alone.
function loop.park_at(context, place, slot, op, expiry, on_time)
  context.place, context.key, context.op = place, slot, op
  place[slot] = context
  watching = watching + 1
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

--- Waits until no task is left.
function loop.park_for_all()
  local context, expiry, on_time = loop.enter("run")
  if not context then
    return expiry
  end
  outside.waits_for_all = true
  local result = loop.park(outside, "run", expiry, on_time)
  outside.waits_for_all = nil
  return result
end

--- What is counted when everything has to be over.
function loop.counts()
  return {
    tasks = loop.live, quiet = loop.quiet, registrations = core.registrations(), timers = core.timers(),
    watching = watching, timed = timed, armed = armed, reading = next(reading) and 1 or 0,
    memory = collectgarbage("count"),
  }
end

return loop
