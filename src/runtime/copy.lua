-- Copying: files to connections by `send_file`, and anything to anything by `tcp.copy`.
--
-- The kernel moves the bytes itself where it can: of a regular file to a connection, and from connection to connection,
-- both without TLS. Otherwise they come here in chunks. What was read from a connection and cannot be written goes back
-- to it.

local core, errors, contexts, loop, waiting, coroutines, connection = ...

local error, rawget, tonumber, tostring, type = error, rawget, tonumber, tostring, type
local huge, max, min = 1 / 0, math.max, math.min
local misuse, raise = errors.misuse, errors.raise
local methods, failed, is_busy, settle_write =
  connection.methods, connection.failed, connection.is_busy, connection.settle_write
local reading, readers = contexts.reading, contexts.readers
local READ, WRITE, PASS, READY = waiting.READ, waiting.WRITE, waiting.PASS, waiting.READY
local PENDING, WAITS, outcome = core.PENDING, core.WAITS, core.outcome
local cut, file_number, type_name = core.cut, core.file_number, core.type_name

local _ENV = nil -- luacheck: ignore

-- Bytes that are moved at once.
local CHUNK, LARGE = 64 * 1024, 1024 * 1024

-- Chunks that need no wait let the other tasks run after so many.
local SHARE = 16

---------------------------------------------------------------------------------------------------------------------
-- Lua's files

--- Whether a value is an open file of Lua's; misuse if it is a closed one.
local function is_file(name, position, value)
  local number = type(value) == "userdata" and file_number(value) or nil
  if number == -1 then
    return misuse(name, "bad argument #" .. position .. " to '", "' (open file expected, got a closed one)")
  end
  return number ~= nil
end

--- Where a file stands, with what was written to it where others see it; nil if it has no positions.
local function position_of(file)
  return file:flush() and file:seek("cur")
end

--- What keeps a file from being used, if anything does.
local function closed_file(op, file)
  return file_number(file) == -1 and errors.new("closed", op, "the file is closed") or nil
end

--- What a file's function that failed has said.
local function file_failure(op, problem, errno)
  return core.file_failure(op, tostring(problem), tonumber(errno))
end

--- Calls a function of a file that writes: who reads from a pipe may have gone.
local function writing(call, ...)
  core.block_pipe_signal(true)
  local ok, problem, errno = call(...)
  core.block_pipe_signal(false)
  return ok, problem, errno
end

---------------------------------------------------------------------------------------------------------------------
-- Steps

--- Reads from a connection, which the copy holds so that nobody else does, or from what reads a file.
local function read(state, conn, step, most)
  local op = state.op
  local value = step(conn, most)
  local expiry, has_expiry
  while value == WAITS or value == PENDING do
    local signal, detail, renews = READ, nil, nil
    if value == PENDING then
      signal, detail, renews = outcome()
      if type(signal) ~= "number" then
        return failed(state.name, signal, detail)
      end
    end
    if renews or not has_expiry then
      expiry, has_expiry = detail, true
    end
    local ended = READY
    if signal == PASS then
      loop.pass()
    else
      ended = waiting.wait(conn, signal, expiry, op, readers)
    end
    if ended ~= READY then
      return nil, cut(conn, op, ended)
    end
    value = step(conn, most)
  end
  return value
end

--- Goes on with a write to a connection: how many bytes, or nil and the error.
local function finish_write(state, value)
  if value == PENDING then
    return settle_write(state.name, "copy", state.target)
  end
  return value
end

---------------------------------------------------------------------------------------------------------------------
-- Sources and targets of chunks
--
-- A source is called with the state and how many bytes are wanted at most: it gives some, nil at the end, or nil and
-- the error. A target is called with the state and the bytes: it gives how many were taken, and an error.

--- Calls a function of the script's; what it raises is the script's, too.
local function call_back(state, fn, ...)
  state.calls_back = true
  local a, b = fn(...)
  state.calls_back = nil
  return a, b
end

--- What a function has said of its failure.
local function problem_of(state, problem)
  if errors.is_error(problem) then
    state.is_theirs = true
    return problem
  end
  return errors.new("system", state.op, tostring(problem))
end

local function read_connection(state, most)
  return read(state, state.source, core.reading.recv, min(most, CHUNK))
end

--- A file that may have to be waited for; false for a regular one.
local function slow_file(file)
  local number = file_number(file)
  return not core.file_size(number) and core.slow_file(number) or false
end

--- From a file that is no regular one: what Lua has read of it already, then what comes, without blocking.
local function read_slow_file(state, most)
  local file = state.source
  local count = core.file_buffered(file)
  if count and count > 0 then
    return file:read(min(count, most, CHUNK))
  end
  local bytes, err = read(state, state.reader, core.read_file, min(most, CHUNK))
  if bytes == "" then
    return nil
  end
  return bytes, err
end

local function read_file(state, most)
  local file = state.source
  local err = closed_file(state.op, file)
  if err then
    return nil, err
  end
  if state.reader == nil then
    state.reader = core.file_buffered(file) and slow_file(file)
  end
  if state.reader then
    return read_slow_file(state, most)
  end
  local bytes, problem, errno = file:read(min(most, CHUNK))
  if bytes == nil and problem ~= nil then
    return nil, file_failure(state.op, problem, errno)
  end
  return bytes
end

local function read_function(state)
  while true do
    local bytes, problem = call_back(state, state.source)
    if bytes == nil then
      return nil, problem ~= nil and problem_of(state, problem) or nil
    elseif type(bytes) ~= "string" then
      return misuse(state.name, "bad source of '", "' (string expected from the function, got "
        .. type_name(bytes) .. ")")
    elseif bytes ~= "" then
      return bytes
    end
    loop.pass()
  end
end

local function write_connection(state, bytes)
  loop.context().written, state.is_writing = nil, true
  local _, err = state.target:try_write(bytes)
  state.is_writing = nil
  return err and err.written or #bytes, err
end

--- A file's size; nil if it is no regular one.
local function size_of(file)
  return core.file_size(file_number(file))
end

--- How many bytes have come to a file since it had this size: its functions do not tell.
local function count_written(file, before, most)
  return before and min(max(size_of(file) - before, 0), most) or 0
end

--- To a file that is no regular one, without blocking.
local function write_slow_file(state, bytes)
  local done = 0
  while done < #bytes do
    local value = core.write_file(state.writer, bytes, done)
    if value == PENDING then
      local signal = outcome()
      if type(signal) ~= "number" then
        return done, signal
      end
      local ended = waiting.wait(state.writer, WRITE, nil, state.op)
      if ended ~= READY then
        return done, cut(state.writer, state.op, ended)
      end
      value = 0
    end
    done = done + value
  end
  return done
end

local function write_file(state, bytes)
  local file = state.target
  local err = closed_file(state.op, file)
  if err then
    return 0, err
  end
  if state.writer == nil then
    -- What it was given before comes first.
    state.writer = slow_file(file)
    writing(file.flush, file)
  end
  if state.writer then
    return write_slow_file(state, bytes)
  end
  local ok, problem, errno = writing(file.write, file, bytes)
  if ok and state.read ~= read_function then
    -- What a connection has brought is there for others at once.
    ok, problem, errno = writing(file.flush, file)
  end
  if not ok then
    return count_written(file, state.size, #bytes), file_failure(state.op, problem, errno)
  end
  state.size = state.size and state.size + #bytes
  return #bytes
end

--- What a function has brought is there in the end.
local function flush_target(state, before)
  local file = state.target
  if closed_file(state.op, file) then
    return nil
  end
  local ok, problem, errno = writing(file.flush, file)
  if not ok then
    state.total = count_written(file, before, state.total)
    return file_failure(state.op, problem, errno)
  end
end

local function write_function(state, bytes)
  local ok, problem = call_back(state, state.target, bytes)
  if not ok and problem ~= nil then
    return 0, problem_of(state, problem)
  end
  return #bytes
end

---------------------------------------------------------------------------------------------------------------------
-- Moving one chunk: how many bytes, 0 at the end, or nil and the error.

--- What was read and not written goes back to where it came from, if that can take it.
local function put_back(state, bytes)
  if core.is_connection(state.source) then
    core.put_back(state.source, bytes)
  elseif type(state.source) ~= "function" and not closed_file(state.op, state.source) then
    state.source:seek("cur", -#bytes)
  end
end

local function write_chunk(state, bytes)
  state.chunk = bytes
  local taken, err = state.write(state, bytes)
  state.chunk = err and bytes:sub(taken + 1) or nil
  if err ~= nil then
    return nil, err, taken
  end
  return taken
end

local function move_chunk(state, left)
  local bytes, err = state.read(state, left)
  if bytes == nil then
    return err == nil and 0 or nil, err
  elseif #bytes > left then
    bytes = bytes:sub(1, left)
  end
  return write_chunk(state, bytes)
end

--- Through a pipe, while much comes: small pieces are cheaper as chunks, and so is what waits.
local function pipe_chunk(state, left)
  if not state.is_bulk then
    local count, err, taken = move_chunk(state, left)
    state.is_bulk = count == CHUNK
    return count, err, taken
  end
  local pipe, err = read(state, state.source, core.pipe_in, min(left, LARGE))
  if err ~= nil then
    return nil, err
  elseif not pipe then
    return move_chunk(state, left)
  end
  local count = core.left_in_pipe(pipe)
  if count == 0 then
    return 0
  end
  state.pipe, state.is_bulk = pipe, count >= CHUNK
  local sent
  sent, err = finish_write(state, core.send_piped(state.target, pipe))
  if err == nil then
    state.pipe = nil
    return sent
  elseif err.data then
    -- The kernel does not move these.
    state.pipe, state.move = nil, move_chunk
    sent = err.written or 0
    local rest, problem, taken = write_chunk(state, err.data)
    return rest and sent + rest, problem, taken and sent + taken
  end
  return nil, err, err.written
end

--- Of a regular file, by the kernel or from there.
local function send_chunk(state, left)
  local file = state.source
  local err = closed_file(state.op, file)
  local position = not err and position_of(file)
  if err then
    return nil, err
  elseif position then
    local value = core.copy_file(state.target, file_number(file), position, min(left, LARGE))
    local sent
    if value ~= nil then
      sent, err = finish_write(state, value)
      if not closed_file(state.op, file) then
        file:seek("set", position + (sent or err.written or 0))
      end
    end
    if value ~= nil and not (err and core.is_shortage(err.errno)) then
      return sent, err, err and err.written
    end
  end
  state.move = move_chunk
  return move_chunk(state, left)
end

---------------------------------------------------------------------------------------------------------------------
-- A copy

--- Whether the task may go on: it may have been cancelled, or its time be over, though it never had to wait.
local function check(op)
  loop.pass()
  local context, ended = loop.enter(op)
  return not context and cut(nil, op, ended) or nil
end

--- Moves up to `limit` bytes.
local function run(state, limit, progress)
  local before, chunks = state.write == write_file and size_of(state.target), 0
  state.size = before
  while state.total < limit do
    local count, err, taken = state.move(state, limit - state.total)
    if count == nil then
      state.total = state.total + (taken or 0)
      return err
    elseif count == 0 then
      break
    end
    state.total, chunks = state.total + count, chunks + 1
    if progress then
      call_back(state, progress, state.total)
    end
    if chunks % SHARE == 0 then
      err = check(state.op)
      if err then
        return err
      end
    end
  end
  if state.write == write_file then
    return flush_target(state, before)
  end
end

local KINDS = {
  source = { position = 1, connection = read_connection, file = read_file, call = read_function },
  target = { position = 2, connection = write_connection, file = write_file, call = write_function },
}

--- How a source or a target is used.
local function use_of(name, role, value)
  local kind = KINDS[role]
  if core.is_connection(value) then
    return kind.connection
  elseif is_file(name, kind.position, value) then
    return kind.file
  elseif type(value) == "function" then
    return kind.call
  end
  return misuse(name, "bad argument #" .. kind.position .. " to '",
    "' (Connection, file or function expected, got " .. type_name(value) .. ")")
end

--- Takes note of how far a write had come that an error has cut.
local function give_up_write(state)
  local context = loop.context()
  if context.ticket and context.writes == state.target then
    contexts.release(context)
  end
  if state.chunk and state.is_writing then
    state.chunk = state.chunk:sub((context.written or 0) + 1)
  end
end

--- Lets go of the source, with what was read of it and not written.
local function finish(state)
  give_up_write(state)
  if state.reader then
    core.close_slow_file(state.reader)
  end
  if state.writer then
    core.close_slow_file(state.writer)
  end
  if reading[state.source] == state then
    reading[state.source] = nil
  end
  if state.pipe then
    put_back(state, core.take_back(state.pipe))
  elseif state.chunk then
    put_back(state, state.chunk)
  end
end

--- Copies: how many bytes, or nil and the error, which tells it, too. What functions of the script's raise comes as a
-- third result, true.
local function copy(name, op, source, target, limit, progress)
  local state = { name = name, op = op, source = source, target = target, total = 0, move = move_chunk }
  state.read, state.write = use_of(name, "source", source), use_of(name, "target", target)
  if state.read == read_connection then
    if reading[source] and is_busy(source) then
      local err = core.busy(source, op)
      err.written = 0
      return nil, err
    end
    reading[source] = state
    if state.write == write_connection and core.can_be_piped(target) then
      state.move = pipe_chunk
    end
  elseif state.read == read_file and state.write == write_connection then
    state.move = send_chunk
  end
  local ok, err = coroutines.pcall(run, state, limit, progress)
  finish(state)
  if not ok then
    if not state.calls_back or loop.is_interrupt(err) then
      return error(err, 0)
    end
    return nil, err, true
  elseif err ~= nil then
    if not state.is_theirs then
      err.op, err.written = op, state.total
      err.peer = err.peer or state.write == write_connection and core.peer(target) or nil
    end
    return nil, err
  end
  return state.total
end

local function copy_with_options(name, source, target, options)
  local limit = core.copy_options(options)
  if limit == PENDING then
    return misuse(name, outcome())
  end
  return copy(name, "copy", source, target, limit or huge, options and rawget(options, "progress"))
end

---------------------------------------------------------------------------------------------------------------------
-- send_file

--- Sends part of a regular file, as one write: the number of bytes, or nil and the error; false for another kind of
-- file.
local function send_part(name, conn, path, first, count, number, position)
  local value = core.send_file(conn, path, first, count, number, position)
  if value == nil then
    return false
  elseif value == PENDING then
    return settle_write(name, "send_file", conn)
  end
  return value
end

--- An open file stands behind what was sent afterwards. One of another kind is copied in chunks.
local function send_file(name, self, source, first, count)
  if not is_file(name, 1, source) then
    return send_part(name, self, source, first, count)
  end
  local position = position_of(source)
  if position then
    local sent, err = send_part(name, self, nil, first, count, file_number(source), position)
    if sent ~= false then
      if not closed_file("send_file", source) then
        source:seek("set", (first and first - 1 or position) + (sent or err.written or 0))
      end
      return sent, err
    end
  elseif first ~= nil then
    local err = errors.new("system", "send_file", "a file of this kind has no positions")
    err.peer, err.written = core.peer(self), 0
    return nil, err
  end
  return copy(name, "send_file", source, self, tonumber(count) or huge)
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

return function(module)
  function module.copy(source, target, options)
    local total, err, is_theirs = copy_with_options("copy", source, target, options)
    if is_theirs then
      return error(err, 0)
    elseif err ~= nil then
      return raise(err)
    end
    return total
  end

  function module.try_copy(source, target, options)
    local total, err = copy_with_options("try_copy", source, target, options)
    return total, err
  end
end
