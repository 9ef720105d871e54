-- Copying: files to connections by `send_file`, and anything to anything by `tcp.copy`.
--
-- The kernel moves the bytes itself where it can: of a regular file to a connection, and from connection to connection,
-- both without TLS. Otherwise they come here in chunks. What was read from a connection and cannot be written goes back
-- to it.

local core, errors, contexts, loop, coroutines, connection, files = ...

local error, rawget, status, tonumber, tostring, type = error, rawget, coroutine.status, tonumber, tostring, type
local running = coroutine.running
local huge, min = 1 / 0, math.min
local misuse, raise = errors.misuse, errors.raise
local methods, is_busy, settle_write = connection.methods, connection.is_busy, connection.settle_write
local reading, readers = contexts.reading, contexts.readers
local PENDING, outcome = core.PENDING, core.outcome
local file_number, type_name = core.file_number, core.type_name

local _ENV = nil -- luacheck: ignore

-- Bytes that are moved at once.
local CHUNK, LARGE = files.CHUNK, 1024 * 1024

-- Chunks that need no wait let the other tasks run after so many.
local SHARE = 16

---------------------------------------------------------------------------------------------------------------------
-- Sources and targets of chunks
--
-- A source is called with the state and how many bytes are wanted at most: it gives some, nil at the end, or nil and
-- the error. A target is called with the state and the bytes: it gives how many were taken, and an error.

--- Whether a copy was left in the middle, and may never come back: in its coroutine, or cut by an error from outside.
local function has_left(state)
  local thread = state.thread
  if state.context == loop.context() and thread == (running()) then
    return not state.calls_back
  end
  return thread and thread ~= state.context.thread and not coroutines.waits(thread)
    and (status(thread) == "suspended" or status(thread) == "dead")
end

--- Takes the source for this copy alone; the error if somebody else reads from it.
local function claim(state)
  local source = state.source
  if reading[source] ~= state then
    if reading[source] and is_busy(source) then
      return core.busy(source, state.op)
    end
    reading[source] = state
  end
end

--- Reads from the connection that is the source.
local function read(state, step, most, other)
  local err = claim(state)
  if err then
    return nil, err
  end
  return files.await(state, state.source, step, most, other)
end

local function read_connection(state, most)
  return read(state, core.reading.recv, min(most, CHUNK))
end

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

--- Goes on with a write to the connection that is the target: how many bytes, or nil and the error.
local function finish_write(state, value)
  if value == PENDING then
    return settle_write(state.name, "copy", state.target)
  end
  return value
end

local function write_connection(state, bytes)
  loop.context().written, state.is_writing = nil, true
  local _, err = state.target:try_write(bytes)
  state.is_writing = nil
  return err and err.written or #bytes, err
end

local function write_file(state, bytes)
  -- What a connection has brought is there for others at once.
  return files.write(state, bytes, state.read ~= read_function)
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
  if state.read == read_connection then
    core.put_back(state.source, bytes)
  elseif state.read == files.read then
    files.put_back(state, bytes)
  end
end

local function write_chunk(state, bytes)
  state.chunk, state.done = bytes, nil
  local taken, err = state.write(state, bytes)
  state.chunk = err and bytes:sub(taken + 1) or nil
  if err ~= nil then
    return nil, err, taken
  end
  return taken
end

local function move_chunk(state, left)
  local err
  state.chunk, err = state.read(state, left)
  local bytes = state.chunk
  if bytes == nil then
    return err == nil and 0 or nil, err
  elseif #bytes > left then
    bytes = bytes:sub(1, left)
  end
  return write_chunk(state, bytes)
end

local function close_pipe(state)
  local pipe = state.pipe
  if pipe then
    state.pipe = nil
    core.close_pipe(pipe)
  end
end

local function send_piped(state)
  local sent, err = finish_write(state, core.send_piped(state.target, state.pipe))
  if err == nil then
    return sent
  elseif not err.data then
    return nil, err, err.written
  end
  -- The kernel does not move these.
  close_pipe(state)
  state.move, sent = move_chunk, err.written or 0
  local rest, problem, taken = write_chunk(state, err.data)
  return rest and sent + rest, problem, taken and sent + taken
end

--- Through a pipe, while much comes: small pieces are cheaper as chunks. Who waits holds no pipe.
local function pipe_chunk(state, left)
  if state.is_bulk then
    state.pipe = state.pipe or core.pipe()
    local count, err = false, nil
    if state.pipe then
      count, err = read(state, core.pipe_in, min(left, LARGE), state.pipe)
    end
    if err ~= nil or count == 0 then
      return count, err
    elseif count then
      state.is_bulk = count >= CHUNK
      return send_piped(state)
    end
  end
  close_pipe(state)
  local count, err, taken = move_chunk(state, left)
  state.is_bulk = count == CHUNK
  return count, err, taken
end

--- Moves the file that is the source behind what was sent of it.
local function follow(state, sent)
  if state.position and not files.closed(state.op, state.source) then
    state.source:seek("set", state.position + sent)
  end
  state.position = nil
end

--- Of a regular file, by the kernel or from there.
local function send_chunk(state, left)
  local file = state.source
  local err = files.closed(state.op, file)
  local position = not err and files.position(file)
  if err then
    return nil, err
  elseif position then
    loop.context().written, state.position = nil, position
    local value = core.copy_file(state.target, file_number(file), position, min(left, LARGE))
    local sent
    if value ~= nil then
      sent, err = finish_write(state, value)
      follow(state, sent or err.written or 0)
    end
    if value ~= nil and not (err and core.is_shortage(err.errno)) then
      return sent, err, err and err.written
    end
  end
  state.move, state.position = move_chunk, nil
  return move_chunk(state, left)
end

---------------------------------------------------------------------------------------------------------------------
-- A copy

--- Whether the task may go on: it may have been cancelled, or its time be over, though it never had to wait.
local function check(op)
  loop.pass()
  local context, ended = loop.enter(op)
  return not context and core.cut(nil, op, ended) or nil
end

--- Moves up to `limit` bytes.
local function run(state, limit, progress)
  local chunks, busy = 0, state.read == read_connection and claim(state)
  if busy then
    return busy
  end
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
    return files.flush(state)
  end
end

local KINDS = {
  source = { position = 1, connection = read_connection, file = files.read, call = read_function },
  target = { position = 2, connection = write_connection, file = write_file, call = write_function },
}

--- How a source or a target is used; `problem`: what `io.open` has given instead of it.
local function use_of(name, role, value, problem)
  local kind = KINDS[role]
  if core.is_connection(value) then
    return kind.connection
  elseif files.check(name, kind.position, value) then
    return kind.file
  elseif type(value) == "function" then
    return kind.call
  end
  local got = type_name(value) .. (value == nil and type(problem) == "string" and ": " .. problem or "")
  return misuse(name, "bad argument #" .. kind.position .. " to '",
    "' (Connection, file or function expected, got " .. got .. ")")
end

--- Takes note of how far a write had come that an error has cut.
local function give_up_write(state)
  local context = loop.context()
  if context.ticket and context.writes == state.target then
    contexts.release(context)
  end
  local written = context.written or 0
  if state.position then
    follow(state, written)
  elseif state.chunk then
    state.chunk = state.chunk:sub((state.is_writing and written or state.done or 0) + 1)
  end
end

--- Lets go of the source, with what was read of it and not written.
local function finish(state)
  if reading[state.source] == state then
    reading[state.source] = nil
  end
  give_up_write(state)
  files.finish(state)
  if state.pipe and core.left_in_pipe(state.pipe) > 0 then
    put_back(state, core.take_back(state.pipe))
  elseif state.chunk and state.chunk ~= "" then
    put_back(state, state.chunk)
  end
  close_pipe(state)
end

--- Copies: how many bytes, or nil and the error, which tells it, too. What functions of the script's raise comes as a
-- third result, true.
local function copy(name, op, source, target, limit, options)
  local state = { name = name, op = op, source = source, target = target, total = 0, move = move_chunk }
  state.read, state.write = use_of(name, "source", source), use_of(name, "target", target, options)
  if options ~= nil then
    limit = core.copy_options(options)
    if limit == PENDING then
      return misuse(name, outcome())
    end
  end
  if state.read == read_connection then
    state.readers, state.context, state.thread, state.has_left = readers, loop.context(), (running()), has_left
    if state.write == write_connection and core.can_be_piped(target) then
      state.move = pipe_chunk
    end
  elseif state.read == files.read and state.write == write_connection then
    state.move = send_chunk
  end
  local ok, err = coroutines.pcall(run, state, limit or huge, options and rawget(options, "progress"))
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
  if not files.check(name, 1, source) then
    return send_part(name, self, source, first, count)
  end
  local position = files.position(source)
  if position then
    local sent, err = send_part(name, self, nil, first, count, file_number(source), position)
    if sent ~= false then
      if not files.closed("send_file", source) then
        source:seek("set", (first and first - 1 or position) + (sent or err.written or 0))
      end
      return sent, err
    end
  elseif first ~= nil then
    local err = errors.new("system", "send_file", "a file of this kind has no positions")
    err.peer, err.written = core.peer(self), 0
    return nil, err
  end
  return copy(name, "send_file", source, self, tonumber(count))
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
    local total, err, is_theirs = copy("copy", "copy", source, target, nil, options)
    if is_theirs then
      return error(err, 0)
    elseif err ~= nil then
      return raise(err)
    end
    return total
  end

  function module.try_copy(source, target, options)
    local total, err = copy("try_copy", "copy", source, target, nil, options)
    return total, err
  end
end
