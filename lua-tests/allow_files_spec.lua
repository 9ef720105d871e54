-- tcp.allow { files = false }: whose `io` was taken away opens no file through the module either.

local certificates = require("support.certificates")
local policy = require("support.policy")
local transports = require("support.transports")

local certificate, prints = transports.certificate, policy.prints
local CA, CERT, KEY = certificate("ca"), certificate("server"), certificate("server", "key")
local CLIENT, CLIENT_KEY = certificate("client"), certificate("client", "key")

-- What the scripts below have: `PEM[path]` is the text of a file, `serve(tls)` gives the port of a server that greets
-- whoever connects, `greeting(tls)` what a client of it is told, or the kind of the error, and `pair()` both ends of a
-- connection.
local TOOLS = ([[
  local CA, CERT, KEY, CLIENT, CLIENT_KEY = %q, %q, %q, %q, %q
  local PEM = {}
  for _, path in ipairs { CA, CERT, KEY, CLIENT, CLIENT_KEY } do
    local file = assert(io.open(path, "rb"))
    PEM[path] = file:read("*a")
    file:close()
  end
  local function serve(tls)
    local listener = tcp.listen("127.0.0.1", 0, { tls = tls })
    tcp.spawn(function()
      while true do
        local conn = listener:accept()
        conn:try_write("hello\n")
        conn:close()
      end
    end)
    return listener:local_port()
  end
  local function greeting(port, tls)
    local conn, err = tcp.try_connect("localhost", port, { family = "ipv4", tls = tls, timeout = 60 })
    if not conn then
      return err.kind
    end
    local line, problem = conn:try_read_line()
    conn:close()
    return line or problem.kind
  end
  local function pair()
    local listener, port = listen()
    local near = tcp.connect("127.0.0.1", port)
    local far = listener:accept()
    listener:close()
    return near, far
  end
  local function forbid()
    tcp.allow { files = false }
  end
]]):format(CA, CERT, KEY, CLIENT, CLIENT_KEY)

local function tells(lines, script, prefix)
  prints(lines, TOOLS .. script, prefix)
end

--- The TLS options of one side, all by text, but the one of this name, which is `value`.
local CLIENTS = { "ca_bundle", "crl", "client_cert", "client_key" }
local SERVERS = { "cert", "key", "client_ca", "sni cert", "sni key" }
local OPTIONS = [[
  local function client(name, value)
    local options = { ca_bundle = PEM[CA], client_cert = PEM[CLIENT], client_key = PEM[CLIENT_KEY], sni = "localhost" }
    options[name] = value
    return options
  end
  local function server(name, value)
    local other = { cert = PEM[CERT], key = PEM[KEY] }
    local options = { cert = PEM[CERT], key = PEM[KEY], client_ca = PEM[CA], client_auth = "required",
      sni = { ["other.example"] = other } }
    if name:find("^sni ") then
      other[name:sub(5)] = value
    else
      options[name] = value
    end
    return options
  end
]]
local PATHS = { ca_bundle = CA, crl = CA, client_cert = CLIENT, client_key = CLIENT_KEY, cert = CERT, key = KEY,
  client_ca = CA, ["sni cert"] = CERT, ["sni key"] = KEY }

--- The same line so many times.
local function times(count, line)
  local lines = {}
  for i = 1, count do
    lines[i] = line
  end
  return lines
end

describe("without files, a path is denied as", function()
  for _, name in ipairs(CLIENTS) do
    it("the option " .. name, function()
      -- Whether there is such a file is nobody's business either.
      for _, path in ipairs { PATHS[name], "/no/such/file.pem", "/", "relative" } do
        tells({ "denied\tconnect", "denied\tconnect_tls", "denied\tstart_tls" }, OPTIONS .. ([[
          local NAME, PATH = %q, %q
          local port = serve { cert = CERT, key = KEY }
          local near = pair()
          forbid()
          local function tell(_, err)
            print(err.kind, err.op)
          end
          tell(tcp.try_connect("127.0.0.1", port, { tls = client(NAME, PATH) }))
          tell(tcp.try_connect_tls("127.0.0.1", port, { tls = client(NAME, PATH) }))
          tell(near:try_start_tls(client(NAME, PATH)))
        ]]):format(name, path))
      end
    end)
  end

  for _, name in ipairs(SERVERS) do
    it("the option " .. name .. " of a server", function()
      for _, path in ipairs { PATHS[name], "/no/such/file.pem" } do
        tells({ "denied\tlisten", "denied\tserve", "denied\tstart_tls" }, OPTIONS .. ([[
          local NAME, PATH = %q, %q
          local _, far = pair()
          forbid()
          local function tell(_, err)
            print(err.kind, err.op)
          end
          tell(tcp.try_listen("127.0.0.1", 0, { tls = server(NAME, PATH) }))
          tell(tcp.try_serve("127.0.0.1", 0, function() end, { tls = server(NAME, PATH) }))
          local options = server(NAME, PATH)
          options.server = true
          tell(far:try_start_tls(options))
        ]]):format(name, path))
      end
    end)
  end

  it("what send_file sends, of which nothing leaves", function()
    tells({ "denied\tsend_file\t0", "denied\tsend_file\t0", "denied\tsend_file\t0", "after" }, ([[
      local near, far = pair()
      forbid()
      for _, path in ipairs { %q, "/no/such/file", "/" } do
        local _, err = near:try_send_file(path)
        print(err.kind, err.op, err.written)
      end
      near:write("after")
      print(far:read(5))
    ]]):format(CA))
  end)

  it("one that was read before", function()
    tells({ "hello", "denied", "denied\tlisten" }, [[
      local port = serve { cert = CERT, key = KEY }
      print(greeting(port, { ca_bundle = CA }))
      forbid()
      print(greeting(port, { ca_bundle = CA }))
      local _, err = tcp.try_listen("127.0.0.1", 0, { tls = { cert = CERT, key = KEY } })
      print(err.kind, err.op)
    ]])
  end)
end)

describe("without files,", function()
  it("PEM text is taken by every option", function()
    tells({ "hello", "hello" }, OPTIONS .. [[
      forbid()
      print(greeting(serve(server("cert", PEM[CERT])), client("ca_bundle", PEM[CA])))
      local near, far = pair()
      tcp.spawn(function()
        local options = server("key", PEM[KEY])
        options.server = true
        far:start_tls(options)
        far:write("hello\n")
      end)
      near:start_tls(client("ca_bundle", PEM[CA]))
      print(near:read_line())
    ]])
  end)

  it("the system's own authorities are asked, and Mozilla's", function()
    tells({ "hello", "certificate" }, [[
      local port = serve { cert = CERT, key = KEY }
      forbid()
      print(greeting(port, true))
      print(greeting(port, { ca_bundle = "mozilla" }))
    ]], "env -u SSL_CERT_DIR SSL_CERT_FILE=" .. CA)
  end)

  it("a listener that is there already goes on with its certificate", function()
    tells({ "hello", "hello" }, [[
      local port = serve { cert = CERT, key = KEY }
      forbid()
      print(greeting(port, { ca_bundle = PEM[CA] }))
      print(greeting(port, { ca_bundle = PEM[CA] }))
    ]])
  end)

  it("files that are open are sent, and copied from and to", function()
    tells({ "3\tabc", "3\tabc", "3\tabc", "abc" }, [[
      local near, far = pair()
      local file, target = io.tmpfile(), io.tmpfile()
      file:write("abc")
      forbid()
      file:seek("set")
      print(near:send_file(file), far:read(3))
      file:seek("set")
      print(tcp.copy(file, near), far:read(3))
      near:write("abc")
      near:close()
      print(tcp.copy(far, target), "abc")
      target:seek("set")
      print(target:read("*a"))
    ]])
  end)

  it("names, unix sockets and certificates that are not checked are no files", function()
    tells({ "hello", "reached", "reached" }, [[
      local port = serve { cert = CERT, key = KEY }
      local path = os.tmpname()
      os.remove(path)
      forbid()
      print(greeting(port, { verify = false }))
      local listener = tcp.listen("unix:" .. path)
      print(reach("connect", "unix:" .. path))
      listener:close()
      print(reach("resolve", "localhost"))
    ]])
  end)

  it("what is neither path nor PEM text is not shown", function()
    tells({ "true", "true" }, [[
      forbid()
      local lines = PEM[KEY]:gsub("%-%-%-%-%-[^\n]*\n", "")
      for _, key in ipairs { lines, (lines:gsub("\n", "")) } do
        local _, err = tcp.try_listen("127.0.0.1", 0, { tls = { cert = PEM[CERT], key = key } })
        print(not tostring(err):find(key:sub(1, 10), 1, true) and not tostring(err):find(key:sub(-10), 1, true))
      end
    ]])
  end)
end)

describe("files = false", function()
  it("is not undone by files = true, nor said by it", function()
    tells({ "3", "denied", "denied" }, ([[
      local near = pair()
      local path = %q
      tcp.allow { files = true }
      print(near:send_file(path, 1, 3))
      tcp.allow { files = false }
      tcp.allow { files = true }
      print(select(2, near:try_send_file(path)).kind)
      tcp.allow { files = true, net = { "*" } }
      print(select(2, near:try_send_file(path)).kind)
    ]]):format(CA))
  end)

  it("is not said by the other lists, which are about sockets", function()
    tells(times(2, "hello"), [[
      local port = serve { cert = CERT, key = KEY }
      tcp.allow { net = { "localhost" }, listen = { "127.0.0.1" }, deny = { "10.0.0.0/8", "unix:/*/*" } }
      print(greeting(port, { ca_bundle = CA }))
      print(greeting(serve { cert = CERT, key = KEY }, { ca_bundle = CA }))
    ]])
  end)
end)

describe("a path", function()
  after_each(certificates.remove_files)

  it("is not opened where it is denied, so that no pipe waits", function()
    local pipe = certificates.file("pipe")
    os.execute("mkfifo " .. pipe)
    tells({ "denied", "denied" }, ([[
      local near = pair()
      forbid()
      print(select(2, near:try_send_file(%q)).kind)
      print(greeting(1, { ca_bundle = %q }))
    ]]):format(pipe, pipe), "timeout 20")
  end)
end)
