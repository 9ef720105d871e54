-- Queues between tasks: first in, first out, and whoever waits longest is served first.

local core, errors, contexts, loop, waiting = ...

local getmetatable, setmetatable, type = getmetatable, setmetatable, type
local misuse, raise = errors.misuse, errors.raise
local cut, self_name = core.cut, core.self_name
local PENDING, outcome = core.PENDING, core.outcome
local append, unlink, wake, wake_all = contexts.append, contexts.unlink, contexts.wake, contexts.wake_all
local enter, expiry_of, park = loop.enter, waiting.expiry_of, loop.park
local READY = contexts.READY

local _ENV = nil -- luacheck: ignore

-- Values that move without a wait let the other tasks run after so many.
local SHARE = 64

-- `items[first … last]` are in the queue. `poppers` and `pushers` are lists of contexts; a pusher's value is its
-- `offer`, and what a popper was given is its `gift`.
local Queue = { __name = "Queue" }
local methods = {}
Queue.__index = methods

local function check_queue(name, self)
  if type(self) ~= "table" or getmetatable(self) ~= Queue then
    return misuse(name, "bad self to '", "' (Queue expected, got " .. self_name(self) .. "; use ':')")
  end
end

local function new(capacity)
  local limit = 1 / 0
  if capacity ~= nil then
    limit = core.limit(capacity, 1, "queue")
    if limit == PENDING then
      return misuse("queue", outcome())
    end
  end
  return setmetatable({ items = {}, first = 1, last = 0, limit = limit, moves = 0, poppers = {}, pushers = {} }, Queue)
end

-- LuaJIT runs finalizers, which may use the queue, between any two of these: each finds a place of its own.
local function put(self, value)
  local last = self.last + 1
  self.last = last
  self.items[last] = value
end

local function take(self)
  local first = self.first
  self.first = first + 1
  local value = self.items[first]
  self.items[first] = nil
  return value
end

--- Puts back what was given to somebody who could not take it.
function loop.take_back(self, value)
  local popper = self.poppers.first
  if popper then
    popper.gift, popper.giver = value, self
    return wake(popper)
  end
  self.first = self.first - 1
  self.items[self.first] = value
end

local function count(self)
  return self.last - self.first + 1
end

--- Lets the others run now and then.
local function pass_sometimes(self)
  self.moves = self.moves + 1
  if self.moves >= SHARE then
    self.moves = 0
    loop.pass()
  end
end

local function closed(op)
  return errors.new("closed", op, "the queue is closed")
end

local push

--- Waits for room.
local function wait_to_push(name, self, value, timeout, expiry)
  self.moves = 0
  local context, ended, on_time = enter("push", expiry)
  if context then
    context.offer = value
    append(context, self.pushers)
    if self.is_closed or self.poppers.first or count(self) < self.limit then
      unlink(context)
      ended = READY
    else
      ended = park(context, "push", ended, on_time)
    end
    local is_taken = context.offer == nil
    context.offer = nil
    if ended == READY then
      return not is_taken and push(name, self, value, timeout) or nil
    end
  end
  return cut(nil, "push", ended)
end

function push(name, self, value, timeout)
  check_queue(name, self)
  local expiry = expiry_of(name, 2, timeout)
  if value == nil then
    return misuse(name, "bad argument #1 to '", "' (value expected, got nil)")
  elseif self.is_closed then
    return closed("push")
  end
  local popper = self.poppers.first
  if popper then
    popper.gift, popper.giver = value, self
    wake(popper)
  elseif count(self) < self.limit then
    put(self, value)
  else
    return wait_to_push(name, self, value, timeout, expiry)
  end
  pass_sometimes(self)
end

local function pop(name, self, timeout)
  check_queue(name, self)
  local expiry = expiry_of(name, 1, timeout)
  if count(self) > 0 then
    local value = take(self)
    local pusher = self.pushers.first
    if pusher then
      put(self, pusher.offer)
      pusher.offer = nil
      wake(pusher)
    end
    pass_sometimes(self)
    return value
  elseif self.is_closed then
    return nil
  end
  self.moves = 0
  local context, at, on_time = enter("pop", expiry)
  if not context then
    return nil, cut(nil, "pop", at)
  end
  append(context, self.poppers)
  local ended = READY
  if self.is_closed or count(self) > 0 then
    unlink(context)
  else
    ended = park(context, "pop", at, on_time)
  end
  if ended ~= READY then
    return nil, cut(nil, "pop", ended)
  end
  local value = context.gift
  context.gift, context.giver = nil, nil
  if value == nil and count(self) > 0 then
    return pop(name, self, timeout)
  end
  return value
end

function methods.push(self, value, timeout)
  local err = push("push", self, value, timeout)
  if err then
    return raise(err)
  end
end

function methods.try_push(self, value, timeout)
  local err = push("try_push", self, value, timeout)
  if err then
    return nil, err
  end
  return true
end

function methods.pop(self, timeout)
  local value, err = pop("pop", self, timeout)
  if err then
    return raise(err)
  end
  return value
end

function methods.try_pop(self, timeout)
  return pop("try_pop", self, timeout)
end

--- Ends the queue: what is in it can still be popped, nothing more can be pushed.
function methods.close(self)
  check_queue("close", self)
  if not self.is_closed then
    self.is_closed = true
    wake_all(self.poppers)
    wake_all(self.pushers)
  end
end

function methods.count(self)
  check_queue("count", self)
  return count(self)
end

--- Iterates over what is popped, until the queue is closed and empty.
function methods.values(self)
  check_queue("values", self)
  return function()
    local value, err = pop("values", self)
    if err then
      return raise(err)
    end
    return value
  end
end

function Queue:__tostring()
  return ("Queue (%d%s)"):format(count(self), self.is_closed and ", closed" or "")
end

return new
