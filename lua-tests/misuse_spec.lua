local tcp = require("tcp.core")
local support = require("support")

local connect_to = support.connect_to
local unpack = table.unpack or unpack

local INF, NAN = math.huge, 0 / 0
-- How Lua names this file in positions.
local SOURCE = debug.getinfo(1, "S").short_src

-- A value of every type, by the name that messages have for it.
local SAMPLES = {
  boolean = true, number = 5, string = "x", table = {}, ["function"] = print, userdata = io.stdout,
  thread = coroutine.create(function() end),
}
local NOT_STRING = "nil boolean table function userdata thread"
local NOT_NUMBER = "nil boolean string table function userdata thread"

--- Words of `list` that are not among `words`.
local function without(list, words)
  return (list:gsub("%a+", function(word)
    return (" " .. words .. " "):find(" " .. word .. " ", 1, true) and "" or word
  end))
end

-- A mistake is a table of a value and what is said about it.

local function of_types(types, expected)
  local mistakes = {}
  for name in types:gmatch("%a+") do
    mistakes[#mistakes + 1] = { value = SAMPLES[name], problem = ("%s expected, got %s"):format(expected, name) }
  end
  return mistakes
end

local function join(...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, entry in ipairs(list) do
      all[#all + 1] = entry
    end
  end
  return all
end

--- Mistakes with whole numbers of at least `least`. `types` are those that are none.
local function size(least, types)
  local mistakes = of_types(types or NOT_NUMBER, "number")
  for _, value in ipairs { 1.5, -0.5, "1.5", NAN, INF, -INF } do
    mistakes[#mistakes + 1] = { value = value, problem = "number has no integer representation" }
  end
  for _, value in ipairs { least - 1, -1, -7, "-7", -1e15 } do
    local problem = ("number of at least %d expected, got %d"):format(least, value)
    mistakes[#mistakes + 1] = { value = value, problem = problem }
  end
  return mistakes
end

--- The same where infinity is no limit.
local function limit(least, types)
  local mistakes = {}
  for _, mistake in ipairs(size(least, types)) do
    if mistake.value ~= INF then
      mistakes[#mistakes + 1] = mistake
    end
  end
  return mistakes
end

local function seconds(types)
  return join(of_types(types or NOT_NUMBER, "number"), {
    { value = -1, problem = "seconds expected, 0 or more, got -1" },
    { value = -0.5, problem = "seconds expected, 0 or more, got -0.5" },
    { value = "-1", problem = "seconds expected, 0 or more, got -1" },
    { value = NAN, problem = "seconds expected, 0 or more, got NaN" },
    { value = -INF, problem = "seconds expected, 0 or more, got -inf" },
  })
end

local function words(expected, types)
  return join(of_types(types or NOT_STRING, "string"), {
    { value = "x", problem = expected .. " expected, got 'x'" },
    { value = "", problem = expected .. " expected, got ''" },
    { value = 5, problem = expected .. " expected, got '5'" },
    { value = "\255", problem = "string is not UTF-8" },
  })
end

local STRING = of_types(NOT_STRING, "string")
local BOOLEAN = of_types("nil number string table function userdata thread", "boolean")

local KEEPALIVE = join(of_types("nil table function userdata thread", "boolean or number (idle seconds)"),
  of_types("string", "number"), {
    { value = 0, problem = "1 to 32767 seconds expected" },
    { value = 0.5, problem = "1 to 32767 seconds expected" },
    { value = 32768, problem = "1 to 32767 seconds expected" },
    { value = INF, problem = "1 to 32767 seconds expected" },
    { value = -1, problem = "seconds expected, 0 or more, got -1" },
    { value = NAN, problem = "seconds expected, 0 or more, got NaN" },
  })

local OFF_OR_SECONDS = join(of_types("nil boolean table function userdata thread", "false or number (seconds)"),
  seconds("string"))

-- What `set_option` takes, and the mistakes with it.
local OPTIONS = {
  keepalive = KEEPALIVE,
  linger = OFF_OR_SECONDS,
  max_json = limit(0),
  max_line = limit(0),
  max_packet = limit(0),
  newline = STRING,
  nodelay = BOOLEAN,
  packet_endian = words("'big' or 'little'"),
  recv_buffer = size(1),
  send_buffer = size(1),
  user_timeout = OFF_OR_SECONDS,
}

-- The same for `connect`.
local CONNECT_OPTIONS = {
  bind = join(words("'ip' or 'ip:port'"), {
    { value = "localhost", problem = "'ip' or 'ip:port' expected, got 'localhost'" },
    { value = "127.0.0.1:", problem = "'ip' or 'ip:port' expected, got '127.0.0.1:'" },
    { value = "127.0.0.1:65536", problem = "'ip' or 'ip:port' expected, got '127.0.0.1:65536'" },
    { value = "[127.0.0.1", problem = "'ip' or 'ip:port' expected, got '[127.0.0.1'" },
  }),
  family = join(words("'any' or 'ipv4' or 'ipv6'"), {
    { value = "IPv4", problem = "'any' or 'ipv4' or 'ipv6' expected, got 'IPv4'" },
  }),
  keepalive = KEEPALIVE,
  max_json = limit(0),
  max_line = limit(0),
  max_packet = limit(0),
  newline = STRING,
  nodelay = BOOLEAN,
  packet_endian = OPTIONS.packet_endian,
  read_timeout = seconds(),
  timeout = seconds(),
  write_timeout = seconds(),
}

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

-- A case is a list of arguments, what the message blames, and the problem with it.

local function case(blamed, problem, ...)
  return { blamed = blamed, problem = problem, count = select("#", ...), ... }
end

--- Cases of mistakes at a position, after good arguments.
local function at(position, mistakes, ...)
  local good = { ... }
  assert(#good == position - 1)
  local cases = {}
  for _, mistake in ipairs(mistakes) do
    good[position] = mistake.value
    cases[#cases + 1] = case("argument #" .. position, mistake.problem, unpack(good, 1, position))
  end
  return cases
end

--- Cases of mistakes in a table of options after good arguments. `known` has the mistakes of every option.
local function in_options(known, misspelt, ...)
  local good = { ... }
  local position = #good + 1
  local cases = {}
  local function add(name, problem, options)
    good[position] = options
    cases[#cases + 1] = case(("option '%s'"):format(name), problem, unpack(good, 1, position))
  end
  for _, name in ipairs(sorted_keys(known)) do
    for _, mistake in ipairs(known[name]) do
      if mistake.value ~= nil then
        add(name, mistake.problem, { [name] = mistake.value })
      end
    end
  end
  for wrong, right in pairs(misspelt) do
    add(wrong, ("did you mean '%s'?"):format(right), { [wrong] = known[right][1].value or SAMPLES.table })
  end
  local unknown = "unknown; known are " .. table.concat(sorted_keys(known), ", ")
  for _, name in ipairs { "xyzzy", "", "a rather long name that nobody would take for another" } do
    add(name, unknown, { [name] = 1 })
  end
  for _, key in ipairs { 1, 1.5, true } do
    add(tostring(key), unknown, { [key] = 1 })
  end
  return cases
end

--- Cases of the last table of a read, after good arguments.
local function for_this_call(...)
  return in_options({ timeout = seconds() }, { timout = "timeout", Timeout = "timeout", timeouts = "timeout" }, ...)
end

-- What a read does not take. Its last argument may be a table: then it is for this call.
local READ_NUMBER = without(NOT_NUMBER, "table")
local OPTIONAL_NUMBER = without(NOT_NUMBER, "nil table")
local OPTIONAL_FORMAT = words("'l' or 'L'", without(NOT_STRING, "nil table"))
local OTHER_FORMATS = {
  { value = "*l", problem = "'l' or 'L' expected, got '*l'" },
  { value = "n", problem = "'l' or 'L' expected, got 'n'" },
  { value = "lL", problem = "'l' or 'L' expected, got 'lL'" },
}
local TIME = seconds(without(NOT_NUMBER, "nil"))
local NO_NUMBER_FROM_TABLE = case("argument #1", "number expected, got nil", { timeout = 1 })

local function option_values()
  local cases = {}
  for name, mistakes in pairs(OPTIONS) do
    for _, mistake in ipairs(mistakes) do
      cases[#cases + 1] = case(("option '%s'"):format(name), mistake.problem, name, mistake.value)
    end
  end
  return cases
end

local OPTION_NAME = join(STRING, {
  { value = "nodely", problem = "unknown option 'nodely'; did you mean 'nodelay'?" },
  { value = "Linger", problem = "unknown option 'Linger'; did you mean 'linger'?" },
  { value = "\255", problem = "string is not UTF-8" },
})
for _, name in ipairs { "timeout", "xyzzy", "", "5" } do
  local listed = table.concat(sorted_keys(OPTIONS), ", ")
  OPTION_NAME[#OPTION_NAME + 1] = { value = name, problem = ("unknown option '%s'; known are %s"):format(name, listed) }
end

local DATA = "string, number, table of strings or table of bytes"

--- What `write` does not take at `position`.
local function data(position, ...)
  local list = {
    { value = { 1, "a" }, problem = "byte (integer 0-255) expected at position 2" },
    { value = { 1, "2" }, problem = "byte (integer 0-255) expected at position 2" },
    { value = { 1, 2, {} }, problem = "byte (integer 0-255) expected at position 3" },
    { value = { "a", 1 }, problem = "string expected at position 2" },
    { value = { "a", "b", true }, problem = "string expected at position 3" },
  }
  for _, byte in ipairs { 256, -1, 1.5, 1e300, NAN, INF } do
    list[#list + 1] = { value = { byte }, problem = "byte (integer 0-255) expected at position 1" }
  end
  for _, value in ipairs { true, {}, print } do
    list[#list + 1] = { value = { value }, problem = "string expected at position 1" }
  end
  return at(position, join(of_types(without(NOT_STRING, "table"), DATA), list), ...)
end

-- The cases of every method that has a `try_` form, and of the others.
local FALLIBLE = {
  read = join(at(1, size(0, READ_NUMBER)), for_this_call(1), { NO_NUMBER_FROM_TABLE }),
  read_bytes = join(at(1, size(0, READ_NUMBER)), for_this_call(1), { NO_NUMBER_FROM_TABLE }),
  peek = join(at(1, size(0, READ_NUMBER)), for_this_call(1), { NO_NUMBER_FROM_TABLE }),
  recv = join(at(1, limit(1, OPTIONAL_NUMBER)), for_this_call(1), for_this_call()),
  read_line = join(at(1, join(OPTIONAL_FORMAT, OTHER_FORMATS)), for_this_call("L"), for_this_call()),
  read_until = join(at(1, of_types(without(NOT_STRING, "table"), "string")), at(2, limit(0, OPTIONAL_NUMBER), "x"),
    for_this_call("x"), for_this_call("x", 5), {
      case("argument #1", "delimiter is empty", ""),
      case("argument #1", "delimiter is empty", "", 5, { timeout = 1 }),
      case("argument #1", "string expected, got nil", { timeout = 1 }),
      case("argument #3", "table (options) expected, got number", "x", { timeout = 1 }, 5),
    }),
  read_str = join(at(1, limit(0, OPTIONAL_NUMBER)), for_this_call(5), for_this_call()),
  read_all = join(at(1, limit(0, OPTIONAL_NUMBER)), for_this_call(5), for_this_call()),
  read_json = for_this_call(),
  read_packet = for_this_call(),
  read_json_packet = for_this_call(),
  write = join(data(1), data(2, "a"), data(4, "a", 1, { 2 })),
  write_str = at(1, STRING),
  write_line = at(1, STRING),
  write_packet = at(1, STRING),
  write_json = {},
  write_json_packet = {},
  send = at(1, STRING),
  send_some = join(at(1, STRING), at(2, size(1, without(NOT_NUMBER, "nil")), "abc"), {
    case("argument #2", "5 is past the end of 3 bytes", "abc", 5),
    case("argument #2", "2 is past the end of 0 bytes", "", 2),
  }),
  shutdown = join(at(1, words("'send' or 'recv' or 'both'")), {
    case("argument #1", "'send' or 'recv' or 'both' expected, got 'read'", "read"),
  }),
  get_option = at(1, OPTION_NAME),
  set_option = join(at(1, OPTION_NAME), option_values()),
}

local PLAIN = {
  lines = join(at(1, join(OPTIONAL_FORMAT, OTHER_FORMATS)), for_this_call("L"), for_this_call()),
  chunks = join(at(1, limit(1, OPTIONAL_NUMBER)), for_this_call(1), for_this_call()),
  packets = for_this_call(),
  json_packets = for_this_call(),
  json_values = for_this_call(),
  set_timeout = at(1, TIME),
  set_read_timeout = at(1, TIME),
  set_write_timeout = at(1, TIME),
  set_deadline = at(1, TIME),
  set_read_deadline = at(1, TIME),
  set_write_deadline = at(1, TIME),
}
for name in ([[buffered close events host is_closed is_tls local_addr local_host local_port pollfd port
  read_timeout remote_addr timeout write_timeout]]):gmatch("%S+") do
  PLAIN[name] = {}
end

local HERE = "127.0.0.1"

local PORT = join(of_types(NOT_NUMBER, "number"), {
  { value = "http", problem = "number expected, got string" },
  { value = 1.5, problem = "number has no integer representation" },
  { value = "80.5", problem = "number has no integer representation" },
  { value = NAN, problem = "number has no integer representation" },
  { value = INF, problem = "number has no integer representation" },
  { value = -1, problem = "port out of range 0-65535: -1" },
  { value = 65536, problem = "port out of range 0-65535: 65536" },
  { value = "70000", problem = "port out of range 0-65535: 70000" },
  { value = 2 ^ 32 + 80, problem = "port out of range 0-65535: 4294967376" },
})

-- The same for the functions of the module, and of its json.
local MODULE_FALLIBLE = {
  connect = join(
    at(1, join(STRING, {
      { value = "", problem = "host is empty" },
      { value = "a\0b", problem = "host contains a zero byte" },
      { value = "caf\233", problem = "string is not UTF-8" },
      { value = "[::1", problem = "IPv6 address expected in brackets" },
      { value = "[]", problem = "IPv6 address expected in brackets" },
      { value = "[127.0.0.1]", problem = "IPv6 address expected in brackets" },
      { value = "unix:", problem = "path expected after 'unix:'" },
      { value = "unix:/a\0b", problem = "path contains a zero byte" },
    })),
    at(2, PORT, HERE),
    at(2, of_types("number string table", "nil (a unix path has no port)"), "unix:/no/such/socket"),
    at(3, join(of_types("boolean function userdata thread", "number (the timeout) or table (options)"),
      seconds("string")), HERE, 1),
    in_options(CONNECT_OPTIONS, {
      timout = "timeout", Timeout = "timeout", time_out = "timeout", read_timout = "read_timeout", no_delay = "nodelay",
      keep_alive = "keepalive", newlines = "newline", maxline = "max_line", max_packets = "max_packet",
      writetimeout = "write_timeout",
    }, HERE, 1)
  ),
}

local MODULE_PLAIN = {
  is_error = at(2, join(of_types("boolean table function userdata thread", "string"), {
    { value = "xyzzy", problem = "no kind of error is called 'xyzzy'" },
    { value = "", problem = "no kind of error is called ''" },
    { value = 5, problem = "no kind of error is called '5'" },
    { value = "Closed", problem = "no kind of error is called 'Closed'; did you mean 'closed'?" },
    { value = "\255", problem = "string is not UTF-8" },
  }), "any value"),
  now = {},
  recv = {},
  send = at(1, STRING),
  sleep = at(1, seconds()),
  traceback = join(at(2, of_types("boolean string table function", "number"), "a message"),
    at(3, of_types("boolean string table function", "number"), SAMPLES.thread, "a message")),
}

local JSON_FALLIBLE = {
  decode = at(1, STRING),
  encode = join(at(2, of_types("boolean number string function userdata thread", "table (options)"), {}),
    in_options({ pretty = BOOLEAN }, { prety = "pretty", Pretty = "pretty" }, {})),
}

local MARKED = join(of_types("nil boolean number string function userdata thread", "table"), {
  { value = setmetatable({}, {}), problem = "the table has a metatable of its own" },
})
local JSON_PLAIN = { array = at(1, MARKED), object = at(1, MARKED) }

--- A value as a script would write it.
local function show(value)
  if type(value) == "string" then
    return ("%q"):format(value)
  elseif type(value) == "table" then
    local key, inner = next(value)
    return key == nil and "{}" or ("{ [%s] = %s }"):format(show(key), show(inner))
  end
  return (tostring(value):gsub(":? .*", ""))
end

--- What a call says that is misuse, without the position, which has to be that of the call.
local function told(fn, ...)
  local line = debug.getinfo(1, "l").currentline + 1
  local ok, err = pcall(fn, ...)
  if ok then
    return "accepted"
  elseif type(err) ~= "string" then
    return "not misuse: " .. tostring(err)
  end
  local position = ("%s:%d: "):format(SOURCE, line)
  if err:sub(1, #position) ~= position then
    return "position " .. position .. " expected in front: " .. err
  end
  return err:sub(#position + 1)
end

--- What is wrong with the answers of a function, or of a method of `self`, to its cases. One line each.
local function differences(fn, name, cases, self)
  local found = {}
  for _, it in ipairs(cases) do
    local expected = ("bad %s to '%s' (%s)"):format(it.blamed, name, it.problem)
    local answer
    if self then
      answer = told(fn, self, unpack(it, 1, it.count))
    else
      answer = told(fn, unpack(it, 1, it.count))
    end
    if answer ~= expected then
      local shown = {}
      for i = 1, it.count do
        shown[i] = show(it[i])
      end
      found[#found + 1] = ("%s(%s): %s\n    instead of %s"):format(name, table.concat(shown, ", "), answer, expected)
    end
  end
  return table.concat(found, "\n")
end

local function names_of_functions(t)
  local names = {}
  for name, value in pairs(t) do
    if type(value) == "function" then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

local function names_with_cases(fallible, plain)
  local names = {}
  for name in pairs(fallible) do
    names[#names + 1] = name
    names[#names + 1] = "try_" .. name
  end
  for name in pairs(plain) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

--- Calls `use(name, cases)` for every function, in both forms where it has two.
local function each_form(fallible, plain, use)
  for _, name in ipairs(names_with_cases(fallible, plain)) do
    use(name, plain[name] or fallible[name] or fallible[name:gsub("^try_", "")])
  end
end

describe("misuse is told by every", function()
  it("function of the module: each has its cases here", function()
    assert.same(names_with_cases(MODULE_FALLIBLE, MODULE_PLAIN), names_of_functions(tcp))
    assert.same(names_with_cases(JSON_FALLIBLE, JSON_PLAIN), names_of_functions(tcp.json))
  end)

  it("method of a connection: each has its cases here", function()
    local conn = connect_to("accept", "stall")
    conn:close()
    local methods = debug.getmetatable(conn).__index
    assert.same(names_with_cases(FALLIBLE, PLAIN), names_of_functions(methods))
  end)

  each_form(MODULE_FALLIBLE, MODULE_PLAIN, function(name, cases)
    it("argument of tcp." .. name, function()
      assert.equal("", differences(tcp[name], name, cases))
    end)
  end)

  each_form(JSON_FALLIBLE, JSON_PLAIN, function(name, cases)
    it("argument of tcp.json." .. name, function()
      assert.equal("", differences(tcp.json[name], name, cases))
    end)
  end)

  each_form(FALLIBLE, PLAIN, function(name, cases)
    it("argument of conn:" .. name .. ", open and closed", function()
      local conn = connect_to("accept", "stall")
      conn:set_timeout(0)
      local open = differences(conn[name], name, cases, conn)
      conn:close()
      assert.equal("", open)
      assert.equal("", differences(conn[name], name, cases, conn))
    end)
  end)

  it("method that is called with a dot", function()
    local conn = connect_to("accept", "stall")
    conn:close()
    local found = {}
    local function check(got, name, ...)
      local expected = ("bad self to '%s' (Connection expected, got %s; use ':')"):format(name, got)
      local answer = told(conn[name], ...)
      if answer ~= expected then
        found[#found + 1] = expected .. " expected, got " .. answer
      end
    end
    each_form(FALLIBLE, PLAIN, function(name)
      check("nil", name)
      check("nil", name, nil, conn)
      for got, value in pairs(SAMPLES) do
        check(got, name, value)
        check(got, name, value, conn)
      end
      check("userdata", name, tcp.null)
      check("table", name, tcp)
    end)
    assert.equal("", table.concat(found, "\n"))
  end)

  if jit then
    it("cdata by its name", function()
      -- Other Luas cannot even parse the literal.
      local cdata = assert(loadstring("return 1LL"))()
      local conn = connect_to("accept", "stall")
      conn:close()
      assert.same({
        "bad self to 'read' (Connection expected, got cdata; use ':')",
        "bad argument #1 to 'read' (number expected, got cdata)",
        "bad argument #1 to 'write' (" .. DATA .. " expected, got cdata)",
        "bad argument #1 to 'connect' (string expected, got cdata)",
        "bad argument #1 to 'array' (table expected, got cdata)",
        "a cdata is not a JSON value at $",
      }, {
        told(conn.read, cdata), told(conn.read, conn, cdata), told(conn.write, conn, cdata),
        told(tcp.connect, cdata, 1), told(tcp.json.array, cdata), select(2, tcp.json.try_encode(cdata)).message,
      })
    end)
  end

  it("table that is neither a list of strings nor of bytes", function()
    local conn = connect_to("accept", "stall")
    local found = {}
    for _, value in ipairs { { a = "x" }, { [0] = "x" }, { [2] = "x" }, { "a", nil, "c" }, { 1, nil, 3 } } do
      local answer = told(conn.write, conn, value)
      if not answer:find("^bad argument #1 to 'write' %(") then
        found[#found + 1] = show(value) .. " " .. answer
      end
    end
    conn:close()
    assert.equal("", table.concat(found, "\n"))
  end)
end)

describe("misuse", function()
  it("is told where the script's call stands, in both forms", function()
    local conn = connect_to("accept", "stall")
    for _, name in ipairs { "read", "try_read", "write", "try_write", "set_timeout", "lines" } do
      local line = debug.getinfo(1, "l").currentline + 1
      local _, err = pcall(function() conn[name](conn, true) end)
      assert.matches("^[^:]*misuse_spec%.lua:" .. line .. ": bad argument #1 to '" .. name .. "' %(", err)
    end
    conn:close()
  end)

  it("is told where the script's call stands inside a coroutine", function()
    local conn = connect_to("accept", "stall")
    local thread = coroutine.create(function()
      coroutine.yield()
      conn:read(-1)
    end)
    local line = debug.getinfo(1, "l").currentline - 2
    coroutine.resume(thread)
    local ok, err = coroutine.resume(thread)
    conn:close()
    assert.is_false(ok)
    assert.matches("^[^:]*misuse_spec%.lua:" .. line .. ": bad argument #1 to 'read' %(number of at least 0", err)
  end)

  it("of a coroutine's body that is the function itself has no position", function()
    local conn = connect_to("accept", "stall")
    local ok, err = coroutine.resume(coroutine.create(conn.read), conn, -1)
    conn:close()
    assert.is_false(ok)
    assert.equal("bad argument #1 to 'read' (number of at least 0 expected, got -1)", err)
  end)

  it("is told where the script's call stands inside a callback", function()
    local conn = connect_to("accept", "stall")
    local line, err
    local function callback()
      line = debug.getinfo(1, "l").currentline + 1
      err = select(2, pcall(function() conn:read(-1) end))
    end
    for _, call in ipairs {
      function() table.sort({ 1, 2 }, callback) end,
      function() return (("x"):gsub(".", callback)) end,
      function() xpcall(error, callback) end,
      function() return setmetatable({}, { __index = callback }).x end,
    } do
      err = nil
      call()
      assert.matches("^[^:]*misuse_spec%.lua:" .. line .. ": bad argument #1 to 'read' %(", err)
    end
    conn:close()
  end)

  it("and errors are told although a hook of the script's uses the module in between", function()
    local function use_between(fn, ...)
      debug.sethook(function() tcp.json.try_decode("[") end, "", 1)
      local ok, err = pcall(fn, ...)
      debug.sethook()
      return ok, err
    end
    local ok, err = use_between(tcp.sleep, -1)
    assert.is_false(ok)
    assert.matches("bad argument #1 to 'sleep' %(seconds expected, 0 or more, got %-1%)$", err)
    ok, err = use_between(tcp.json.decode, "{")
    assert.is_false(ok, "a failure that was not told")
    assert.equal("{", err.data)
    ok, err = use_between(tcp.connect, HERE, 1)
    assert.is_false(ok)
    assert.is_true(tcp.is_error(err, "refused"), tostring(err))
  end)

  it("leaves the connection as it was", function()
    local conn, peer = connect_to("accept", { "send", "line\nmore" }, "drain")
    conn:peek(9)
    for _, call in ipairs { { "read", -1 }, { "read_until", "" }, { "read_line", "x" }, { "read", 1, { timout = 1 } },
      { "write", "a", true }, { "write_line", {} }, { "write", { 1, 256 } }, { "set_option", "max_line", -1 },
      { "shutdown", "x" } } do
      assert.is_false(pcall(conn[call[1]], conn, unpack(call, 2)))
    end
    assert.equal(1048576, conn:get_option("max_line"))
    assert.equal("line", conn:read_line())
    assert.equal("more", conn:read(4))
    conn:write("ok")
    conn:close()
    assert.equal("ok", peer:got())
  end)

  for _, name in ipairs { "recv_buffer", "send_buffer", "linger", "user_timeout" } do
    it(("is a %s beyond what the system can count: it never wraps around"):format(name), function()
      local conn = connect_to("accept", "stall")
      conn:set_option(name, 20000)
      local usual = conn:get_option(name)
      local found = {}
      for _, value in ipairs { 2 ^ 31, 2 ^ 32, 2 ^ 32 + 5, 1e10, 2 ^ 40, 1e15 } do
        local ok, err = pcall(conn.set_option, conn, name, value)
        local now = conn:get_option(name)
        if ok and (not now or now < usual) then
          found[#found + 1] = ("%.17g became %s"):format(value, tostring(now))
        elseif not ok and not tostring(err):find("bad option '" .. name .. "' to 'set_option' (", 1, true) then
          found[#found + 1] = ("%.17g: %s"):format(value, tostring(err))
        end
      end
      conn:close()
      assert.equal("", table.concat(found, "\n"))
    end)
  end

  for _, name in ipairs { "linger", "user_timeout" } do
    it(("is a %s that would be rounded to none: 0 means something else"):format(name), function()
      local conn = connect_to("accept", "stall")
      local found = {}
      for _, value in ipairs { 0.5, 0.0001 } do
        local ok = pcall(conn.set_option, conn, name, value)
        local now = conn:get_option(name)
        if ok and (not now or now == 0) then
          found[#found + 1] = ("%s became %s"):format(value, tostring(now))
        end
      end
      conn:close()
      assert.equal("", table.concat(found, "\n"))
    end)
  end
end)

describe("no misuse", function()
  it("is a number of 0 bytes", function()
    local conn = connect_to("accept", "stall")
    conn:set_timeout(0)
    assert.equal("", conn:read(0))
    assert.equal("", (conn:try_read(0)))
    assert.same({}, conn:read_bytes(0))
    assert.equal("", conn:peek(0))
    conn:close()
  end)

  it("are numbers as Lua's own functions take them", function()
    local text = ("x"):rep(100) .. "1" .. ("y"):rep(100)
    for _, two in ipairs { 2, 2.0, "2", " 2 ", "2.0", "2e0", "0x2" } do
      local conn = connect_to({ timeout = "5", read_timeout = two, max_line = two, keepalive = two }, "accept",
        { "send", text }, "echo")
      assert.equal("xx", conn:read(two))
      assert.same({ 120, 120 }, conn:read_bytes(two))
      assert.is_true(#conn:peek(two) <= 2)
      assert.is_true(#conn:recv(two) <= 2)
      assert.equal(2, conn:read_timeout())
      assert.equal(2, conn:get_option("max_line"))
      assert.equal(2, conn:get_option("keepalive"))
      conn:set_option("max_packet", two)
      conn:set_option("linger", two)
      assert.equal(2, conn:get_option("max_packet"))
      conn:set_timeout(two)
      conn:set_deadline(two)
      assert.equal(2, conn:write_timeout())
      assert.equal("x", conn:read(1, { timeout = two }))
      assert.equal("too_large", select(2, conn:try_read_until("y", two)).kind)
      assert.equal(1, conn:send_some("ab", two))
      assert.is_function(conn:chunks(two))
      conn:close()
    end
  end)

  it("are numbers where strings are expected, and extra arguments", function()
    local conn, peer = connect_to("accept", { "send", "a1b1" }, "drain")
    assert.equal("a", conn:read_until(1))
    assert.equal("b", conn:read_until(1, nil, nil, nil, "extra"))
    conn:write(1, 2)
    conn:write_str(3)
    conn:write_line(4)
    conn:write_packet(5)
    conn:send(6)
    conn:send_some(78, 2)
    conn:set_option("newline", 9)
    conn:write_line("x")
    assert.equal("9", conn:get_option("newline"))
    conn:close("extra")
    assert.equal("1234\r\n\0\0\0\001568x9", peer:got())
  end)

  it("are infinite limits and times, and nil where a default is", function()
    local conn = connect_to({ timeout = INF, read_timeout = INF, max_line = INF, max_packet = INF, max_json = INF },
      "accept", { "send", "a\nb\n" }, "close")
    assert.is_nil(conn:read_timeout())
    assert.equal(INF, conn:get_option("max_line"))
    for name in ("timeout read_timeout write_timeout deadline read_deadline write_deadline"):gmatch("%S+") do
      conn["set_" .. name](conn, INF)
      conn["set_" .. name](conn, nil)
      conn["set_" .. name](conn)
    end
    assert.equal("a", conn:read_line(nil, { timeout = INF }))
    assert.equal("b", conn:read_until("\n", nil, {}))
    assert.is_nil(conn:recv(nil, nil))
    assert.equal("", conn:read_str(nil, { timeout = 1 }))
    conn:close()
  end)

  it("are empty tables of options", function()
    local conn = connect_to({}, "accept", { "send", "a\n" }, "close")
    assert.equal("a", conn:read_line({}))
    assert.equal("{}", tcp.json.encode({}, {}))
    conn:close()
  end)
end)
