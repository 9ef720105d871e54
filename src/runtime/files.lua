-- Lua's files as sources and targets of a copy: regular ones through Lua's own functions, pipes and terminals without
-- blocking.

local core, errors, loop, waiting, connection = ...

local select, setmetatable, tonumber, tostring, type = select, setmetatable, tonumber, tostring, type
local max, min, pcall = math.max, math.min, pcall
local error = error
local misuse, failed = errors.misuse, connection.failed
local READ, WRITE, PASS, READY = waiting.READ, waiting.WRITE, waiting.PASS, waiting.READY
local PENDING, WAITS, outcome = core.PENDING, core.WAITS, core.outcome
local block_pipe_signal, cut, file_number = core.block_pipe_signal, core.cut, core.file_number

local _ENV = nil -- luacheck: ignore

local files = {}

-- Bytes that are moved at once.
local CHUNK = 64 * 1024
files.CHUNK = CHUNK

-- What was read of a file that has no positions, and could not be written: the next copy begins with it.
local kept = setmetatable({}, { __mode = "k" })

--- Whether a value is an open file of Lua's; misuse if it is a closed one.
function files.check(name, position, value)
  local number = type(value) == "userdata" and file_number(value) or nil
  if number == -1 then
    return misuse(name, "bad argument #" .. position .. " to '", "' (open file expected, got a closed one)")
  end
  return number ~= nil
end

--- Where a file stands, with what was written to it where others see it; nil if it has no positions.
function files.position(file)
  return file:flush() and file:seek("cur")
end

--- What keeps a file from being used, if anything does.
local function closed(op, file)
  return file_number(file) == -1 and errors.new("closed", op, "the file is closed") or nil
end

files.closed = closed

--- What a file's function that failed has said.
local function failure(op, problem, errno)
  return core.file_failure(op, tostring(problem), tonumber(errno))
end

local function unblock(state, ok, ...)
  block_pipe_signal(false)
  state.blocks_signal = nil
  if not ok then
    return error((...), 0)
  end
  return ...
end

--- Calls a function of a file that writes: who reads from a pipe may have gone.
local function writing(state, call, ...)
  state.blocks_signal = true
  block_pipe_signal(true)
  return unblock(state, pcall(call, ...))
end

--- Reads by a step from a connection, which the copy holds so that nobody else does, or from what reads a file.
function files.await(state, source, step, most, other)
  local op = state.op
  local value = step(source, most, other)
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
      ended = waiting.wait(source, signal, expiry, op, state.readers)
    end
    if ended ~= READY then
      return nil, cut(source, op, ended)
    end
    value = step(source, most, other)
  end
  return value
end

--- What reads or writes a file without blocking. It holds the file open, and with it a pipe whose process may wait for
-- its end: it is closed again after each chunk.
local function open_slow(state, file)
  local it = core.slow_file(file_number(file))
  if it == PENDING then
    return failed(state.name, outcome())
  end
  state.slow = it
  return it
end

local function close_slow(state)
  local slow = state.slow
  if slow then
    -- Not twice, whatever strikes in between.
    state.slow = nil
    core.close_slow_file(slow)
  end
end

---------------------------------------------------------------------------------------------------------------------
-- Reading

--- What Lua has read of it already, then what comes.
local function read_slow(state, most)
  local file = state.source
  local count = core.file_buffered(file)
  if count and count > 0 then
    return file:read(min(count, most))
  end
  local slow, err = open_slow(state, file)
  if not slow then
    return nil, err
  end
  local bytes
  bytes, err = files.await(state, slow, core.read_file, most)
  close_slow(state)
  if bytes == "" then
    return nil, closed(state.op, file)
  end
  return bytes, err
end

--- Some bytes of the source, nil at its end, or nil and the error.
function files.read(state, most)
  local file = state.source
  local err = closed(state.op, file)
  if err then
    return nil, err
  end
  most = min(most, CHUNK)
  local rest = kept[file]
  if rest then
    kept[file] = #rest > most and rest:sub(most + 1) or nil
    return rest:sub(1, most)
  end
  if state.reads_slowly == nil then
    -- How much Lua has read already is not known everywhere.
    state.reads_slowly = core.file_buffered(file) and not core.is_regular(file_number(file)) or false
  end
  if state.reads_slowly then
    return read_slow(state, most)
  end
  local bytes, problem, errno = file:read(most)
  if bytes == nil and problem ~= nil then
    return nil, failure(state.op, problem, errno)
  end
  return bytes
end

--- What was read and not written comes first in the next copy. A regular file goes back.
function files.put_back(state, bytes)
  local file = state.source
  if not closed(state.op, file) and (state.reads_slowly or not file:seek("cur", -#bytes)) then
    kept[file] = bytes .. (kept[file] or "")
  end
end

---------------------------------------------------------------------------------------------------------------------
-- Writing

--- Where the kernel has come to in a file; nil if it has no positions.
local function progress_of(file)
  return core.file_position(file_number(file))
end

--- How many bytes have reached a file that stood here before: its functions do not tell.
local function count_written(file, before, most)
  return before and min(max(progress_of(file) - before, 0), most) or 0
end

local function write_slow(state, bytes)
  local done = 0
  state.done = done
  local slow, err = open_slow(state, state.target)
  if not slow then
    return 0, err
  end
  while done < #bytes do
    local value = core.write_file(slow, bytes, done)
    if value == PENDING then
      local signal, detail = outcome()
      if type(signal) ~= "number" then
        return done, select(2, failed(state.name, signal, detail))
      end
      local ended = waiting.wait(slow, WRITE, nil, state.op)
      if ended ~= READY then
        return done, cut(slow, state.op, ended)
      end
      value = 0
    end
    done = done + value
    state.done = done
  end
  close_slow(state)
  return done
end

--- Before the first bytes: what the file was given earlier comes first.
local function open_target(state)
  local file = state.target
  state.writes_slowly = not core.is_regular(file_number(file))
  writing(state, file.flush, file)
  state.begin = progress_of(file)
  state.stands = state.begin
end

--- Writes to the target: how many bytes were taken, and the error. `is_prompt`: they are there for others at once.
function files.write(state, bytes, is_prompt)
  local file = state.target
  local err = closed(state.op, file)
  if err then
    return 0, err
  elseif state.writes_slowly == nil then
    open_target(state)
  end
  if state.writes_slowly then
    return write_slow(state, bytes)
  end
  local ok, problem, errno = writing(state, file.write, file, bytes)
  state.done = ok and #bytes
  if ok and is_prompt then
    ok, problem, errno = writing(state, file.flush, file)
  end
  if not ok then
    return count_written(file, state.stands, #bytes), failure(state.op, problem, errno)
  end
  state.stands = state.stands and state.stands + #bytes
  return #bytes
end

--- All that was written is there in the end: the error, if it is not.
function files.flush(state)
  local file = state.target
  if state.writes_slowly == nil or closed(state.op, file) then
    return nil
  end
  local ok, problem, errno = writing(state, file.flush, file)
  if not ok then
    state.total = count_written(file, state.begin, state.total)
    return failure(state.op, problem, errno)
  end
end

function files.finish(state)
  if state.blocks_signal then
    block_pipe_signal(false)
  end
  close_slow(state)
end

return files
