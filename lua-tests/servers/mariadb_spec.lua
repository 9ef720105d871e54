-- MariaDB's protocol: a greeting in the clear, a packet that asks for TLS, and everything else under it.

local lfs = require("lfs")
local tcp = require("tcp.core")
local support = require("support")
local ciphers = require("support.ciphers")
local examples = require("support.examples")
local servers = require("support.servers")
local transports = require("support.transports")

local fails = support.fails

if not servers.find("mariadbd") then
  describe("mariadbd", function()
    pending("is not installed: apt-get install mariadb-server-core")
  end)
  return
end

local PATIENCE = 10
local OPTIONS = { read_timeout = PATIENCE, write_timeout = PATIENCE }
local TRUSTING = transports.CLIENT

-- Capabilities: whole passwords, the protocol of 4.1, its kind of authentication, and that by plugins.
local CLIENT_SSL = 0x800
local CAPABILITIES = 0x1 + 0x200 + 0x8000 + 0x80000
local MAX_PACKET = 0x1000000
local UTF8 = 45
local QUIT, QUERY = "\1", "\3"

local WITH_TLS = {}
for option, file in pairs { cert = "server.pem", key = "server.key", ca = "ca.pem" } do
  local folder = transports.certificate("server"):match("^.*/")
  WITH_TLS[#WITH_TLS + 1] = ("--ssl-%s=%s/%s%s"):format(option, lfs.currentdir(), folder, file)
end

--- Starts it with more words. Without its tables of users it takes anybody.
local function start(more)
  return servers.start("mariadbd", function(it)
    assert(lfs.mkdir(it.dir .. "/data"))
    local words = {
      "--no-defaults",
      -- Only root is asked for it.
      "--user=root",
      "--datadir=" .. it.dir .. "/data",
      "--socket=" .. it.dir .. "/socket",
      "--bind-address=" .. it.host,
      "--port=" .. it.port,
      "--skip-grant-tables",
      "--skip-name-resolve",
      "--skip-innodb",
      "--default-storage-engine=Aria",
    }
    for _, word in ipairs(more) do
      words[#words + 1] = word
    end
    return words
  end)
end

local function little(value, size)
  local bytes = {}
  for i = 1, size do
    bytes[i] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(bytes)
end

local function number(bytes, first, size)
  local value = 0
  for i = first + size - 1, first, -1 do
    value = value * 256 + bytes:byte(i)
  end
  return value
end

local function read_packet(conn)
  local head = conn:read(4)
  return conn:read(number(head, 1, 3)), head:byte(4)
end

local function write_packet(conn, sequence, payload)
  conn:write(little(#payload, 3), string.char(sequence), payload)
end

--- A plain connection, the server's version, and whether it offers TLS.
local function greeted(server)
  local conn = tcp.connect("localhost", server.port, OPTIONS)
  local greeting, sequence = read_packet(conn)
  assert.equal(0, sequence)
  assert.equal(10, greeting:byte())
  local last = greeting:find("\0", 2, true)
  local capabilities = number(greeting, last + 14, 2)
  return conn, greeting:sub(2, last - 1), math.floor(capabilities / CLIENT_SSL) % 2 == 1
end

--- What a request for TLS consists of, and a login begins with.
local function hello(flags)
  return little(CAPABILITIES + flags, 4) .. little(MAX_PACKET, 4) .. string.char(UTF8) .. ("\0"):rep(23)
end

--- A connection whose client may shake hands.
local function ready(server)
  local conn, _, offers = greeted(server)
  assert.is_true(offers)
  write_packet(conn, 1, hello(CLIENT_SSL))
  return conn
end

local function login(conn, sequence, flags)
  write_packet(conn, sequence, hello(flags) .. "lua\0" .. "\0" .. "mysql_native_password\0")
  local answer, its = read_packet(conn)
  assert.equal(sequence + 1, its)
  return answer
end

local function opened(server, tls)
  local conn = ready(server)
  assert.equal(conn, conn:start_tls(tls or TRUSTING))
  assert.equal(0, login(conn, 2, CLIENT_SSL):byte())
  return conn
end

--- The strings of a row.
local function row_of(packet)
  local row, at = {}, 1
  while at <= #packet do
    local size, first = packet:byte(at), 1
    if size >= 0xfc then
      local width = size - 0xfa
      size, first = number(packet, at + 1, width), 1 + width
    end
    row[#row + 1] = packet:sub(at + first, at + first + size - 1)
    at = at + first + size
  end
  return row
end

--- The rows that a query has, or nil, the number of its error, and its text.
local function query(conn, text)
  write_packet(conn, 0, QUERY .. text)
  local head = read_packet(conn)
  if head:byte() == 0xff then
    return nil, number(head, 2, 2), head:sub(10)
  end
  for _ = 1, head:byte() do
    read_packet(conn)
  end
  assert.equal(0xfe, read_packet(conn):byte())
  local rows = {}
  local packet = read_packet(conn)
  while packet:byte() ~= 0xfe or #packet >= 9 do
    rows[#rows + 1] = row_of(packet)
    packet = read_packet(conn)
  end
  return rows
end

local function status(conn, name)
  return query(conn, ("SHOW STATUS LIKE '%s'"):format(name))[1][2]
end

local lines = {}
for i = 1, 65536 do
  lines[i] = ("%015d\n"):format(i)
end
local LARGE = table.concat(lines)

describe("mariadbd", function()
  local server

  setup(function()
    server = start(WITH_TLS)
  end)

  teardown(function()
    server:stop()
  end)

  it("greets in the clear and offers TLS", function()
    local conn, version, offers = greeted(server)
    assert.matches("%d+%.%d+%.%d+%-MariaDB", version)
    assert.is_true(offers)
    assert.equal(0, conn:buffered())
    assert.is_false(conn:is_tls())
    assert.is_nil(conn:protocol())
    conn:close()
  end)

  it("is understood by the example mysql_greeting", function()
    local conn, version = greeted(server)
    conn:close()
    local output = examples.run("mysql_greeting.lua", { server.host, server.port })
    local its, rest = output:match("^version      (%S+)\nconnection   %d+\n(.*)$")
    assert.equal(version, its, output)
    assert.equal("offers TLS   yes\nlogs in by   mysql_native_password\n", rest)
  end)

  it("knows of no cipher where there was no upgrade", function()
    local conn = greeted(server)
    assert.equal(0, login(conn, 1, 0):byte())
    assert.equal("", status(conn, "Ssl_cipher"))
    assert.equal("", status(conn, "Ssl_version"))
    conn:close()
  end)

  for _, protocol in ipairs { "TLSv1.2", "TLSv1.3" } do
    local options = { ca_bundle = transports.certificate("ca"), protocols = { protocol } }

    it("names the same protocol and cipher: " .. protocol, function()
      local conn = opened(server, options)
      assert.is_true(conn:is_tls())
      assert.equal(protocol, conn:protocol())
      assert.equal(conn:protocol(), status(conn, "Ssl_version"))
      assert.equal(conn:cipher(), ciphers.iana(status(conn, "Ssl_cipher")))
      assert.same({ "localhost", "127.0.0.1", "::1" }, conn:peer_cert().sans)
      conn:close()
    end)

    it("gives 1 MB back as it went, again and again: " .. protocol, function()
      local conn = opened(server, options)
      for _ = 1, 3 do
        local rows = query(conn, ("SELECT 'first', '%s'"):format(LARGE))
        assert.equal("first", rows[1][1])
        assert.is_true(LARGE == rows[1][2])
      end
      assert.equal(0, conn:buffered())
      conn:close()
    end)
  end

  it("knows the session of the connection before", function()
    for _, protocol in ipairs { "TLSv1.2", "TLSv1.3" } do
      -- No other test has a session with these.
      local options = { ca_bundle = transports.certificate("ca"), protocols = { protocol }, alpn = { "mysql" } }
      for i = 1, 3 do
        local conn = opened(server, options)
        assert.equal(i > 1, conn:resumed())
        conn:close()
      end
    end
  end)

  -- It sends no closing alert, so that only the protocol says that nothing was cut off.
  it("ends the stream when it is told to", function()
    local conn = opened(server)
    write_packet(conn, 0, QUIT)
    local value, err = conn:try_recv()
    assert.is_nil(value)
    assert.is_true(err == nil or err.kind == "truncated", tostring(err))
    assert.equal(0, conn:buffered())
    conn:close()
  end)

  it("keeps the connection after a query that fails", function()
    local conn = opened(server)
    local rows, code, text = query(conn, "SELEKT 1")
    assert.is_nil(rows)
    assert.equal(1064, code)
    assert.matches("error in your SQL syntax", text)
    assert.same({ { "1", "2" } }, query(conn, "SELECT 1, 2"))
    conn:close()
  end)

  it("gives 1000 rows", function()
    local conn = opened(server)
    local rows = query(conn, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
      .. "SELECT i, REPEAT('x', i) FROM n")
    assert.equal(1000, #rows)
    for i, row in ipairs(rows) do
      assert.same({ tostring(i), ("x"):rep(i) }, row)
    end
    conn:close()
  end)

  local UNBELIEVED = {
    ["for another name"] = { ca_bundle = transports.certificate("ca"), sni = "wrong.example" },
    ["of an authority that is not trusted"] = { ca_bundle = transports.certificate("stranger-ca") },
  }
  for name, tls in pairs(UNBELIEVED) do
    it("is not believed with a certificate " .. name .. ", and told no name", function()
      local conn = ready(server)
      local value, err = conn:try_start_tls(tls)
      fails("certificate", value, err)
      assert.equal("start_tls", err.op)
      assert.equal("handshake", err.stage)
      assert.is_true(conn:is_closed())
      fails("closed", conn:try_write(hello(CLIENT_SSL)))
    end)
  end

  it("takes no login that came in the clear behind the request for TLS", function()
    local conn = greeted(server)
    local payload = hello(CLIENT_SSL) .. "lua\0\0mysql_native_password\0"
    conn:write(little(32, 3), "\1", hello(CLIENT_SSL), little(#payload, 3), "\2", payload)
    local answer = conn:try_read_str() or ""
    assert.not_matches("^...\3%z", answer)
    conn:close()
  end)

  for _, protocol in ipairs { "TLSv1.2", "TLSv1.3" } do
    local function identified(name)
      return {
        ca_bundle = transports.certificate("ca"),
        protocols = { protocol },
        client_cert = transports.certificate(name),
        client_key = transports.certificate(name, "key"),
      }
    end

    it("takes a client's certificate of its authority: " .. protocol, function()
      local conn = opened(server, identified("client"))
      assert.same({ { "1" } }, query(conn, "SELECT 1"))
      conn:close()
    end)

    it("refuses a client's certificate of another authority: " .. protocol, function()
      local conn = ready(server)
      local value, err = conn:try_start_tls(identified("stranger"))
      if protocol == "TLSv1.3" then
        -- The client was done before the server looked.
        assert.equal(conn, value)
        value, err = conn:try_read(1)
      end
      fails("tls", value, err)
      assert.equal("unknown_ca", err.alert)
      conn:close()
    end)
  end

  it("upgrades fifty connections of fifty tasks at once", function()
    local running = {}
    for i = 1, 50 do
      running[i] = tcp.spawn(function()
        local conn = opened(server)
        local rows = query(conn, "SELECT " .. i)
        conn:close()
        return rows[1][1]
      end)
    end
    for i, task in ipairs(running) do
      assert.equal(tostring(i), (task:join(30)))
    end
  end)
end)

describe("mariadbd without TLS", function()
  local server

  setup(function()
    server = start { "--skip-ssl" }
  end)

  teardown(function()
    server:stop()
  end)

  --- What a client does that asks for TLS and for nothing less.
  local function secured(conn, offers)
    if not offers then
      conn:close()
      return nil, "the server offers no TLS"
    end
    write_packet(conn, 1, hello(CLIENT_SSL))
    return conn:start_tls(TRUSTING)
  end

  it("says so in its greeting, and hears nothing from a careful client", function()
    local conn, _, offers = greeted(server)
    assert.is_false(offers)
    local value, problem = secured(conn, offers)
    assert.is_nil(value)
    assert.equal("the server offers no TLS", problem)
    assert.is_true(conn:is_closed())
  end)

  it("answers one that insists in the clear, which is no TLS", function()
    local conn = greeted(server)
    local err = support.raises("tls", secured, conn, true)
    assert.equal("handshake", err.stage)
    assert.is_true(conn:is_closed())
  end)
end)
