-- The module's own functions.

local core, errors, loop, establish, tasks, queue, server, udp, install_copy = ...

local getmetatable, pcall, setmetatable, type = getmetatable, pcall, setmetatable, type
local raise, misuse = errors.raise, errors.misuse
local PENDING, outcome = core.PENDING, core.outcome
local remember, last, no_connection = core.remember, core.last, core.no_connection

local _ENV = nil -- luacheck: ignore

local tcp = {
  _VERSION = "tcp " .. core.version,
  is_error = errors.is_error,
  null = core.json.null,
  queue = queue,
  traceback = errors.traceback,
}
tasks.install(tcp)
server.install(tcp)
udp.install(tcp)
install_copy(tcp)

-- Connects let the other tasks run after so many, also those that need no wait.
local SHARE = 16
local connects = 0

local function connect(name, op, dial, host, port, options)
  local value, err = establish(name, op, dial, core.dial_on, host, port, options)
  connects = connects + 1
  if connects >= SHARE then
    connects = 0
    loop.pass()
  end
  if value ~= nil then
    remember(value)
  end
  return value, err
end

local TOO_MANY = "' (nothing more expected: the timeout is an option, too)"

local function define_connect(name, dial)
  local try_name = "try_" .. name

  tcp[name] = function(host, port, options, extra)
    if extra ~= nil then
      return misuse(name, "bad argument #4 to '", TOO_MANY)
    end
    local value, err = connect(name, name, dial, host, port, options)
    if err ~= nil then
      return raise(err)
    end
    return value
  end

  tcp[try_name] = function(host, port, options, extra)
    if extra ~= nil then
      return misuse(try_name, "bad argument #4 to '", TOO_MANY)
    end
    return connect(try_name, name, dial, host, port, options)
  end
end

define_connect("connect", core.dial)
define_connect("connect_tls", core.dial_tls)

function tcp.listen(host, port, options)
  local value, err = establish("listen", "listen", core.listen, core.listen_on, host, port, options)
  if err ~= nil then
    return raise(err)
  end
  return value
end

function tcp.try_listen(host, port, options)
  return establish("try_listen", "listen", core.listen, core.listen_on, host, port, options)
end

local function resolve_all(name, op, host, options, extra)
  return establish(name, op, core[op], core.resolve_on, host, options, extra)
end

--- The first address of a host, as text.
function tcp.resolve(host, options, extra)
  local addresses, err = resolve_all("resolve", "resolve", host, options, extra)
  if err ~= nil then
    return raise(err)
  end
  return addresses[1]
end

function tcp.try_resolve(host, options, extra)
  local addresses, err = resolve_all("try_resolve", "resolve", host, options, extra)
  if err ~= nil then
    return nil, err
  end
  return addresses[1]
end

--- All addresses of a host, a list of texts.
function tcp.resolve_all(host, options, extra)
  local addresses, err = resolve_all("resolve_all", "resolve_all", host, options, extra)
  if err ~= nil then
    return raise(err)
  end
  return addresses
end

function tcp.try_resolve_all(host, options, extra)
  return resolve_all("try_resolve_all", "resolve_all", host, options, extra)
end

--- From now on only these may be reached or listened on: one more layer, all of which have to agree.
function tcp.allow(rules, extra)
  if core.allow(rules, extra) == PENDING then
    return misuse("allow", outcome())
  end
end

local stdin

--- The same connection as long as it is open: two would take each other's bytes.
function tcp.stdin()
  if not stdin or stdin:is_closed() then
    stdin = core.stdin()
    if stdin == PENDING then
      stdin = nil
      return raise((outcome()))
    end
  end
  return stdin
end

--- The legacy way to write: on the last connection that was opened. Returns nothing.
function tcp.send(data)
  local conn = last()
  if conn then
    conn:send(data)
  elseif type(data) == "string" or type(data) == "number" then
    return raise(no_connection("send"))
  else
    return misuse("send", "bad argument #1 to '", "' (string expected, got " .. core.type_name(data) .. ")")
  end
end

--- The legacy way to read: at most 8192 bytes from the last connection, "" at the end of the stream.
function tcp.recv()
  local conn = last()
  if not conn then
    return raise(no_connection("recv"))
  end
  return conn:recv() or ""
end

local json = { null = core.json.null, array_mt = core.json.array_mt }
tcp.json = json
local array_mt, object_mt = core.json.array_mt, core.json.object_mt
local encode, is_pretty, json_failed = core.json.encode, core.json.is_pretty, core.json.failed
local decode, text_of = core.json.decode, core.json.text

local function encode_with_options(name, value, options)
  local pretty = is_pretty(options)
  if pretty == PENDING then
    return misuse(name, outcome())
  end
  return encode(array_mt, object_mt, value, pretty)
end

local function define_encode(name, fail)
  json[name] = function(value, options)
    local text, problem
    if options == nil then
      text, problem = encode(array_mt, object_mt, value, false)
    else
      text, problem = encode_with_options(name, value, options)
    end
    if text ~= nil then
      return text
    end
    return fail(json_failed("encode", problem))
  end
end

--- For what is not plainly a string.
local function decode_argument(name, text)
  text = text_of(text)
  if text == PENDING then
    return misuse(name, outcome())
  end
  return decode(text, array_mt)
end

local function define_decode(name, fail)
  json[name] = function(text)
    local value, problem = decode(text, array_mt)
    if value == nil and problem == nil then
      value, problem = decode_argument(name, text)
    end
    if value ~= nil then
      return value
    end
    return fail(json_failed("decode", problem, text))
  end
end

local function give(err)
  return nil, err
end

define_encode("encode", raise)
define_encode("try_encode", give)
define_decode("decode", raise)
define_decode("try_decode", give)

local function marker(name, mark)
  return function(t)
    if type(t) ~= "table" then
      return misuse(name, "bad argument #1 to '", "' (table expected, got " .. type(t) .. ")")
    end
    local present = getmetatable(t)
    local is_free = present == nil or present == core.json.array_mt or present == core.json.object_mt
    -- What __metatable shows may be anything; then it cannot be set.
    if not is_free or not pcall(setmetatable, t, mark) then
      return misuse(name, "bad argument #1 to '", "' (the table has a metatable of its own)")
    end
    return t
  end
end

json.array = marker("array", core.json.array_mt)
json.object = marker("object", core.json.object_mt)

return tcp
