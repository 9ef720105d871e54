-- The methods of a connection, made from Rust's steps. Each fallible operation is defined once and exists
-- twice: `x` raises what `try_x` returns.
--
-- A step gives its result, or PENDING: then `outcome()` tells what it has come to (src/lua/reply.rs).

local core, errors, waiting = ...

local pairs, type = pairs, type
local raise, misuse = errors.raise, errors.misuse
local wait_or_error = waiting.wait_or_error
local PENDING, outcome = core.PENDING, core.outcome
local write_on, write_timed_out = core.write_on, core.write_timed_out

local _ENV = nil -- luacheck: ignore

local methods = {}

--- What a step that neither succeeded nor waits has come to: `nil, err`, or a raised misuse.
local function failed(name, signal, detail)
  if type(signal) == "string" then
    return misuse(name, signal, detail)
  end
  return nil, signal
end

--- Goes on with a step that did not succeed at once. `op` is the operation's name in errors.
local function settle(name, op, step, self, a, b, c)
  local signal, expiry = outcome()
  local detail = expiry
  while type(signal) == "number" do
    local err = wait_or_error(self, signal, expiry, op)
    if err then
      return nil, err
    end
    local value = step(self, a, b, c)
    if value ~= PENDING then
      return value
    end
    local renews
    signal, detail, renews = outcome()
    if renews then
      expiry = detail
    end
  end
  return failed(name, signal, detail)
end

--- Defines `name` and `try_name` around a step with at most three arguments after its first.
local function define(target, name, step)
  local try_name = "try_" .. name

  target[name] = function(self, a, b, c)
    local value = step(self, a, b, c)
    if value ~= PENDING then
      return value
    end
    local err
    value, err = settle(name, name, step, self, a, b, c)
    if err ~= nil then
      return raise(err)
    end
    return value
  end

  target[try_name] = function(self, a, b, c)
    local value = step(self, a, b, c)
    if value ~= PENDING then
      return value
    end
    return settle(try_name, name, step, self, a, b, c)
  end
end

--- The same for steps whose operation returns nothing: then `try_name` returns true.
local function define_silent(target, name, step)
  local try_name = "try_" .. name
  local scratch = {}
  define(scratch, name, step)
  local raising, trying = scratch[name], scratch[try_name]

  target[name] = function(self, a, b, c)
    raising(self, a, b, c)
  end

  target[try_name] = function(self, a, b, c)
    local _, err = trying(self, a, b, c)
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
    if name ~= "close" then
      return raise(err)
    end
  end
end

for name, step in pairs(core.reading) do
  define(methods, name, step)
end
define(methods, "send_some", core.send_some)
define(methods, "get_option", core.fallible.get_option)
define_silent(methods, "set_option", core.fallible.set_option)
define_silent(methods, "shutdown", core.fallible.shutdown)

for name, step in pairs(core.plain) do
  define_plain(methods, name, step)
end

--- Goes on with a write that was queued, until it is done or its time is up.
local function settle_write(name, op, self)
  local signal, expiry, ticket = outcome()
  if type(signal) ~= "number" then
    return failed(name, signal, expiry)
  end
  local renewable = op == "write" or op == "write_str" or op == "send"
  while true do
    local value
    if waiting.wait(self, signal, expiry) then
      value = write_on(self, ticket, op)
    else
      value = write_timed_out(self, ticket, op)
    end
    if value ~= PENDING then
      return value
    end
    local detail, moved
    signal, detail, moved = outcome()
    if type(signal) ~= "number" then
      return nil, signal
    elseif moved and renewable then
      expiry = detail
    end
  end
end

-- What a write that succeeded gives: the connection, nothing, or the number of bytes.
local CONNECTION, NOTHING = { write = true, write_str = true, write_line = true },
  { write_json = true, write_packet = true, write_json_packet = true }

local function define_write(name, step)
  local try_name = "try_" .. name
  local gives_connection, gives_nothing = CONNECTION[name], NOTHING[name]

  methods[name] = function(self, ...)
    local value = step(self, ...)
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

  methods[try_name] = function(self, ...)
    local value = step(self, ...)
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
end

for name, step in pairs(core.writing) do
  define_write(name, step)
end

-- An iterator is checked when it is made, and raises what goes wrong later where the loop stands.
local nexts, checks = {}, {}
for name, step in pairs(core.iterators) do
  define(nexts, name, step)
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
  methods = methods,
  close = methods.close,
  -- `for line in conn do`
  call = function(self)
    return next_line(self)
  end,
}
