-- What comes about in steps, from a script's arguments on: a connection, a listener, a look-up.

local core, errors, waiting = ...

local collectgarbage, type = collectgarbage, type
local misuse = errors.misuse
local wait, cut = waiting.wait, core.cut
local READY, PENDING, outcome = waiting.READY, core.PENDING, core.outcome

local _ENV = nil -- luacheck: ignore

--- `begin` is the first step, and `go_on` the others, with what the first gave in place of the arguments. `name` is
-- the function that was called, `op` what errors call it. `limit`: when it has to end, if it was tried before. Gives
-- the value or the error, and when it has to end.
local function establish(name, op, limit, begin, go_on, ...)
  local value = begin(...)
  local signal, expiry, under_way
  if value == PENDING then
    signal, expiry, under_way = outcome()
  end
  limit = limit or type(signal) == "number" and expiry or nil
  while type(signal) == "number" do
    local ended = wait(under_way, signal, limit, op)
    if ended ~= READY then
      return nil, cut(under_way, op, ended)
    end
    value, signal, expiry = go_on(under_way), nil, nil
    if value == PENDING then
      signal, expiry = outcome()
    end
  end
  if type(signal) == "string" then
    return misuse(name, signal, expiry)
  elseif signal ~= nil then
    return nil, signal, limit
  end
  return value
end

--- Connections that nobody holds any more may be waiting for their collection: where descriptors have run out it is
-- tried once more without them.
local function establish_or_collect(name, op, begin, go_on, ...)
  local value, err, limit = establish(name, op, nil, begin, go_on, ...)
  if err ~= nil and core.is_shortage(err.errno) then
    collectgarbage()
    collectgarbage()
    value, err = establish(name, op, limit, begin, go_on, ...)
  end
  return value, err
end

return establish_or_collect
