-- Where a wait goes: alone it is one blocking wait, beside tasks it is the loop's.

local core, errors, signals, contexts, loop = ...

local error, next, setmetatable = error, next, setmetatable
local interrupted = signals.interrupted
local block, cut, front_write, moment, now, watch =
  core.block, core.cut, core.front_write, core.moment, core.now, core.watch
local PENDING, outcome = core.PENDING, core.outcome
local outside, readers, writers = contexts.outside, contexts.readers, contexts.writers
local slots, wake = contexts.slots, contexts.wake
local enter, is_alone, park, park_at, pass = loop.enter, loop.is_alone, loop.park, loop.park_at, loop.pass
local running_context = loop.context
local READY, TIMED_OUT, CANCELLED, OVERDUE = contexts.READY, contexts.TIMED_OUT, contexts.CANCELLED, contexts.OVERDUE
local WRITE = 1
-- `watch` cannot have a descriptor watched now: it is tried again and again.
local CANNOT, PACE = -1, 0.01

local _ENV = nil -- luacheck: ignore

local waiting = { READ = 0, WRITE = WRITE, PASS = 2, TURN = 3, READY = READY }

--- One blocking wait, which a signal brings back to Lua.
local function wait_alone(target, interest, expiry, on_time)
  while true do
    if interrupted() then
      contexts.release(outside)
      return error("interrupted!", 0)
    end
    local woken = block(target, interest, expiry)
    if woken == READY then
      return READY
    elseif woken == TIMED_OUT then
      if on_time == OVERDUE then
        outside.strikes.has_struck = true
      end
      return on_time
    end
  end
end

--- Links and parks, alone or in line; `slot` and `look` are what `watch` answered.
local function wait_watching(context, target, links, line, slot, look, op, expiry, on_time)
  if slot == CANNOT then
    look = now() + PACE
  end
  if look and not (expiry and expiry <= look) then
    -- Time alone makes another step worth while.
    expiry, on_time = look, READY
  end
  if slot == CANNOT then
    contexts.stay(context)
  elseif line then
    contexts.stand_in_line(context, line, slot, links)
    if watch(target) ~= slot then
      contexts.unlink(context)
      return READY
    end
  else
    return park_at(context, links, slot, target, op, expiry, on_time)
  end
  return park(context, op, expiry, on_time)
end

--- Waits until `target` is worth another step of `op`: READY, or why it ended without that. A connection has two
-- `links`: who reads waits in `readers`, whatever for, since TLS may have to write first.
function waiting.wait(target, interest, expiry, op, links)
  local slot = slots[target]
  local context, at, on_time = enter(op, expiry)
  if not context then
    return at
  elseif context == outside and is_alone() then
    return wait_alone(target, interest, at, on_time)
  end
  local look
  if not slot then
    local is_lasting
    slot, look, is_lasting = watch(target)
    if is_lasting then
      slots[target] = slot
      if watch(target) ~= slot then
        -- It has been closed meanwhile.
        slots[target] = nil
      end
    end
  end
  if not slot then
    pass()
    return READY
  end
  links = links or (interest == WRITE and writers or readers)
  return wait_watching(context, target, links, nil, slot, look, op, at, on_time)
end

-- The lines of those who want to read from the same listener or socket, and of those who want to write.
local reading_lines, writing_lines = setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "k" })

--- Whether somebody who wants to read from `target` came before.
function waiting.is_taken(target)
  local line = reading_lines[target]
  return line ~= nil and (line.first or line.turn) ~= nil
end

--- As `wait`, for what several may want: READY when it is this one's turn to try. After the operation, and whenever
-- this gives anything else, the turn is over.
function waiting.wait_in_line(target, expiry, op, interest)
  local context, at, on_time = enter(op, expiry)
  if not context then
    contexts.leave_line(running_context())
    return at
  elseif context == outside and is_alone() then
    return wait_alone(target, interest, at, on_time)
  end
  local slot = watch(target)
  if not slot then
    return READY
  end
  local lines = interest == WRITE and writing_lines or reading_lines
  local line = lines[target]
  if not line then
    line = {}
    lines[target] = line
  end
  local ended =
    wait_watching(context, target, interest == WRITE and writers or readers, line, slot, nil, op, at, on_time)
  if ended == READY and context.is_cancelled then
    ended = CANCELLED
  end
  if ended ~= READY then
    contexts.leave_line(context)
  end
  return ended
end

--- The operation that waited in line is over.
function waiting.leave_line()
  return contexts.leave_line(running_context())
end

--- Wakes everybody who wants something from a listener or a socket that has been closed.
function waiting.dismiss(target)
  for _, lines in next, { reading_lines, writing_lines } do
    if lines[target] then
      contexts.wake_all(lines[target])
    end
  end
end

-- Queued writes that wait for their turn, by connection and ticket.
local turns = setmetatable({}, { __mode = "k" })

--- Waits until the writes before `ticket` have ended.
function waiting.wait_for_turn(conn, ticket, expiry, op)
  local context, at, on_time = enter(op, expiry)
  if not context then
    return at
  end
  local here = turns[conn]
  if not here then
    here = {}
    turns[conn] = here
  end
  contexts.link(context, here, ticket)
  if front_write(conn) == ticket then
    contexts.unlink(context)
    return READY
  end
  return park(context, op, at, on_time)
end

--- A queued write has ended: it is the next one's turn.
function contexts.next_turn(conn)
  local here = turns[conn]
  if here then
    local ticket = front_write(conn)
    local context = ticket and here[ticket]
    if context then
      wake(context)
    end
    if next(here) == nil then
      turns[conn] = nil
    end
  end
end

--- When a time limit that begins now ends, of the argument at `position`; nil is none.
function waiting.expiry_of(name, position, limit)
  local expiry = limit ~= nil and moment(limit, position, name) or nil
  if expiry == PENDING then
    return errors.misuse(name, outcome())
  end
  return expiry
end

--- Waits for nothing but time.
function waiting.sleep(seconds)
  local expiry = moment(seconds, 1, "sleep")
  if expiry == PENDING then
    return errors.misuse("sleep", outcome())
  end
  local context, ended, on_time = enter("sleep", expiry)
  if context == outside and is_alone() then
    ended = wait_alone(nil, 0, ended, on_time)
  elseif context then
    contexts.stay(context)
    ended = park(context, "sleep", ended, on_time)
  end
  if ended ~= TIMED_OUT then
    return errors.raise(cut(nil, "sleep", ended))
  end
end

--- Until `expiry`, whatever comes; for what has to be tried again.
function waiting.wait_a_little(expiry, op)
  local context, at, on_time = enter(op, expiry)
  if not context then
    return at
  end
  local look = now() + PACE * 5
  if not at or look < at then
    at, on_time = look, READY
  end
  if context == outside and is_alone() then
    return wait_alone(nil, 0, at, on_time)
  end
  contexts.stay(context)
  return park(context, op, at, on_time)
end

return waiting
