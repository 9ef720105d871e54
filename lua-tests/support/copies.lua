-- What is copied from and to: ends of every kind, and files that are gone after a test.

local lfs = require("lfs")
local tcp = require("tcp.core")
local certificates = require("support.certificates")
local tasks = require("support.tasks")
local transports = require("support.transports")

local copies = { contents = certificates.contents }

-- No multiple of any size of a chunk.
local PIECE = 70001

local PATIENCE = 20

local paths, opened = {}, {}

--- So many bytes, of which no sixteen come twice.
function copies.bytes(count)
  local lines = {}
  for i = 1, math.ceil(count / 16) do
    lines[i] = ("%015d\n"):format(i)
  end
  return table.concat(lines):sub(1, count)
end

--- The path of a file of a test; without bytes there is none yet.
function copies.path(bytes)
  local path = os.tmpname()
  paths[#paths + 1] = path
  if bytes then
    certificates.fill(path, bytes)
  else
    os.remove(path)
  end
  return path
end

--- Has `clean` close it, whatever it is.
function copies.opens(it)
  opened[#opened + 1] = it
  return it
end

--- A Lua file with these bytes in it, and its path.
function copies.open(mode, bytes)
  local path = copies.path(bytes)
  return copies.opens(assert(io.open(path, mode))), path
end

--- The path of a file of so many bytes that takes no room: zeros, and `tail` at its end.
function copies.sparse(size, tail)
  local file, path = copies.open("wb", "")
  assert(file:seek("set", size - #tail))
  file:write(tail)
  file:close()
  return path
end

--- The path of a named pipe.
function copies.fifo()
  local path = copies.path()
  os.execute("mkfifo " .. path)
  return path
end

local function unix_pair()
  local path = copies.path()
  local listener = tcp.listen("unix:" .. path)
  local near = tcp.connect("unix:" .. path)
  local far = listener:accept()
  listener:close()
  return near, far
end

local PAIRS = {
  ["a connection"] = transports.plain.pair,
  ["a TLS connection"] = transports.tls.pair,
  ["a unix socket"] = unix_pair,
}

copies.CONNECTIONS = { "a connection", "a TLS connection", "a unix socket" }
copies.KINDS = { "a connection", "a TLS connection", "a unix socket", "a file", "a function" }

--- Both ends of a connection of this kind.
function copies.pair(kind)
  local near, far = PAIRS[kind]()
  return copies.opens(near), copies.opens(far)
end

--- The same with buffers of this size from the first end to the second. Very small ones have TCP pause.
function copies.narrow(kind, size)
  local near, far = copies.pair(kind)
  near:set_option("send_buffer", size or 65536)
  far:set_option("recv_buffer", size or 65536)
  return near, far
end

--- Breaks a connection off.
function copies.reset(far)
  far:set_option("linger", 0)
  far:close()
end

--- Has a task send these bytes and the end of the stream.
function copies.feed(far, bytes)
  tcp.spawn(function()
    if far:try_write(bytes) then
      far:try_shutdown("send")
    end
  end)
end

--- A function that gives these bytes piece by piece.
function copies.pieces(bytes, size)
  local first = 1
  return function()
    local piece = bytes:sub(first, first + (size or PIECE) - 1)
    first = first + #piece
    return piece ~= "" and piece or nil
  end
end

--- A source of this kind that gives these bytes and ends.
function copies.source(kind, bytes)
  if PAIRS[kind] then
    local near, far = copies.pair(kind)
    copies.feed(far, bytes)
    return near
  elseif kind == "a file" then
    return (copies.open("rb", bytes))
  end
  return copies.pieces(bytes)
end

--- A target of this kind, and a function that ends it and gives all it got.
function copies.target(kind)
  if PAIRS[kind] then
    local near, far = copies.pair(kind)
    local reader = tasks.trying(far, "read_str")
    return near, function()
      near:shutdown("send")
      return tasks.succeeds(reader)
    end
  elseif kind == "a file" then
    local file, path = copies.open("wb", "")
    return file, function()
      file:close()
      return copies.contents(path)
    end
  end
  local chunks = {}
  return function(chunk)
    chunks[#chunks + 1] = chunk
  end, function()
    return table.concat(chunks)
  end
end

--- Waits until something arrives.
function copies.arrives(far)
  far:peek(1, { timeout = PATIENCE })
end

--- Lets the tasks run until a condition holds.
function copies.wait_until(condition)
  local deadline = tcp.now() + PATIENCE
  while not condition() do
    assert(tcp.now() < deadline, "it never came to it")
    tcp.sleep(0)
  end
end

--- Closes what a test opened, which ends every task: `after_each` of the specs.
function copies.clean()
  for i = #opened, 1, -1 do
    if io.type(opened[i]) ~= "closed file" then
      opened[i]:close()
    end
    opened[i] = nil
  end
  for i = #paths, 1, -1 do
    if lfs.symlinkattributes(paths[i]) then
      os.remove(paths[i])
    end
    paths[i] = nil
  end
  tcp.with_timeout(PATIENCE, tcp.run)
end

--- A test's body that leaves nothing behind: its descriptors are counted before `after_each`.
function copies.cleanly(body)
  return function()
    body()
    copies.clean()
  end
end

--- Calls a function where it may wait: here, and in a task.
copies.PLACES = {
  ["outside tasks"] = function(fn, ...)
    return fn(...)
  end,
  ["in a task"] = tcp.run,
}

return copies
