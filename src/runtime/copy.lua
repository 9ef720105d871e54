-- Copying: files to connections by `send_file`, and anything to anything by `tcp.copy`.
--
-- The kernel moves the bytes itself where it can: of a regular file to a connection, and from connection to connection,
-- both without TLS. Otherwise they come here in chunks.

local core, errors, loop, connection = ...

local rawget, tostring, type = rawget, tostring, type
local huge, min = 1 / 0, math.min
local misuse, raise = errors.misuse, errors.raise
local methods, settle_write = connection.methods, connection.settle_write
local PENDING, outcome = core.PENDING, core.outcome
local type_name = core.type_name

local _ENV = nil -- luacheck: ignore

-- Bytes that are moved at once.
local CHUNK, LARGE = 64 * 1024, 1024 * 1024

-- Chunks that need no wait let the other tasks run after so many.
local SHARE = 16

---------------------------------------------------------------------------------------------------------------------
-- Lua's files

--- Whether a value is an open file of Lua's; misuse if it is a closed one.
local function is_file(name, position, value)
  local number = type(value) == "userdata" and core.file_number(value)
  if number == -1 then
    return misuse(name, "bad argument #" .. position .. " to '", "' (open file expected, got a closed one)")
  end
  return number ~= nil and number ~= false
end

--- Where a file stands, with what was written to it where others see it; nil if it has no positions.
local function position_of(file)
  return file:flush() and file:seek("cur")
end

---------------------------------------------------------------------------------------------------------------------
-- send_file

--- Sends part of a regular file, as one write: the number of bytes, or nil and the error; false for another kind of
-- file.
local function send_part(name, op, conn, path, first, count, number, position)
  local value = core.send_file(conn, path, first, count, number, position)
  if value == nil then
    return false
  elseif value == PENDING then
    return settle_write(name, op, conn)
  end
  return value
end

--- Sends from an open file, which stands behind what was sent afterwards.
local function send_open_file(name, op, conn, file, first, count)
  local position = position_of(file)
  local sent, err = false, nil
  if position then
    sent, err = send_part(name, op, conn, nil, first, count, core.file_number(file), position)
    if sent ~= false then
      local start = first and first - 1 or position
      file:seek("set", start + (sent or err.written or 0))
    end
  end
  return sent, err
end

local copy

local function send_file(name, self, source, first, count)
  if not is_file(name, 1, source) then
    return send_part(name, "send_file", self, source, first, count)
  end
  local sent, err = send_open_file(name, "send_file", self, source, first, count)
  if sent == false then
    if first ~= nil then
      return nil, errors.new("system", "send_file", "a file of this kind has no positions")
    end
    return copy(name, "send_file", source, self, count or huge)
  end
  return sent, err
end

function methods.send_file(self, source, first, count)
  local sent, err = send_file("send_file", self, source, first, count)
  if err ~= nil then
    return raise(err)
  end
  return sent
end

function methods.try_send_file(self, source, first, count)
  return send_file("try_send_file", self, source, first, count)
end

---------------------------------------------------------------------------------------------------------------------
-- Sources and targets of chunks
--
-- A source is called with the number of bytes that are wanted at most: it gives some, nil at the end, or nil and what
-- went wrong. A target is called with bytes, and gives what went wrong.

local function system_error(op, message, errno)
  local err = errors.new("system", op, tostring(message))
  err.errno = errno
  return err
end

--- What a function of the script's or a file has said of its failure, as an error object.
local function problem_of(op, problem, errno)
  return errors.is_error(problem) and problem or system_error(op, problem, errno)
end

local function connection_source(conn)
  return function(most)
    return conn:try_recv(min(most, CHUNK))
  end
end

local function file_source(op, file)
  return function(most)
    local bytes, problem, errno = file:read(min(most, CHUNK))
    if bytes == nil and problem ~= nil then
      return nil, problem_of(op, problem, errno)
    end
    return bytes
  end
end

local function function_source(name, op, fn)
  return function()
    while true do
      local bytes, problem = fn()
      if bytes == nil then
        return nil, problem ~= nil and problem_of(op, problem) or nil
      elseif type(bytes) ~= "string" then
        return misuse(name, "bad source of '", "' (string expected from the function, got " .. type_name(bytes) .. ")")
      elseif bytes ~= "" then
        return bytes
      end
      loop.pass()
    end
  end
end

local function connection_target(conn)
  return function(bytes)
    local _, err = conn:try_write(bytes)
    return err
  end
end

local function file_target(op, file)
  return function(bytes)
    local ok, problem, errno = file:write(bytes)
    return not ok and problem_of(op, problem, errno) or nil
  end
end

local function function_target(op, fn)
  return function(bytes)
    local ok, problem = fn(bytes)
    return not ok and problem ~= nil and problem_of(op, problem) or nil
  end
end

---------------------------------------------------------------------------------------------------------------------
-- Moving

--- One chunk by way of Lua: how many bytes, 0 at the end, or nil and the error.
local function move_chunk(read, write, left)
  local bytes, err = read(left)
  if bytes == nil then
    return err == nil and 0 or nil, err
  elseif #bytes > left then
    bytes = bytes:sub(1, left)
  end
  err = write(bytes)
  if err ~= nil then
    return nil, err
  end
  return #bytes
end

local piping = {}
connection.define_read(piping, "copy", core.pipe_in)

--- One chunk through a pipe. What was read before goes first.
local function pipe_chunk(name, source, target, pump, left)
  if source:buffered() > 0 then
    return move_chunk(connection_source(source), connection_target(target), left)
  end
  local count, err = piping.try_copy(source, pump, min(left, LARGE))
  if err ~= nil or count == 0 then
    return count, err
  end
  local value = core.send_piped(target, pump, count)
  if value == PENDING then
    return settle_write(name, "copy", target)
  end
  return value
end

--- What moves the next chunk: a function of how many bytes are left.
local function mover(name, op, source, target)
  local from, to = core.is_connection(source), core.is_connection(target)
  local from_file, to_file = not from and is_file(name, 1, source), not to and is_file(name, 2, target)
  if from and to and core.can_be_piped(source) and core.can_be_piped(target) then
    local pump = core.pump()
    if pump then
      return function(left)
        return pipe_chunk(name, source, target, pump, left)
      end
    end
  end
  local read, write
  if from then
    read = connection_source(source)
  elseif from_file then
    read = file_source(op, source)
  elseif type(source) == "function" then
    read = function_source(name, op, source)
  else
    return misuse(name, "bad argument #1 to '", "' (Connection, file or function expected, got " ..
      type_name(source) .. ")")
  end
  if to then
    write = connection_target(target)
  elseif to_file then
    write = file_target(op, target)
  elseif type(target) == "function" then
    write = function_target(op, target)
  else
    return misuse(name, "bad argument #2 to '", "' (Connection, file or function expected, got " ..
      type_name(target) .. ")")
  end
  local may_send = from_file and to
  return function(left)
    if may_send then
      local sent, err = send_open_file(name, op, target, source, nil, min(left, LARGE))
      if sent ~= false then
        return sent, err
      end
      may_send = false
    end
    return move_chunk(read, write, left)
  end
end

--- Moves up to `limit` bytes: how many there were, or nil and the error, which tells it, too.
function copy(name, op, source, target, limit, progress)
  local move, total, chunks = mover(name, op, source, target), 0, 0
  while total < limit do
    local count, err = move(limit - total)
    if count == nil then
      err.op, err.written = op, total + (err.written or 0)
      return nil, err
    elseif count == 0 then
      break
    end
    total, chunks = total + count, chunks + 1
    if progress then
      progress(total)
    end
    if chunks % SHARE == 0 then
      loop.pass()
    end
  end
  return total
end

local function copy_with_options(name, source, target, options)
  local limit = core.copy_options(options)
  if limit == PENDING then
    return misuse(name, outcome())
  end
  return copy(name, "copy", source, target, limit or huge, options and rawget(options, "progress"))
end

return function(module)
  function module.copy(source, target, options)
    local total, err = copy_with_options("copy", source, target, options)
    if err ~= nil then
      return raise(err)
    end
    return total
  end

  function module.try_copy(source, target, options)
    return copy_with_options("try_copy", source, target, options)
  end
end
