-- Listeners: accepting connections.

local core, errors, loop, waiting, connection = ...

local collectgarbage, pairs, type = collectgarbage, pairs, type
local misuse, raise = errors.misuse, errors.raise
local accept, cut = core.accept, core.cut
local PENDING, outcome = core.PENDING, core.outcome
local READY, is_taken = waiting.READY, waiting.is_taken

local _ENV = nil -- luacheck: ignore

local methods = {}

for name, step in pairs(core.listener) do
  connection.define_plain(methods, name, step)
end

local close = methods.close
-- Only that it is one, and not in use.
connection.define_plain(methods, "connections", core.listener.is_closed)
local check = methods.connections

--- Tasks that wait for a connection get `closed`.
function methods.close(self)
  close(self)
  waiting.dismiss(self)
end

-- Connections accepted without a wait let the other tasks run after so many.
local SHARE = 16
local accepted = 0

--- Not while a connection is in hand: who is cancelled meanwhile would lose it.
local function pass_sometimes()
  accepted = accepted + 1
  if accepted > SHARE then
    accepted = 0
    loop.pass()
  end
end

--- What a failed accept has come to: whether it is worth another try, or why not.
local function survive(self, err, expiry, has_collected)
  if not core.is_shortage(err.errno) then
    return err
  elseif not has_collected then
    collectgarbage()
    collectgarbage()
    return nil
  end
  local ended = waiting.wait_a_little(expiry, "accept")
  return ended ~= READY and cut(self, "accept", ended) or nil
end

--- Goes on with an accept that found nobody, or failed.
local function settle_accept(name, op, self, timeout)
  local value, expiry
  local has_expiry, has_collected = false, false
  repeat
    local signal, detail = outcome()
    local err
    if not has_expiry and type(signal) ~= "string" then
      expiry = type(signal) == "number" and detail or timeout and core.moment(timeout, 1, name)
      has_expiry = true
    end
    if type(signal) == "number" then
      accepted = 0
      local ended = waiting.wait_in_line(self, expiry, op, waiting.READ)
      err = ended ~= READY and cut(self, op, ended) or nil
    elseif type(signal) == "string" then
      return misuse(name, signal, detail)
    else
      err = survive(self, signal, expiry, has_collected)
      has_collected = true
    end
    if err then
      return nil, err
    end
    value = accept(self, timeout)
  until value ~= PENDING
  return value
end

local function try_accept(name, op, self, timeout)
  pass_sometimes()
  local value = accept(self, timeout, is_taken(self))
  if value ~= PENDING then
    return value
  end
  local err
  value, err = settle_accept(name, op, self, timeout)
  waiting.leave_line()
  return value, err
end

function methods.accept(self, timeout)
  local conn, err = try_accept("accept", "accept", self, timeout)
  if err ~= nil then
    return raise(err)
  end
  return conn
end

function methods.try_accept(self, timeout)
  return try_accept("try_accept", "accept", self, timeout)
end

--- Iterates over the connections that come, until the listener is closed.
function methods.connections(self)
  check(self)
  return function()
    local conn, err = try_accept("connections", "connections", self)
    if err ~= nil and not errors.is_error(err, "closed") then
      return raise(err)
    end
    return conn
  end
end

return { methods = methods, close = methods.close, try_accept = try_accept }
