-- Error objects and the one place where failures are raised.

local core = ...

local debug_traceback = core.debug and core.debug.traceback
local error, getmetatable, pairs, pcall, rawget, setmetatable, tonumber, tostring, type =
  error, getmetatable, pairs, pcall, rawget, setmetatable, tonumber, tostring, type
local where, check_kind, type_name = core.where, core.check_kind, core.type_name
local PENDING, outcome = core.PENDING, core.outcome
local metatable = core.error_metatable

local _ENV = nil -- luacheck: ignore

local errors = {}

metatable.__name = "tcp.error"

--- `op peer: message`, with the script's position in front if it was raised.
function metatable.__tostring(err)
  local text = tostring(err.op)
  if err.peer then
    text = text .. " " .. tostring(err.peer)
  end
  text = text .. ": " .. tostring(err.message)
  if err.where then
    text = tostring(err.where) .. ": " .. text
  end
  return text
end

function metatable.__concat(left, right)
  return tostring(left) .. tostring(right)
end

local function is_error(value)
  return type(value) == "table" and getmetatable(value) == metatable
end

--- An error object that the embedded Lua makes.
function errors.new(kind, op, message)
  return setmetatable({ kind = kind, op = op, message = message }, metatable)
end

--- Raises a fresh error object, with the position of the script's call.
function errors.raise(err)
  err.where = where()
  return error(err, 0)
end

--- Raises a script's mistake as an ordinary string. `before` and `after` go around the function's name. Without
-- `after` it is none, but what a hook has raised in a step (Ctrl-C), and goes on as it is.
function errors.misuse(name, before, after)
  if after == nil then
    return error(before, 0)
  end
  local position = where()
  local text = before .. name .. after
  return error(position and position .. ": " .. text or text, 0)
end

-- What neither waits nor fails, but may be struck by a hook.
local MAKERS = {
  [core] = { "busy", "cut", "file_failure", "last", "no_connection", "peer_name", "pipe", "remember", "take_back" },
  [core.json] = { "failed" },
}

for functions, names in pairs(MAKERS) do
  for i = 1, #names do
    local make = functions[names[i]]
    functions[names[i]] = function(...)
      local value = make(...)
      if value == PENDING then
        return errors.misuse("", outcome())
      end
      return value
    end
  end
end

--- Any value as text, also one whose __tostring fails.
function errors.text(value)
  local ok, text = pcall(tostring, value)
  return ok and text or "(a " .. type(value) .. " whose __tostring fails)"
end

--- Where any value may stand: a colon for a dot puts the module there, before another one.
local function check_dot(name, value)
  local got = type_name(value)
  if type(value) == "table" and got ~= "table" then
    return errors.misuse(name, "bad argument #1 to '", "' (value expected, got " .. got .. ")")
  end
end

function errors.is_error(value, kind)
  if kind ~= nil then
    check_dot("is_error", value)
    if check_kind(kind) == PENDING then
      return errors.misuse("is_error", outcome())
    end
  end
  return is_error(value) and (kind == nil or rawget(value, "kind") == kind)
end

--- `debug.traceback` that also takes error objects: `([thread,] [message [, level]])`.
function errors.traceback(thread, message, level)
  if type(thread) ~= "thread" then
    thread, message, level = nil, thread, message
  end
  if level ~= nil and not tonumber(level) then
    check_dot("traceback", message)
    local position = thread and 3 or 2
    return errors.misuse("traceback", "bad argument #" .. position .. " to '",
      "' (number expected, got " .. type_name(level) .. ")")
  end
  local original = message
  if is_error(message) then
    message = tostring(message)
  elseif message == nil then
    message = ""
  elseif type(message) ~= "string" and type(message) ~= "number" then
    return message
  end
  if not debug_traceback then
    return message
  elseif thread then
    -- Lua 5.1 minds a nil at the end.
    return debug_traceback(thread, message, level or 0)
  end
  local last, text = errors.last_of_task, debug_traceback(message, (tonumber(level) or 1) + 1):gsub("^\n", "")
  if last and last.value == original then
    -- It was raised in a task, and arrived by its join.
    text = text .. "\n" .. last.text:gsub("^.*\nstack traceback:", "in its task:")
  end
  return text
end

--- The traceback of a task that has failed, without the module's own functions.
function errors.task_traceback(thread, text)
  local traceback = errors.traceback(thread, text)
  traceback = traceback:gsub("\n[^\n]*%[C%]: in [^\n]*'error'", ""):gsub("\n\t=?tcp/[^\n]*", "")
  return (traceback:gsub("\n\t%[builtin[^\n]*", ""):gsub("\nstack traceback:$", ""))
end

return errors
