-- The methods of a connection, made from Rust's steps. Each fallible operation is defined once and exists
-- twice: `x` raises what `try_x` returns.
--
-- A step gives its result, or PENDING: then `outcome()` tells what it has come to (src/lua/reply.rs). A step that reads
-- may also give WAITS: it has to wait until there is something to read, as long as it takes.

local core, errors, contexts, scopes, loop, waiting = ...

local pairs, type = pairs, type
local raise, misuse = errors.raise, errors.misuse
local slots, wait, wait_for_turn = contexts.slots, waiting.wait, waiting.wait_for_turn
local park_at, readers = loop.park_at, contexts.readers
local READ, PASS, TURN = waiting.READ, waiting.PASS, waiting.TURN
local limit, pass, reading, running_context = scopes.limit, loop.pass, contexts.reading, loop.context
local READY = waiting.READY
local PENDING, WAITS, outcome = core.PENDING, core.WAITS, core.outcome
local busy, cut, now, write_cut, write_on = core.busy, core.cut, core.now, core.write_cut, core.write_on

local _ENV = nil -- luacheck: ignore

local methods = {}

--- What a step that neither succeeded nor waits has come to: `nil, err`, or a raised misuse.
local function failed(name, signal, detail)
  if type(signal) == "string" then
    return misuse(name, signal, detail)
  end
  return nil, signal
end

-- After its time is over an operation still takes what needs no wait, but not for ever: so often it lets others pass.
local MOST_LATE = 16

--- Whether the next wait of `context` would end at once.
local function is_over(context, expiry)
  local at = limit(context, expiry)
  return context.is_cancelled or at ~= nil and at <= now()
end

--- Goes on with a read that did not succeed at once; nobody else reads from the connection in the meantime. `op` is
-- the operation's name in errors.
local function settle(value, name, op, step, self, a, b, c)
  local signal, expiry, detail = READ, nil, nil
  if value == PENDING then
    signal, expiry = outcome()
    if type(signal) ~= "number" then
      return failed(name, signal, expiry)
    end
  end
  local context = running_context()
  if context.reads or context.ticket then
    -- An error has cut it.
    contexts.release(context)
  end
  context.op, context.reads, reading[self] = op, self, context
  local err
  local late, has_asked = 0, false
  repeat
    if signal == PASS and late < MOST_LATE then
      pass()
      late = is_over(context, expiry) and late + 1 or 0
    elseif context.is_limited and not has_asked and is_over(context, expiry) then
      -- The step may have known from the loop that there is nothing to read. The next one asks the system: what needs
      -- no wait succeeds.
      has_asked = true
    else
      local slot = slots[self]
      local ended
      if signal == READ and slot and not expiry and not context.is_limited then
        -- What `wait` does, for nearly every wait of a task.
        ended = park_at(context, readers, slot, self, op)
      else
        ended = wait(self, signal, expiry, op, readers)
      end
      if ended ~= READY then
        err = cut(self, op, ended)
        break
      end
    end
    value = step(self, a, b, c)
    if value == WAITS then
      signal = READ
    elseif value == PENDING then
      local renews
      signal, detail, renews = outcome()
      if renews then
        expiry = detail
      end
    else
      signal = nil
    end
  until type(signal) ~= "number"
  context.reads, reading[self] = nil, nil
  if err ~= nil then
    return nil, err
  elseif signal ~= nil then
    return failed(name, signal, detail)
  end
  return value
end

--- Whether somebody else is in the middle of a read. What an interrupted one of its own has left is forgotten.
local function is_busy(self)
  local reader = reading[self]
  if reader == running_context() then
    contexts.release(reader)
    return false
  elseif reader.has_left and reader.has_left(reader) then
    -- A copy in a coroutine that the script has left.
    reading[self] = nil
    return false
  end
  return not core.plain.is_closed(self)
end

--- Defines `name` and `try_name` around a step that reads, with at most three arguments after its first.
local function define_read(target, name, step)
  local try_name = "try_" .. name

  target[name] = function(self, a, b, c)
    if reading[self] and is_busy(self) then
      return raise(busy(self, name))
    end
    local value = step(self, a, b, c)
    if value ~= WAITS and value ~= PENDING then
      return value
    end
    local err
    value, err = settle(value, name, name, step, self, a, b, c)
    if err ~= nil then
      return raise(err)
    end
    return value
  end

  target[try_name] = function(self, a, b, c)
    if reading[self] and is_busy(self) then
      return nil, busy(self, name)
    end
    local value = step(self, a, b, c)
    if value ~= WAITS and value ~= PENDING then
      return value
    end
    return settle(value, try_name, name, step, self, a, b, c)
  end
end

--- Defines `name` and `try_name` around a step that never waits.
local function define(target, name, step)
  local try_name = "try_" .. name

  target[name] = function(self, a, b)
    local value = step(self, a, b)
    if value ~= PENDING then
      return value
    end
    local _, err = failed(name, outcome())
    return raise(err)
  end

  target[try_name] = function(self, a, b)
    local value = step(self, a, b)
    if value ~= PENDING then
      return value
    end
    return failed(try_name, outcome())
  end
end

--- The same for steps whose operation returns nothing: then `try_name` returns true.
local function define_silent(target, name, step)
  local try_name = "try_" .. name
  local scratch = {}
  define(scratch, name, step)
  local raising, trying = scratch[name], scratch[try_name]

  target[name] = function(self, a, b)
    raising(self, a, b)
  end

  target[try_name] = function(self, a, b)
    local _, err = trying(self, a, b)
    if err ~= nil then
      return nil, err
    end
    return true
  end
end

--- Defines a function that the world cannot make fail, except that a finalizer may come too early for it.
local function define_plain(target, name, step)
  target[name] = function(self, a, b)
    local value = step(self, a, b)
    if value ~= PENDING then
      return value
    end
    local _, err = failed(name, outcome())
    return raise(err)
  end
end

for name, step in pairs(core.reading) do
  define_read(methods, name, step)
end
define(methods, "get_option", core.fallible.get_option)
define_silent(methods, "set_option", core.fallible.set_option)

for name, step in pairs(core.plain) do
  define_plain(methods, name, step)
end

-- What may be long takes its time anew whenever bytes moved.
local RENEWED = { copy = true, send = true, send_file = true, write = true, write_str = true }

--- Goes on with a write that was queued, until it is done or its time is up. `reads`: nobody else may read meanwhile.
local function settle_queued(op, self, signal, expiry, ticket, reads)
  local context = running_context()
  if context.reads or context.ticket then
    -- An error has cut it. Its end may have made it this one's turn.
    contexts.release(context)
    signal = PASS
  end
  context.op, context.writes, context.ticket = op, self, ticket
  if reads then
    context.reads, reading[self] = self, context
  end
  local renewable = RENEWED[op]
  local value, err
  local late = 0
  repeat
    local ended = READY
    if signal == PASS and late < MOST_LATE then
      pass()
      late = is_over(context, expiry) and late + 1 or 0
    elseif signal == TURN then
      ended = wait_for_turn(self, ticket, expiry, op)
    else
      ended = wait(self, signal, expiry, op, contexts.writers)
    end
    if ended == READY then
      value = write_on(self, ticket, op)
    else
      value = write_cut(self, ticket, op, ended)
    end
    if value == PENDING then
      local detail, moved
      signal, detail, moved = outcome()
      if type(signal) ~= "number" then
        err = signal
      elseif moved and renewable then
        expiry = detail
      end
    end
  until value ~= PENDING or err ~= nil
  context.writes, context.ticket = nil, nil
  if reads then
    context.reads, reading[self] = nil, nil
  end
  contexts.next_turn(self)
  if err ~= nil then
    return nil, err
  end
  return value
end

local function settle_write(name, op, self)
  local signal, expiry, ticket = outcome()
  if type(signal) ~= "number" then
    return failed(name, signal, expiry)
  end
  return settle_queued(op, self, signal, expiry, ticket)
end

-- What a write that succeeded gives: the connection, nothing, or the number of bytes.
local CONNECTION, NOTHING = { write = true, write_str = true, write_line = true },
  { write_json = true, write_packet = true, write_json_packet = true }

--- What a write gives in the end, in its two forms.
local function finisher(name)
  local try_name = "try_" .. name
  local gives_connection, gives_nothing = CONNECTION[name], NOTHING[name]

  local function finish(self, value)
    if value == PENDING then
      local err
      value, err = settle_write(name, name, self)
      if err ~= nil then
        return raise(err)
      end
    end
    if gives_connection then
      return self
    elseif gives_nothing then
      return
    end
    return value
  end

  local function try_finish(self, value)
    if value == PENDING then
      local err
      value, err = settle_write(try_name, name, self)
      if err ~= nil then
        return nil, err
      end
    end
    if gives_connection then
      return self
    elseif gives_nothing then
      return true
    end
    return value
  end

  return finish, try_finish
end

local function define_write(name, step)
  local finish, try_finish = finisher(name)

  methods[name] = function(self, a, b)
    return finish(self, step(self, a, b))
  end

  methods["try_" .. name] = function(self, a, b)
    return try_finish(self, step(self, a, b))
  end
end

for name, step in pairs(core.writing) do
  if name ~= "write" then
    define_write(name, step)
  end
end

-- The one that takes any number of arguments, and is called most.
do
  local step = core.writing.write
  local finish, try_finish = finisher("write")

  function methods.write(self, ...)
    if step(self, ...) ~= PENDING then
      return self
    end
    return finish(self, PENDING)
  end

  function methods.try_write(self, ...)
    if step(self, ...) ~= PENDING then
      return self
    end
    return try_finish(self, PENDING)
  end
end

-- An iterator is checked when it is made, and raises what goes wrong later where the loop stands.
local nexts, checks = {}, {}
for name, step in pairs(core.iterators) do
  define_read(nexts, name, step)
  define_plain(checks, name, core.iterator_checks[name])
  local next_item, check = nexts[name], checks[name]
  methods[name] = function(self, a, b)
    check(self, a, b)
    return function()
      return next_item(self, a, b)
    end
  end
end

local next_line = nexts.lines

return {
  define = define,
  define_plain = define_plain,
  define_silent = define_silent,
  methods = methods,
  failed = failed,
  is_busy = is_busy,
  settle_queued = settle_queued,
  settle_write = settle_write,
  -- `for line in conn do`
  call = function(self)
    -- No tail call: on Lua 5.1 it would hide that this is an iterator.
    local line = next_line(self)
    return line
  end,
}
