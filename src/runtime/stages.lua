-- How TLS begins on a connection, and how a connection ends: handshake, start_tls, shutdown, close.

local core, errors, contexts, loop, waiting, connection = ...

local type = type
local raise = errors.raise
local methods, failed, is_busy, settle_queued =
  connection.methods, connection.failed, connection.is_busy, connection.settle_queued
local readers, writers, reading = contexts.readers, contexts.writers, contexts.reading
local pass, slots, wait = loop.pass, contexts.slots, waiting.wait
local READY, PASS = waiting.READY, waiting.PASS
local PENDING, busy, outcome = core.PENDING, core.busy, core.outcome

local _ENV = nil -- luacheck: ignore

--- Whoever waits for the descriptor of a connection finds out what has become of it.
local function wake_waiters(slot)
  local reader, writer = readers[slot], writers[slot]
  if reader then
    contexts.wake_waiter(reader)
  end
  if writer then
    contexts.wake_waiter(writer)
  end
end

--- Reads what the peer still sends to a closed connection, so that no reset destroys the last answer.
local function discard(remains)
  local expiry = core.now() + core.patience
  while core.discard(remains) == PENDING do
    local signal = outcome()
    if signal ~= PASS and wait(remains, signal, expiry, "close") ~= READY or core.now() >= expiry then
      break
    elseif signal == PASS then
      pass()
    end
  end
  core.drop(remains)
end

function methods.close(self)
  local slot = core.slot(self)
  local remains = core.close(self)
  if remains == PENDING then
    return failed("close", outcome())
  end
  -- Who is about to wait must not do it there.
  slots[self] = nil
  local reader = reading[self]
  if reader and reader.has_left and reader.has_left(reader) then
    reading[self] = nil
  end
  if slot then
    wake_waiters(slot)
  end
  if remains then
    loop.spawn(discard, true, remains)
  end
end

--- Waits for the handshake, which is a write before all others. Those that were called before it have to wait for the
-- same, and come after it.
local function settle_first(op, self, signal, expiry, ticket, reads)
  local writer = writers[core.slot(self)]
  if writer then
    contexts.wake_waiter(writer)
  end
  local _, err = settle_queued(op, self, signal, expiry, ticket, reads)
  if err ~= nil then
    err.written = nil
    return nil, err
  end
  return true
end

local function handshake(name, self, options)
  if core.handshake(self, options) == PENDING then
    local signal, expiry, ticket = outcome()
    if type(signal) ~= "number" then
      return failed(name, signal, expiry)
    end
    return settle_first("handshake", self, signal, expiry, ticket)
  end
  return true
end

local function shutdown(name, self, direction)
  local has_waited = false
  while core.shutdown(self, direction, has_waited) == PENDING do
    local signal, expiry, ticket = outcome()
    if type(signal) ~= "number" then
      return failed(name, signal, expiry)
    end
    -- It comes after the writes that were called before it.
    local _, err = settle_queued("shutdown", self, signal, expiry, ticket)
    if err ~= nil then
      err.written = nil
      return nil, err
    end
    has_waited = true
  end
  local slot = core.slot(self)
  if slot then
    wake_waiters(slot)
  end
  return true
end

-- An upgrade that is interrupted fails like any other, at the latest with the next operation.
contexts.end_upgrade = methods.close

--- An upgrade that fails closes the connection: there is no way back to plaintext. One that another task keeps from
-- beginning does not, nor one without any time, which is to be called again.
local function start_tls(name, self, options)
  if reading[self] and is_busy(self) then
    return nil, busy(self, "start_tls")
  end
  local _, err
  if core.start_tls(self, options) == PENDING then
    local signal, expiry, ticket = outcome()
    if type(signal) == "number" then
      _, err = settle_first("start_tls", self, signal, expiry, ticket, true)
    else
      _, err = failed(name, signal, expiry)
    end
  end
  if err == nil then
    return self
  end
  local goes_on = err.kind == "busy" or err.kind == "timeout" and core.may_go_on(self) == true
  if not goes_on then
    methods.close(self)
  end
  return nil, err
end

--- Defines `name` and `try_name` around what gives `try_name`'s results. `gives_self`: both give the connection.
local function define(name, attempt, gives_self)
  local try_name = "try_" .. name

  methods[name] = function(self, a)
    local _, err = attempt(name, self, a)
    if err ~= nil then
      return raise(err)
    elseif gives_self then
      return self
    end
  end

  methods[try_name] = function(self, a)
    return attempt(try_name, self, a)
  end
end

define("handshake", handshake)
define("shutdown", shutdown)
define("start_tls", start_tls, true)
