local misuse = require("support.misuse")
local tls_misuse = require("support.tls_misuse")
local udp_misuse = require("support.udp_misuse")
local tcp = require("tcp.core")

local unpack = table.unpack or unpack
local INF, NAN = math.huge, 0 / 0
local SAMPLES, NOT_NUMBER, without, of_types, join =
  misuse.SAMPLES, misuse.NOT_NUMBER, misuse.without, misuse.of_types, misuse.join
local size, limit, seconds, words, STRING =
  misuse.size, misuse.limit, misuse.seconds, misuse.words, misuse.STRING
local BOOLEAN, KEEPALIVE, case, at, in_options =
  misuse.BOOLEAN, misuse.KEEPALIVE, misuse.case, misuse.at, misuse.in_options
local TIME, differences, names_of_functions, names_with_cases =
  misuse.TIME, misuse.differences, misuse.names_of_functions, misuse.names_with_cases
local each_form, wrong_selfs =
  misuse.each_form, misuse.wrong_selfs

-- What every connection takes, and the mistakes with it.
local CONNECTION_OPTIONS = {
  keepalive = KEEPALIVE,
  max_json = limit(0),
  max_line = limit(0),
  max_packet = limit(0),
  newline = STRING,
  nodelay = BOOLEAN,
  packet_endian = words("'big' or 'little'"),
  read_timeout = seconds(),
  write_timeout = seconds(),
}

local TLS_CLIENT_OPTIONS, TLS_SERVER_OPTIONS = tls_misuse.client("tls."), tls_misuse.server("tls.")

--- Cases of mistakes in a table of TLS options, after good arguments and in the table behind them.
local function in_tls_options(known, misspelt, ...)
  local cases = in_options(known, misspelt, ...)
  for _, it in ipairs(cases) do
    local inner = {}
    for name, value in pairs(it[it.count]) do
      inner[type(name) == "string" and name:gsub("^tls%.", "") or name] = value
    end
    it[it.count] = { tls = inner }
    if not it.blamed:find("'tls.", 1, true) then
      it.blamed = it.blamed:gsub("'", "'tls.", 1)
    end
  end
  return cases
end

--- Cases of TLS options that stand beside `tls` instead of in it, after good arguments.
local function beside_tls(known, ...)
  local cases = {}
  local good = { ... }
  for name in pairs(known) do
    local bare = name:gsub("^tls%.", "")
    good[#good + 1] = { [bare] = "x" }
    cases[#cases + 1] = case(("option '%s'"):format(bare), ("did you mean '%s'?"):format(name), unpack(good))
    good[#good] = nil
  end
  return cases
end

--- The same cases after good arguments.
local function in_place(cases, ...)
  local placed = {}
  for i, it in ipairs(cases) do
    local arguments = { ... }
    arguments[#arguments + 1] = it[1]
    placed[i] = case(it.blamed, it.problem, unpack(arguments))
  end
  return placed
end

local function with_connection_options(own)
  for name, mistakes in pairs(CONNECTION_OPTIONS) do
    own[name] = mistakes
  end
  return own
end

local FAMILY = join(words("'any' or 'ipv4' or 'ipv6'"), {
  { value = "IPv4", problem = "'any' or 'ipv4' or 'ipv6' expected, got 'IPv4'" },
})

local CONNECT_OPTIONS = with_connection_options {
  bind = join(words("'ip' or 'ip:port'"), {
    { value = "localhost", problem = "'ip' or 'ip:port' expected, got 'localhost'" },
    { value = "127.0.0.1:", problem = "'ip' or 'ip:port' expected, got '127.0.0.1:'" },
    { value = "127.0.0.1:65536", problem = "'ip' or 'ip:port' expected, got '127.0.0.1:65536'" },
    { value = "[127.0.0.1", problem = "'ip' or 'ip:port' expected, got '[127.0.0.1'" },
  }),
  family = FAMILY,
  timeout = seconds(),
  tls = of_types("nil number string function userdata thread", "boolean or table (TLS options)"),
}

local LISTEN_OPTIONS = with_connection_options {
  backlog = size(1),
  handshake_timeout = seconds(),
  ipv6_only = BOOLEAN,
  reuse_port = BOOLEAN,
  tls = join(of_types("nil boolean number string function userdata thread", "table (cert and key)"), {
    { value = {}, problem = "cert is missing: the path of a certificate, or PEM text" },
    { value = { key = "x" }, problem = "cert is missing: the path of a certificate, or PEM text" },
    { value = { cert = "x" }, problem = "key is missing: the path of the certificate's key, or PEM text" },
  }),
}

local LISTEN_MISSPELT = {
  backlogs = "backlog", reuseport = "reuse_port", ipv6only = "ipv6_only", newlines = "newline", tsl = "tls",
  handshake_timout = "handshake_timeout", handshaketimeout = "handshake_timeout", timeout = "read_timeout",
  timeouts = "read_timeout",
}

local NOT_FUNCTION = "nil boolean number string table userdata thread"
local FUNCTION = of_types(NOT_FUNCTION, "function")

local SERVE_OPTIONS, SERVE_MISSPELT = { max_connections = limit(1), on_error = FUNCTION },
  { max_conections = "max_connections", onerror = "on_error", on_eror = "on_error", timeout = "read_timeout" }
for name, mistakes in pairs(LISTEN_OPTIONS) do
  SERVE_OPTIONS[name] = mistakes
end
for wrong, right in pairs(LISTEN_MISSPELT) do
  SERVE_MISSPELT[wrong] = right
end

local HERE = "127.0.0.1"
local NOT_TABLE = "boolean number string function userdata thread"

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

local WITH_PORT = "host without ':port' expected: a port is an argument of its own"
local HOST = join(STRING, {
  { value = tcp, problem = "string expected, got the module; use '.'" },
  { value = "127.0.0.1:9000", problem = WITH_PORT },
  { value = "localhost:9000", problem = WITH_PORT },
  { value = "[::1]:9000", problem = WITH_PORT },
  { value = "", problem = "host is empty" },
  { value = "a\0b", problem = "host contains a zero byte" },
  { value = "caf\233", problem = "string is not UTF-8" },
  { value = "[::1", problem = "IPv6 address expected in brackets" },
  { value = "[]", problem = "IPv6 address expected in brackets" },
  { value = "[127.0.0.1]", problem = "IPv6 address expected in brackets" },
  { value = "unix:", problem = "path expected after 'unix:'" },
  { value = "unix:/a\0b", problem = "path contains a zero byte" },
})

-- Of what knows no unix sockets.
local NAME = join(HOST, { { value = "unix:/x", problem = "name or address expected, got a unix path" } })

-- Of connect and of connect_tls.
local CONNECT = join(
  at(1, HOST),
  at(2, PORT, HERE),
  at(2, of_types("number string table", "nil (a unix path has no port)"), "unix:/no/such/socket"),
  at(3, join(of_types("boolean function userdata thread", "number (the timeout) or table (options)"),
    seconds("string")), HERE, 1),
  in_options(CONNECT_OPTIONS, {
    timout = "timeout", Timeout = "timeout", time_out = "timeout", read_timout = "read_timeout", no_delay = "nodelay",
    keep_alive = "keepalive", newlines = "newline", maxline = "max_line", max_packets = "max_packet",
    writetimeout = "write_timeout", tsl = "tls", tlss = "tls",
  }, HERE, 1),
  in_tls_options(TLS_CLIENT_OPTIONS, {
    verfy = "tls.verify", Verify = "tls.verify", ca_bundel = "tls.ca_bundle", cabundle = "tls.ca_bundle",
    snii = "tls.sni", Sni = "tls.sni",
  }, HERE, 1),
  beside_tls(TLS_CLIENT_OPTIONS, HERE, 1),
  in_place(tls_misuse.client_together("tls.", function(options) return { tls = options } end), HERE, 1)
)
local NO_NAME = "a unix path is no name that a certificate could cover: give tls.sni"

--- Without the mistake of giving nothing.
local function given(mistakes)
  local some = {}
  for _, mistake in ipairs(mistakes) do
    if mistake.value ~= nil then
      some[#some + 1] = mistake
    end
  end
  return some
end

-- Of resolve and of resolve_all.
local RESOLVE = join(at(1, NAME), at(2, of_types(NOT_TABLE, "table (options)"), HERE),
  in_options({ family = FAMILY, timeout = seconds() }, { timout = "timeout", Family = "family" }, HERE))

-- What copy copies neither from nor to.
local ENDS = join(of_types("nil boolean number string table thread", "Connection, file or function"),
  misuse.CLOSED_FILE, {
    { value = tcp.null, problem = "Connection, file or function expected, got userdata" },
  })

-- Of listen, and of serve, which has a handler before the options, and more of them.
local function listening(options, misspelt, ...)
  local position = select("#", ...) + 1
  return join(
    at(1, HOST),
    at(2, PORT, HERE),
    at(2, of_types("number string table", "nil (a unix path has no port)"), "unix:/no/such/socket"),
    at(position, of_types(NOT_TABLE, "table (options)"), ...),
    in_options(options, misspelt, ...),
    in_tls_options(TLS_SERVER_OPTIONS, { crt = "tls.cert", certs = "tls.cert", Key = "tls.key" }, ...),
    beside_tls(TLS_SERVER_OPTIONS, ...),
    in_place(tls_misuse.server_together("tls.", function(tls) return { tls = tls } end), ...)
  )
end

local NO_OPTIONS = "no options expected: they are for udp_listen(host, port, options), and set_option"

--- Mistakes with an argument of `udp`, where a table is taken for options.
local function or_options(mistakes)
  local all = {}
  for i, it in ipairs(mistakes) do
    local is_options = type(it.value) == "table" and it.value ~= tcp
    all[i] = { value = it.value, problem = is_options and NO_OPTIONS or it.problem }
  end
  return all
end

local PEER_PORT = or_options(udp_misuse.port_of(PORT, "udp(host, port), or udp() without a peer"))

-- The cases of every function of the module that has a `try_` form, and of the others.
local MODULE_FALLIBLE = {
  connect = join(CONNECT, {
    case("option 'tls'", NO_NAME, "unix:/no/such/socket", nil, { tls = true }),
    case("option 'tls'", NO_NAME, "unix:/no/such/socket", nil, { tls = { ca_bundle = "x" } }),
  }),
  connect_tls = join(CONNECT, {
    case("option 'tls'", "true or table expected, got false; connect is without TLS", HERE, 1, { tls = false }),
    case("option 'tls'", NO_NAME, "unix:/no/such/socket"),
    case("option 'tls'", NO_NAME, "unix:/no/such/socket", nil, 5),
    case("option 'tls'", NO_NAME, "unix:/no/such/socket", nil, { tls = { verify = true } }),
  }),
  copy = join(at(1, ENDS), at(2, ENDS, print), at(3, of_types(NOT_TABLE, "table (options)"), print, print),
    in_options({ limit = limit(0), progress = FUNCTION }, { limt = "limit", Progress = "progress" }, print, print)),
  listen = listening(LISTEN_OPTIONS, LISTEN_MISSPELT, HERE, 0),
  resolve = RESOLVE,
  resolve_all = RESOLVE,
  serve = join(at(3, FUNCTION, HERE, 0), listening(SERVE_OPTIONS, SERVE_MISSPELT, HERE, 0, print)),
  udp = join(at(1, or_options(given(NAME))), at(2, PEER_PORT, HERE), {
    case("argument #1", "string expected, got nil", nil, 5),
    case("argument #3", NO_OPTIONS, HERE, 1, {}),
    case("argument #3", NO_OPTIONS, nil, nil, 5),
  }),
  udp_listen = join(
    at(1, NAME),
    at(2, udp_misuse.port_of(PORT, "udp_listen(host, port)"), HERE),
    at(3, of_types(NOT_TABLE, "table (options)"), HERE, 0),
    in_options(udp_misuse.LISTEN_OPTIONS, {
      ttll = "ttl", Broadcast = "broadcast", reuseport = "reuse_port", multicastttl = "multicast_ttl",
    }, HERE, 0)
  ),
  with_timeout = join(at(1, seconds()), at(2, FUNCTION, 1)),
}

-- What a list of `allow` cannot hold, whichever it is.
local ENTRIES = of_types("nil boolean number string function userdata thread", "table (list of entries)")
for _, entry in ipairs { 5, true, {}, print } do
  local got = type(entry) .. (entry == 5 and "; write ':5' for a port" or "")
  ENTRIES[#ENTRIES + 1] = { value = { entry }, problem = "string as entry 1 expected, got " .. got }
  ENTRIES[#ENTRIES + 1] = { value = { "10.0.0.1", entry }, problem = "string as entry 2 expected, got " .. got }
end
for _, list in ipairs { { a = "::1" }, { [2] = "::1" }, { "::1", a = "::1" } } do
  ENTRIES[#ENTRIES + 1] = { value = list, problem = "list expected, got a table with holes or names" }
end
for entry, problem in pairs {
  ["10.0.0.0/33"] = "'/33': 0 to 32 bits expected", [":70000"] = "port 1-65535 expected, got '70000'",
  [":0"] = "port 1-65535 expected, got '0'", ["unix:"] = "absolute path expected behind 'unix:'",
} do
  ENTRIES[#ENTRIES + 1] = { value = { entry }, problem = ("entry 1, '%s': %s"):format(entry, problem) }
  ENTRIES[#ENTRIES + 1] = { value = { "10.0.0.1", entry }, problem = ("entry 2, '%s': %s"):format(entry, problem) }
end

local MODULE_PLAIN = {
  allow = join(at(1, of_types("nil " .. NOT_TABLE, "table")), { case("argument #2", "nothing more expected", {}, {}) },
    in_options({ deny = ENTRIES, files = BOOLEAN, listen = ENTRIES, net = ENTRIES },
      { nett = "net", Listen = "listen", Deny = "deny", file = "files" })),
  pcall = {},
  pollfd = {},
  queue = at(1, limit(1, without(NOT_NUMBER, "nil"))),
  run = at(1, of_types(without(NOT_FUNCTION, "nil"), "function")),
  spawn = at(1, FUNCTION),
  stdin = {},
  step = at(1, TIME),
  wrap = at(1, FUNCTION),
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

-- The other types, each with an object to try them on.
local OBJECTS = {
  Listener = {
    make = function()
      return tcp.listen(HERE, 0)
    end,
    finish = function(listener)
      listener:close()
    end,
    fallible = { accept = at(1, TIME) },
    plain = {
      addr = {}, close = {}, connections = {}, is_closed = {}, local_addr = {}, local_host = {}, local_port = {},
      pollfd = {},
    },
  },
  Server = {
    make = function()
      return tcp.serve(HERE, 0, print)
    end,
    finish = function(server)
      server:close()
      tcp.run()
    end,
    fallible = {},
    plain = {
      addr = {}, close = at(1, TIME), connections = {}, is_closed = {}, local_addr = {}, local_host = {},
      local_port = {},
    },
  },
  UdpSocket = {
    make = function()
      return tcp.udp(HERE, 9)
    end,
    finish = function(socket)
      socket:close()
    end,
    fallible = udp_misuse.fallible(NAME, PORT),
    plain = udp_misuse.plain,
  },
  Task = {
    make = function()
      return tcp.spawn(tcp.sleep, 60)
    end,
    finish = function(task)
      task:cancel()
    end,
    fallible = { join = at(1, TIME) },
    plain = { cancel = {}, status = {} },
  },
  Queue = {
    make = function()
      return tcp.queue()
    end,
    finish = function() end,
    fallible = { pop = at(1, TIME), push = join(at(2, TIME, 1), { case("argument #1", "value expected, got nil") }) },
    plain = { close = {}, count = {}, values = {} },
  },
}

describe("misuse is told by every", function()
  it("function of the module: each has its cases here", function()
    assert.same(names_with_cases(MODULE_FALLIBLE, MODULE_PLAIN), names_of_functions(tcp))
    assert.same(names_with_cases(JSON_FALLIBLE, JSON_PLAIN), names_of_functions(tcp.json))
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

  for name, kind in pairs(OBJECTS) do
    it("method of a " .. name .. ": each has its cases here", function()
      local object = kind.make()
      local methods = getmetatable(object) and getmetatable(object).__index or debug.getmetatable(object).__index
      assert.same(names_with_cases(kind.fallible, kind.plain), names_of_functions(methods))
      local function check()
        each_form(kind.fallible, kind.plain, function(method, cases)
          assert.equal("", differences(methods[method], method, cases, object))
        end)
      end
      check()
      assert.equal("", wrong_selfs(methods, name, names_with_cases(kind.fallible, kind.plain)))
      kind.finish(object)
      check()
    end)
  end
end)
