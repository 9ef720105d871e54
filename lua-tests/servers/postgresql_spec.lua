-- PostgreSQL: TLS begins where the server answers "S" to a request for it.

local tcp = require("tcp.core")
local certificates = require("support.certificates")
local examples = require("support.examples")
local peers = require("support.peers")
local postgresql = require("support.postgresql")
local support = require("support")
local transports = require("support.transports")
local waits = require("support.waits")

local problem = postgresql.problem()
if problem then
  describe("PostgreSQL", function()
    pending(problem)
  end)
  return
end

local fails, certificate = support.fails, transports.certificate
local SSL_REQUEST, message = postgresql.SSL_REQUEST, postgresql.message
local begin, query = postgresql.begin, postgresql.query

local AUTHORITY = certificate("ca")
local PATIENCE = 30
local OPTIONS = { read_timeout = PATIENCE, write_timeout = PATIENCE }
local PROTOCOLS = { "TLSv1.2", "TLSv1.3" }

-- 1 MiB of lines that all differ.
local lines = {}
for i = 1, 65536 do
  lines[i] = ("%015d\n"):format(i)
end
local LARGE = table.concat(lines)

local function test(name, body)
  it(name, waits.cleanly(body))
end

--- A connection to a server that has agreed to speak TLS.
local function request(server)
  local conn = waits.opens(tcp.connect(server.host, server.port, OPTIONS))
  conn:write(SSL_REQUEST)
  assert.equal("S", conn:read(1))
  return conn
end

--- The TLS options of a client that trusts the tests' authority, and shows a certificate of the tests if one is named.
local function options(protocol, name)
  return {
    ca_bundle = AUTHORITY,
    protocols = protocol and { protocol },
    client_cert = name and certificate(name),
    client_key = name and certificate(name, "key"),
  }
end

local function upgrade(server, tls)
  local conn = request(server)
  assert.equal(conn, conn:start_tls(tls))
  return conn
end

local function ask(conn, text)
  local rows, err = query(conn, text)
  assert(rows, err and err.M)
  return rows
end

--- OpenSSL's name of a cipher, as IANA's.
local function iana(name)
  if name:match("^TLS_") then
    return name
  end
  local words = name:gsub("%-", "_"):gsub("ECDSA_", "ECDSA_WITH_"):gsub("RSA_", "RSA_WITH_"):gsub("AES(%d)", "AES_%1")
  return "TLS_" .. words:gsub("POLY1305$", "POLY1305_SHA256")
end

describe("PostgreSQL", function()
  local server

  setup(function()
    server = postgresql.start("server")
  end)

  teardown(function()
    server:stop()
  end)

  after_each(waits.clean)

  for _, protocol in ipairs(PROTOCOLS) do
    test("tells of the same TLS as the connection does: " .. protocol, function()
      local conn = upgrade(server, options(protocol))
      assert.is_true(conn:is_tls())
      assert(begin(conn, "secure"))
      local row = ask(conn, "SELECT ssl, version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()")[1]
      assert.same({ "t", protocol, conn:cipher() }, { row[1], row[2], iana(row[3]) })
      assert.equal(protocol, conn:protocol())
      assert.equal("CN=localhost", conn:peer_cert().subject)
      assert.is_nil(conn:alpn())
      conn:close()
      assert.is_nil(conn:protocol())
      assert.is_nil(conn:cipher())
      assert.is_nil(conn:peer_cert())
    end)

    test("takes and gives 1 MiB: " .. protocol, function()
      local conn = upgrade(server, options(protocol))
      assert(begin(conn, "secure"))
      for _ = 1, 3 do
        assert.is_true(LARGE == ask(conn, "SELECT '" .. LARGE .. "'")[1][1])
      end
      local rows = ask(conn, "SELECT lpad(i::text, 15, '0') || chr(10) FROM generate_series(1, 65536) AS i")
      for i, row in ipairs(rows) do
        rows[i] = row[1]
      end
      assert.is_true(LARGE == table.concat(rows))
      assert.equal(0, conn:buffered())
    end)

    -- It switches tickets and its cache of sessions off.
    test("resumes no session: " .. protocol, function()
      for _ = 1, 3 do
        local conn = upgrade(server, options(protocol))
        assert(begin(conn, "secure"))
        assert.is_false(conn:resumed())
        conn:close()
      end
    end)

    test("ends a session in an orderly way: " .. protocol, function()
      local conn = upgrade(server, options(protocol))
      assert(begin(conn, "secure"))
      conn:write(message("X", ""))
      assert.is_nil(conn:recv())
    end)

    test("knows its client by a certificate: " .. protocol, function()
      local text = options(protocol)
      text.client_cert = certificates.contents(certificate("client"))
      text.client_key = certificates.contents(certificate("client", "key"))
      for _, tls in ipairs { options(protocol, "client"), text } do
        local conn = upgrade(server, tls)
        assert(begin(conn, "client"))
        assert.same({ { "client", "/CN=client", "/CN=Test Authority" } },
          ask(conn, "SELECT user, client_dn, issuer_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        assert(begin(upgrade(server, tls), "verified"))
      end
    end)

    test("refuses who has none in its own words: " .. protocol, function()
      for _, user in ipairs { "client", "verified" } do
        local conn = upgrade(server, options(protocol))
        local value, err = begin(conn, user)
        assert.is_nil(value)
        assert.equal("28000 connection requires a valid client certificate", err.C .. " " .. err.M)
        assert.is_nil(conn:recv())
      end
    end)

    test("refuses who has another's in its own words: " .. protocol, function()
      local value, err = begin(upgrade(server, options(protocol, "server")), "client")
      assert.is_nil(value)
      assert.equal('28000 certificate authentication failed for user "client"', err.C .. " " .. err.M)
    end)

    for name, alert in pairs { stranger = "unknown_ca", expired = "certificate_expired" } do
      test(("refuses a certificate that it does not accept, which is told: %s, %s"):format(name, protocol), function()
        local conn = request(server)
        -- By TLS 1.3 the client has finished before the server has looked at its certificate.
        local is_late = protocol == "TLSv1.3"
        local ok, err = conn:try_start_tls(options(protocol, name))
        assert.equal(is_late, ok ~= nil, tostring(err))
        if is_late then
          ok, err = pcall(begin, conn, "verified")
          assert.is_false(ok)
        else
          assert.equal("handshake", err.stage)
          assert.is_true(conn:is_closed())
        end
        assert.equal(alert, fails("tls", nil, err).alert)
      end)
    end
  end

  test("is not believed for another name, which closes the connection", function()
    local conn = request(server)
    local err = fails("certificate", conn:try_start_tls({ ca_bundle = AUTHORITY, sni = "db.example" }))
    assert.equal("start_tls", err.op)
    assert.equal("handshake", err.stage)
    assert.equal(("127.0.0.1:%d"):format(server.port), err.peer)
    assert.matches("db%.example", err.message)
    assert.is_true(conn:is_closed())
    fails("closed", conn:try_write(postgresql.startup("postgres")))
  end)

  test("is not believed by who does not know its authority, which closes the connection", function()
    local conn = request(server)
    fails("certificate", conn:try_start_tls({ ca_bundle = certificate("stranger-ca") }))
    assert.is_true(conn:is_closed())
    fails("closed", conn:try_read(1))
  end)

  test("serves twenty tasks at once", function()
    local tasks = {}
    for i = 1, 20 do
      tasks[i] = tcp.spawn(function()
        local conn = upgrade(server, options())
        begin(conn, "secure")
        local rows = query(conn, ("SELECT %d, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"):format(i))
        return rows
      end)
    end
    for i, task in ipairs(tasks) do
      assert.same({ { tostring(i), "t" } }, (task:join(PATIENCE)))
    end
  end)

  test("refuses what was said before its TLS, over TLS", function()
    local conn = waits.opens(tcp.connect(server.host, server.port, OPTIONS))
    conn:write(SSL_REQUEST, postgresql.startup("secure"))
    assert.equal("S", conn:read(1))
    conn:start_tls(options())
    local value, err = begin(conn, "secure")
    assert.is_nil(value)
    assert.equal("08P01 received unencrypted data after SSL request", err.C .. " " .. err.M)
  end)
end)

describe("PostgreSQL without TLS", function()
  local server

  setup(function()
    server = postgresql.start()
  end)

  teardown(function()
    server:stop()
  end)

  after_each(waits.clean)

  test("says so, and the connection is as good as before", function()
    local conn = waits.opens(tcp.connect(server.host, server.port, OPTIONS))
    conn:write(SSL_REQUEST)
    assert.equal("N", conn:read(1))
    assert(begin(conn, "postgres"))
    assert.is_true(LARGE == ask(conn, "SELECT '" .. LARGE .. "'")[1][1])
    assert.is_false(conn:is_tls())
    assert.is_nil(conn:protocol())
    assert.is_nil(conn:resumed())
  end)

  test("is left alone by the example", function()
    local words = { "localhost", server.port, "postgres", "postgres", "SELECT 1" }
    assert.equal("the server offers no TLS\nexit 1\n", examples.run("postgresql_query.lua", words))
  end)
end)

describe("what stands in the clear behind a server's \"S\"", function()
  after_each(waits.clean)

  local STUFFED = {
    ["an answer"] = message("E", "SFATAL\0C28000\0Mcome to another host\0\0"),
    ["a byte"] = "\0",
    ["the head of a record"] = "\22\3\3\0\20",
    ["an alert"] = "\21\3\3\0\2\2\40",
  }
  for name, stuffed in pairs(STUFFED) do
    test("is taken for TLS, and fails, whatever the server does then: " .. name, function()
      local listener = waits.opens(tcp.listen("127.0.0.1", 0, OPTIONS))
      local conn = waits.opens(tcp.connect("127.0.0.1", listener:local_port(), OPTIONS))
      local far = waits.opens(listener:accept(PATIENCE))
      local serving = tcp.spawn(function()
        far:read(8)
        far:write("S", stuffed)
        local value, err = far:try_start_tls({ server = true, cert = certificate("server"),
          key = certificate("server", "key") })
        return value == nil and err
      end)
      conn:write(SSL_REQUEST)
      assert.equal("S", conn:read(1))
      fails("tls", conn:try_start_tls(options()))
      assert.is_true(conn:is_closed())
      assert.equal(0, conn:buffered())
      fails("closed", conn:try_read(1))
      assert.is_true(tcp.is_error((serving:join(PATIENCE))))
      assert.is_true(far:is_closed())
    end)
  end
end)

describe("the example postgresql_query", function()
  local server

  --- Asks as this user, with this environment.
  local function run(user, text, environment)
    return examples.run("postgresql_query.lua", { "localhost", server.port, user, "postgres", text },
      "PGSSLROOTCERT=" .. AUTHORITY .. " " .. (environment or ""))
  end

  setup(function()
    server = postgresql.start("server")
  end)

  teardown(function()
    server:stop()
  end)

  it("prints rows", function()
    assert.equal("1\tNULL\ta b\n2\tx\t\n", run("secure", "SELECT 1, NULL, 'a b' UNION ALL SELECT 2, 'x', ''"))
    assert.equal("t\n", run("secure", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    assert.is_true(LARGE == run("secure", "SELECT lpad(i::text, 15, '0') FROM generate_series(1, 65536) AS i"))
  end)

  it("says what the server says", function()
    assert.equal('the server says: column "nonsense" does not exist\nexit 1\n', run("secure", "SELECT nonsense"))
  end)

  it("logs in by a password, or by a certificate", function()
    assert.equal("plain\n", run("plain", "SELECT user", "PGPASSWORD='pass word'"))
    assert.equal('the server says: password authentication failed for user "plain"\nexit 1\n',
      run("plain", "SELECT 1", "PGPASSWORD=wrong"))
    assert.equal("the server wants a way to log in that this example does not know\nexit 1\n",
      run("scrambled", "SELECT 1"))
    assert.equal("client\n", run("client", "SELECT user",
      ("PGSSLCERT=%s PGSSLKEY=%s"):format(certificate("client"), certificate("client", "key"))))
    assert.equal("the server says: connection requires a valid client certificate\nexit 1\n", run("client", "SELECT 1"))
  end)

  it("says nothing to a server that it does not know", function()
    assert.matches("start_tls localhost:%d+: the certificate's issuer is not trusted here[^\n]*\nexit 1\n$",
      run("secure", "SELECT 1", "PGSSLROOTCERT=" .. certificate("stranger-ca")))
  end)

  it("says nothing without TLS, and does not show what came instead of an answer", function()
    for _, answer in ipairs { "N", message("E", "SFATAL\0C0A000\0Msend your password to example.com\0\0"), "x" } do
      local peer = peers.start("accept", { "read", 8 }, { "send", answer }, "drain")
      assert.equal("the server offers no TLS\nexit 1\n",
        examples.run("postgresql_query.lua", { "localhost", peer.port, "secure", "postgres", "SELECT 1" }))
      assert.equal(SSL_REQUEST, peer:got())
      assert.equal("", peer:got())
    end
  end)

  it("tells how to use it", function()
    assert.equal("usage: lua postgresql_query.lua HOST PORT USER DATABASE QUERY\nexit 2\n",
      examples.run("postgresql_query.lua", { "localhost" }))
  end)
end)
