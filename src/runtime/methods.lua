-- The methods of a connection, made from Rust's steps. Each fallible operation is defined once and exists
-- twice: `x` raises what `try_x` returns.
--
-- A step answers `value, signal, detail, more` (src/lua/reply.rs); no signal means that it is done.

local core, errors, waiting = ...

local pairs, type = pairs, type
local raise, misuse = errors.raise, errors.misuse
local wait_or_error = waiting.wait_or_error
local write_on, write_timed_out = core.write_on, core.write_timed_out

local _ENV = nil -- luacheck: ignore

local methods = {}

--- What a step without a result has come to, unless it waits: `nil, err`, or a raised misuse.
local function failed(name, signal, detail)
  if type(signal) == "string" then
    return misuse(name, signal, detail)
  end
  return nil, signal
end

--- Goes on with a step that did not succeed at once. `op` is the operation's name in errors.
local function settle(name, op, step, self, a, b, c, signal, detail)
  local expiry = detail
  while type(signal) == "number" do
    local err = wait_or_error(self, signal, expiry, op)
    if err then
      return nil, err
    end
    local value, renews
    value, signal, detail, renews = step(self, a, b, c)
    if signal == nil then
      return value
    elseif renews then
      expiry = detail
    end
  end
  return failed(name, signal, detail)
end

--- Defines `name` and `try_name` around a step with at most three arguments after its first.
local function define(target, name, step)
  local try_name = "try_" .. name

  target[name] = function(self, a, b, c)
    local value, signal, detail = step(self, a, b, c)
    if signal == nil then
      return value
    end
    local err
    value, err = settle(name, name, step, self, a, b, c, signal, detail)
    if err ~= nil then
      return raise(err)
    end
    return value
  end

  target[try_name] = function(self, a, b, c)
    local value, signal, detail = step(self, a, b, c)
    if signal == nil then
      return value
    end
    return settle(try_name, name, step, self, a, b, c, signal, detail)
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

for name, step in pairs(core.reading) do
  define(methods, name, step)
end
define(methods, "send_some", core.send_some)
define(methods, "get_option", core.fallible.get_option)
define_silent(methods, "set_option", core.fallible.set_option)
define_silent(methods, "shutdown", core.fallible.shutdown)

for name, step in pairs(core.plain) do
  methods[name] = function(self, a)
    local value, signal, detail = step(self, a)
    if signal ~= nil then
      return failed(name, signal, detail)
    end
    return value
  end
end

--- Goes on with a write that was queued, until it is done or its time is up.
local function settle_write(name, op, self, signal, detail, ticket)
  if type(signal) ~= "number" then
    return failed(name, signal, detail)
  end
  local expiry = detail
  local renewable = op == "write" or op == "write_str" or op == "send"
  while true do
    if not waiting.wait(self, signal, expiry) then
      local _, err = write_timed_out(self, ticket, op)
      return nil, err
    end
    local value, moved
    value, signal, detail, moved = write_on(self, ticket, op)
    if type(signal) ~= "number" then
      return value, signal
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
    local value, signal, detail, ticket = step(self, ...)
    if signal ~= nil then
      local err
      value, err = settle_write(name, name, self, signal, detail, ticket)
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
    local value, signal, detail, ticket = step(self, ...)
    if signal ~= nil then
      local err
      value, err = settle_write(try_name, name, self, signal, detail, ticket)
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
local nexts = {}
for name, step in pairs(core.iterators) do
  local check = core.iterator_checks[name]
  define(nexts, name, step)
  local next_item = nexts[name]
  methods[name] = function(self, a, b)
    local _, signal, detail = check(self, a, b)
    if signal ~= nil then
      return failed(name, signal, detail)
    end
    return function()
      return next_item(self, a, b)
    end
  end
end

local next_line = nexts.lines

return {
  methods = methods,
  close = methods.close,
  define = define,
  -- `for line in conn do`
  call = function(self)
    return next_line(self)
  end,
}
