-- Mistakes with UDP sockets, for the specs of misuse.

local misuse = require("support.misuse")

local unpack = table.unpack or unpack
local join, at, case, of_types, size, limit = misuse.join, misuse.at, misuse.case, misuse.of_types, misuse.size,
  misuse.limit
local STRING, BOOLEAN = misuse.STRING, misuse.BOOLEAN

--- Mistakes with whole numbers of a range.
local function from_to(least, most)
  return join(size(least), {
    { value = most + 1, problem = ("%d to %d expected, got %d"):format(least, most, most + 1) },
    { value = 2 ^ 32 + least, problem = ("%d to %d expected, got %d"):format(least, most, 2 ^ 32 + least) },
  })
end

local INTERFACE = of_types("boolean table function userdata thread", "string")
for _, value in ipairs { "", "::1", "127.0.0.256", -1, 1.5 } do
  local problem = ("address, name or number of an interface expected, got '%s'"):format(value)
  INTERFACE[#INTERFACE + 1] = { value = value, problem = problem }
end

for _, value in ipairs { "lo\0", "a\0b", "\0", "127.0.0.1\0" } do
  INTERFACE[#INTERFACE + 1] = { value = value, problem = "interface contains a zero byte" }
end

local BUFFER = join(size(1), {
  { value = 2 ^ 31, problem = "number of at most 2147483647 expected, got 2147483648" },
})

-- What `set_option` takes, and the mistakes with it.
local OPTIONS = {
  broadcast = BOOLEAN,
  multicast_interface = join(of_types("nil", "string"), INTERFACE),
  multicast_loop = BOOLEAN,
  multicast_ttl = from_to(0, 255),
  recv_buffer = BUFFER,
  send_buffer = BUFFER,
  ttl = from_to(1, 255),
}

local listen_options = { ipv6_only = BOOLEAN, reuse_port = BOOLEAN }
for name, mistakes in pairs(OPTIONS) do
  listen_options[name] = mistakes
end

local OPTION_NAME = at(1, join(STRING, { { value = "\255", problem = "string is not UTF-8" } }))
for name, problem in pairs { ttll = "did you mean 'ttl'?", Broadcast = "did you mean 'broadcast'?" } do
  OPTION_NAME[#OPTION_NAME + 1] = case("argument #1", ("unknown option '%s'; %s"):format(name, problem), name, true)
end
for _, name in ipairs { "xyzzy", "", "reuse_port", "5" } do
  local problem = "unknown option '%s'; known are " .. table.concat(misuse.sorted_keys(OPTIONS), ", ")
  OPTION_NAME[#OPTION_NAME + 1] = case("argument #1", problem:format(name), name, true)
end

local option_values = {}
for name, mistakes in pairs(OPTIONS) do
  for _, mistake in ipairs(mistakes) do
    option_values[#option_values + 1] = case(("option '%s'"):format(name), mistake.problem, name, mistake.value)
  end
end

local GROUP = join(STRING, { { value = "\255", problem = "string is not UTF-8" } })
for _, value in ipairs { "", "127.0.0.1", "::1", "localhost", "255.255.255.255", "ff02::1%lo", "[239.1.2.3]", 5 } do
  GROUP[#GROUP + 1] = { value = value, problem = ("multicast address expected, got '%s'"):format(value) }
end

local RECEIVE = join(at(1, limit(1, misuse.OPTIONAL_NUMBER)), at(2, misuse.seconds(misuse.OPTIONAL_NUMBER), 5), {
  case("argument #1", "number expected, got table", { timeout = 1 }, 2),
  case("argument #1", "number expected, got table", {}, {}),
})

--- The mistakes with a receive: those with its arguments are told how it looks.
local function receiving(op)
  local cases = join(misuse.for_this_call(), misuse.for_this_call(5))
  for _, it in ipairs(RECEIVE) do
    local problem = ("%s; as in %s(max, timeout), %s{ timeout = s }"):format(it.problem, op, op)
    cases[#cases + 1] = case(it.blamed, problem, unpack(it, 1, it.count))
  end
  return cases
end

local MEMBERSHIP = join(at(1, GROUP), at(2, INTERFACE, "239.1.2.3"), at(2, INTERFACE, "ff02::1"), {
  case("argument #2", "name or number of an interface expected for IPv6, got '127.0.0.1'", "ff02::1", "127.0.0.1"),
})

--- The mistakes with a port, where whoever gives something else is told how the call looks.
local function port_of(port, form)
  local mistakes = {}
  for i, it in ipairs(port) do
    local problem = it.problem:find("^number expected") and ("%s; as in %s"):format(it.problem, form) or it.problem
    mistakes[i] = { value = it.value, problem = problem }
  end
  return mistakes
end

--- The cases of the methods that have a `try_` form. `name` and `port` are the mistakes with a host and its port.
local function fallible(name, port)
  return {
    get_option = OPTION_NAME,
    join = MEMBERSHIP,
    leave = MEMBERSHIP,
    recv = receiving("recv"),
    recv_from = receiving("recv_from"),
    send = at(1, STRING),
    send_to = join(at(1, STRING), at(2, name, "x"),
      at(3, port_of(port, "send_to(data, host, port)"), "x", "127.0.0.1")),
    set_option = join(OPTION_NAME, option_values),
  }
end

return {
  port_of = port_of,
  LISTEN_OPTIONS = listen_options,
  fallible = fallible,
  plain = {
    close = {}, is_closed = {}, local_addr = {}, local_host = {}, local_port = {}, pollfd = {},
    set_timeout = at(1, misuse.TIME),
  },
}
