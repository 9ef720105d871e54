local misuse = require("support.misuse")
local support = require("support")
local tls_misuse = require("support.tls_misuse")
local tcp = require("tcp.core")

local connect_to = support.connect_to
local unpack = table.unpack or unpack
local INF, NAN = math.huge, 0 / 0
local SAMPLES, NOT_STRING, NOT_NUMBER, without, of_types, join =
  misuse.SAMPLES, misuse.NOT_STRING, misuse.NOT_NUMBER, misuse.without, misuse.of_types, misuse.join
local size, limit, words, STRING, BOOLEAN =
  misuse.size, misuse.limit, misuse.words, misuse.STRING, misuse.BOOLEAN
local KEEPALIVE, OFF_OR_SECONDS, sorted_keys, case, at, for_this_call =
  misuse.KEEPALIVE, misuse.OFF_OR_SECONDS, misuse.sorted_keys, misuse.case, misuse.at, misuse.for_this_call
local READ_NUMBER, OPTIONAL_NUMBER, OPTIONAL_FORMAT, OTHER_FORMATS, TIME, show =
  misuse.READ_NUMBER, misuse.OPTIONAL_NUMBER, misuse.OPTIONAL_FORMAT, misuse.OTHER_FORMATS, misuse.TIME, misuse.show
local told, differences, names_of_functions, names_with_cases =
  misuse.told, misuse.differences, misuse.names_of_functions, misuse.names_with_cases
local each_form, NO_NUMBER_FROM_TABLE = misuse.each_form, misuse.NO_NUMBER_FROM_TABLE

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
  send_file = join(
    at(1, join(of_types("nil boolean table function thread", "path or open file"), misuse.CLOSED_FILE)),
    at(2, size(1, without(NOT_NUMBER, "nil")), "/no/such/file"),
    at(3, limit(0, without(NOT_NUMBER, "nil")), "/no/such/file", 1)),
  handshake = for_this_call(),
  start_tls = tls_misuse.upgrades(),
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
for name in ([[alpn buffered cipher close events host is_closed is_tls local_addr local_host local_port peer_cert pollfd
  port protocol read_timeout remote_addr resumed server_name timeout write_timeout]]):gmatch("%S+") do
  PLAIN[name] = {}
end

local HERE = "127.0.0.1"

describe("misuse is told by every", function()
  it("method of a connection: each has its cases here", function()
    local conn = connect_to("accept", "stall")
    conn:close()
    local methods = debug.getmetatable(conn).__index
    assert.same(names_with_cases(FALLIBLE, PLAIN), names_of_functions(methods))
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

  it("is a number as a file, or else the name of one: it never means a descriptor", function()
    local conn, peer = connect_to("accept", "drain")
    for number = 0, 9 do
      local ok, value, err = pcall(conn.try_send_file, conn, number)
      assert.is_true(not ok or value == nil and err.kind == "system", tostring(value))
      assert.matches(ok and "no such file" or "path or open file expected", tostring(ok and err or value))
    end
    conn:close()
    assert.equal("", peer:got())
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
