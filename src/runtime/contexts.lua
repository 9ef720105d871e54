-- Contexts: who can wait, where they wait, and what wakes them.
--
-- A *context* is whoever can wait: a task, or `outside`, the code that is in none. It waits in one place at a time. Its
-- fields in the meantime: `op`, `expiry`, `on_time` (the outcome when time is up), `place` (`readers` or `writers`,
-- where it is alone at the slot `key`; or ELSEWHERE, with `links` and `key`, or `list`), and then `outcome`, unless it
-- is READY. Beyond a single wait: `reads` (the connection it reads from), `writes` and `ticket` (a queued write of its
-- own), `scopes` (its with_timeouts, by coroutine), `is_limited` (it has some, or was cancelled), `armed` (its timer).
--
-- Contexts have no metatable: they are asked for absent fields all the time.

local core = ...

local next, setmetatable = next, setmetatable
local now, PENDING, outcome = core.now, core.PENDING, core.outcome
local arm_timer, disarm_timer, take_due, next_ready = core.arm, core.disarm, core.take_due, core.next_ready

local _ENV = nil -- luacheck: ignore

local READY, TIMED_OUT, CANCELLED, OVERDUE = 0, 1, 2, 3

-- The place of a context that does not wait alone for a descriptor.
local ELSEWHERE = {}

-- Nobody's limits are looked for on the short way of a wait, and `outside` never takes it.
local outside = { op = "run", id = 0, is_limited = true }

local readers, writers, reading = {}, {}, {}

local contexts = {
  READY = READY,
  TIMED_OUT = TIMED_OUT,
  CANCELLED = CANCELLED,
  OVERDUE = OVERDUE,
  ELSEWHERE = ELSEWHERE,
  outside = outside,
  -- Code that the loop itself calls: on_error, and finalizers that strike in it. It cannot wait.
  within = { op = "run" },
  -- Who waits on a slot of the reactor: a context, or a list of them.
  readers = readers,
  writers = writers,
  -- Who is in the middle of reading from a connection.
  reading = reading,
  -- The slots of connections that have been watched before: they keep them until they are closed.
  slots = setmetatable({}, { __mode = "k" }),
  -- Called with 0 when somebody becomes ready, for who would wait: another loop, or this one.
  ring = nil,
}

-- Contexts by their number, all that have not ended, and numbers to be given again.
local by_id = { [0] = outside }
local last_id = 0
local free_ids, free_count = {}, 0
-- Tasks to be run next.
local ready, ready_count = {}, 0

---------------------------------------------------------------------------------------------------------------------
-- All contexts

function contexts.add(context)
  local id = last_id + 1
  if free_count > 0 then
    id = free_ids[free_count]
    free_count = free_count - 1
  else
    last_id = id
  end
  context.id = id
  by_id[id] = context
end

--- Takes back a context's timer.
local function disarm(context)
  local at = context.armed
  if at then
    context.armed = nil
    disarm_timer(context.id, at)
  end
end

contexts.disarm = disarm

function contexts.remove(context)
  disarm(context)
  by_id[context.id] = nil
  free_count = free_count + 1
  free_ids[free_count] = context.id
end

--- Iterates over the tasks, with their numbers.
function contexts.each()
  local function next_task(all, id)
    local context
    id, context = next(all, id)
    if id == 0 then
      return next(all, id)
    end
    return id, context
  end
  return next_task, by_id
end

---------------------------------------------------------------------------------------------------------------------
-- Where a context waits

-- A finalizer may come between any two of these. Whoever has linked a context has to look again whether there is
-- anything to wait for; once it has a place, it can be woken.

--- Waits for time only.
function contexts.stay(context)
  context.place = ELSEWHERE
end

--- Waits where only another context can come: `links[key]` is the place.
function contexts.link(context, links, key)
  context.place, context.links, context.key = ELSEWHERE, links, key
  links[key] = context
end

--- Waits behind the others of a list.
function contexts.append(context, list)
  context.place, context.list = ELSEWHERE, list
  local last = list.last
  context.before, context.behind = last, nil
  if last then
    last.behind = context
  else
    list.first = context
  end
  list.last = context
end

-- A *line* is a list of those who want something from the same descriptor, in the order in which they came. Its `turn`
-- is who has been woken and has not had it yet; that one's `line` says so. `links[slot]` is where it is to be found as
-- long as somebody is in it.

--- Waits in line for the descriptor of a slot; `links` are `readers` or `writers`. Who had the turn in vain comes
-- first.
function contexts.stand_in_line(context, line, slot, links)
  local first = line.first
  if line.turn == context and first then
    context.place, context.list = ELSEWHERE, line
    context.before, context.behind = nil, first
    first.before, line.first = context, context
  else
    contexts.append(context, line)
  end
  if line.turn == context then
    line.turn, context.line = nil, nil
  end
  line.links = links
  line.slot = slot
  links[slot] = line
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
  elseif links then
    links[context.key] = nil
    context.links = nil
  elseif list then
    leave(context, list)
    local slot = list.slot
    if slot and not list.first and list.links[slot] == list then
      list.links[slot] = nil
    end
  end
  context.expiry, context.place, context.joins, context.is_watching = nil, nil, nil, nil
end

contexts.unlink = unlink

local wake

--- It is the turn of the first in line, unless somebody has it.
local function wake_line(line)
  local context = line.first
  if context and not line.turn then
    line.turn, context.line = context, line
    wake(context)
  end
end

--- Has had its turn: it is the next one's.
function contexts.leave_line(context)
  local line = context.line
  if line then
    line.turn, context.line = nil, nil
    wake_line(line)
  end
end

--- Lets go of what a context holds beyond a wait, when its operation ends in the middle.
local function release(context)
  local conn, ticket = context.reads, context.ticket
  -- Nothing else does both.
  local upgrades = conn and ticket
  if context.place or context.list or context.links then
    unlink(context)
  end
  contexts.leave_line(context)
  if conn then
    context.reads = nil
    reading[conn] = nil
  end
  if ticket then
    conn = context.writes
    context.writes, context.ticket = nil, nil
    local sent = core.write_cut(conn, ticket, "write", CANCELLED)
    if sent == PENDING then
      sent = outcome().written
    end
    -- Who sees to what the write had taken asks for it.
    context.written = sent
    contexts.next_turn(conn)
    if upgrades then
      contexts.end_upgrade(conn)
    end
  end
end

contexts.release = release

---------------------------------------------------------------------------------------------------------------------
-- Time: a context's timer stays when the wait ends early, and is set anew only for an earlier moment. What is waited
-- for again and again with the same timeout sets one timer in all that time.

-- An error may strike between any two of these: a timer that nobody knows of does no harm, one that is missing does.
local function arm(context, expiry)
  local before = context.armed
  arm_timer(context.id, expiry)
  context.armed = expiry
  if before then
    disarm_timer(context.id, before)
  end
end

--- From now on it also waits for a moment, at which its outcome is `on_time`.
function contexts.set_time(context, expiry, on_time)
  context.expiry, context.on_time = expiry, on_time
  local before = context.armed
  if not before or before > expiry then
    arm(context, expiry)
  end
  if not context.place then
    -- It has been woken meanwhile: its next wait has a time of its own.
    context.expiry = nil
  end
end

---------------------------------------------------------------------------------------------------------------------
-- Waking

-- LuaJIT runs finalizers, and hooks that raise, between any two of these: whoever comes in between must find room of
-- its own, and who is in both places, ready and waiting, still waits (see `run_batch`).
local function make_ready(task)
  local at = ready_count + 1
  ready_count = at
  ready[at] = task
  if contexts.ring then
    contexts.ring(0)
  end
end

contexts.make_ready = make_ready

function wake(context, result)
  if context.place then
    context.outcome = result
    if context ~= outside then
      make_ready(context)
    elseif contexts.ring then
      contexts.ring(0)
    end
    unlink(context)
  end
end

contexts.wake = wake

--- Wakes everybody in a list.
local function wake_all(waiter)
  local context = waiter.first
  while context do
    wake(context)
    if waiter.first == context then
      -- An error has kept it from waiting after all.
      leave(context, waiter)
    end
    context = waiter.first
  end
end

contexts.wake_all = wake_all

--- Wakes whoever waits on a slot.
local function wake_waiter(waiter)
  if waiter.place then
    return wake(waiter)
  end
  return wake_line(waiter)
end

contexts.wake_waiter = wake_waiter

--- Wakes those whose descriptors are ready.
function contexts.wake_ready()
  local slot, readable, writable = next_ready()
  while slot do
    local context = readable and readers[slot]
    if context and context.place == readers and not context.expiry and context ~= outside then
      -- What `wake` does, for nearly every wait.
      local at = ready_count + 1
      ready_count = at
      ready[at] = context
      readers[slot], context.place = nil, nil
    elseif context then
      wake_waiter(context)
    end
    context = writable and writers[slot]
    if context then
      wake_waiter(context)
    end
    slot, readable, writable = next_ready()
  end
end

--- Wakes those whose time has come.
function contexts.wake_due()
  local id = take_due()
  while id do
    local context = by_id[id]
    if context then
      local expiry = context.expiry
      context.armed = nil
      if expiry and expiry <= now() then
        wake(context, context.on_time)
      elseif expiry then
        arm(context, expiry)
      end
    end
    id = take_due()
  end
end

--- Has everybody look again for what he waits for, as an event may have been lost.
function contexts.rouse_all()
  for _, waiter in next, readers do
    wake_waiter(waiter)
  end
  for _, waiter in next, writers do
    wake_waiter(waiter)
  end
  for _, context in next, by_id do
    if context.expiry then
      arm(context, context.expiry)
    end
  end
end

--- The tasks that are ready, and how many; `room` is an empty table for the next ones.
function contexts.take_ready(room)
  local tasks, count = ready, ready_count
  ready, ready_count = room, 0
  return tasks, count
end

--- Undoes the last `make_ready`.
function contexts.unmake_ready()
  ready[ready_count] = nil
  ready_count = ready_count - 1
end

function contexts.is_any_ready()
  return ready_count > 0
end

-- One that was found waiting, most likely still does.
local witness = outside

local function is_waiting(context)
  return context.place and (context.expiry or context.place ~= ELSEWHERE or context.is_watching)
end

--- Whether anybody waits for something that the system can bring: a descriptor, or time.
function contexts.is_any_waiting()
  if is_waiting(witness) then
    return true
  end
  for _, context in next, by_id do
    if is_waiting(context) then
      witness = context
      return true
    end
  end
  return false
end

return contexts
