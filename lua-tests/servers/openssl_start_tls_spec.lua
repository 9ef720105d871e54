-- Upgrades with OpenSSL on the other side: its client with STARTTLS of every kind it knows, and its server.

local lfs = require("lfs")
local tcp = require("tcp.core")
local support = require("support")
local ciphers = require("support.ciphers")
local servers = require("support.servers")
local transports = require("support.transports")
local waits = require("support.waits")

local fails = support.fails
local certificate = transports.certificate

if not servers.find("openssl") then
  describe("openssl and start_tls", function()
    pending("is not installed: apt-get install openssl")
  end)
  return
end

local PATIENCE = 10
local OPTIONS = { read_timeout = PATIENCE, write_timeout = PATIENCE }
local PROTOCOLS = { "TLSv1.2", "TLSv1.3" }
local VERSIONS = { ["TLSv1.2"] = "-tls1_2 ", ["TLSv1.3"] = "-tls1_3 " }
local TRUSTING = ("-CAfile %s -verify_return_error -verify_hostname localhost -servername localhost ")
  :format(certificate("ca"))

-- 1 MiB of lines that all differ.
local lines = {}
for i = 1, 65536 do
  lines[i] = ("%015d\n"):format(i)
end
local LARGE = table.concat(lines)

-- What a server says, and what the client answers, in turn, up to the moment for TLS.
local CONVERSATIONS = {
  smtp = { "220 localhost\r\n", "EHLO .*\n", "250-localhost\r\n250 STARTTLS\r\n", "STARTTLS\r\n", "220 go\r\n" },
  lmtp = { "220 localhost\r\n", "LHLO .*\n", "250-localhost\r\n250 STARTTLS\r\n", "STARTTLS\r\n", "220 go\r\n" },
  pop3 = { "+OK\r\n", "STLS\r\n", "+OK\r\n" },
  imap = {
    "* OK hello\r\n", "%. CAPABILITY\r\n",
    "* CAPABILITY IMAP4rev1 STARTTLS\r\n. OK\r\n", "%. STARTTLS\r\n", ". OK go\r\n",
  },
  ftp = { "220 hello\r\n", "AUTH TLS\r\n", "234 go\r\n" },
  nntp = {
    "200 hello\r\n", "CAPABILITIES\r\n",
    "101 here\r\nVERSION 2\r\nSTARTTLS\r\n.\r\n", "STARTTLS\r\n", "382 go\r\n",
  },
  sieve = { '"STARTTLS"\r\nOK "hello"\r\n', "STARTTLS\r\n", 'OK "go"\r\n' },
  irc = { "", "STARTTLS\r\n", ":localhost 670 * :go\r\n" },
  xmpp = {
    "", "<stream:stream .*>",
    "<stream:stream><stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>",
    "<starttls .*/>", "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
  },
  telnet = { "\255\253\46", "\255\251\46\255\250\46\1\255\240", "\255\250\46\1\255\240" },
  ldap = { "", "0.*1%.3%.6%.1%.4%.1%.1466%.20037", "\48\12\2\1\1\120\7\10\1\0\4\0\4\0" },
  postgres = { "", "...\8\4\210\22/", "S" },
  -- A greeting of 26 bytes that offers TLS. The answer is one of 36 bytes, and TLS is right behind it.
  mysql = { "\26\0\0\0\10" .. "5.5.5\0" .. ("\7"):rep(12) .. "\0\0\8\33\2\0\0", 36, "" },
}

local function hears(conn, turn)
  if type(turn) == "number" then
    return conn:read(turn)
  end
  local said = ""
  while not said:match("^" .. turn .. "$") do
    said = said .. assert(conn:recv(), "the client left")
  end
end

--- Speaks as such a server until its client begins with TLS.
local function converse(conn, kind)
  local turns = CONVERSATIONS[kind]
  conn:write(turns[1])
  for i = 2, #turns, 2 do
    hears(conn, turns[i])
    conn:write(turns[i + 1])
  end
end

--- The server's options, with `more` of them.
local function serving(more)
  local options = { server = true, cert = certificate("server"), key = certificate("server", "key") }
  for name, value in pairs(more or {}) do
    options[name] = value
  end
  return options
end

local function fill(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

local function contents(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

--- Has openssl say `text` by this kind of STARTTLS, and `handle` speak with it in a task once it asked for TLS: gives
-- what openssl printed. With `count`, there are so many of them, one after the other.
local function client(kind, words, text, handle, count)
  local input, output = os.tmpname(), os.tmpname()
  fill(input, text)
  local listener = tcp.listen("127.0.0.1", 0, OPTIONS)
  local command = ("timeout 30 openssl s_client -starttls %s -connect 127.0.0.1:%d %s <%s >>%s 2>&1; ")
    :format(kind, listener:local_port(), words, input, output)
  local process = assert(io.popen(command:rep(count or 1), "r"))
  local conn
  local task = tcp.spawn(function()
    for i = 1, count or 1 do
      conn = listener:accept(PATIENCE)
      converse(conn, kind)
      handle(conn, i)
      conn:close()
    end
    return true
  end)
  local ok, err = task:try_join(30)
  task:cancel()
  listener:close()
  if conn then
    conn:close()
  end
  waits.see_off()
  process:read("*a")
  process:close()
  local said = contents(output)
  os.remove(input)
  os.remove(output)
  if not ok then
    io.stderr:write(said:sub(1, 2000), "\n")
    error(err, 0)
  end
  return said
end

--- Upgrades, and answers a line.
local function shout(options)
  return function(conn)
    assert.equal(conn, conn:start_tls(options or serving()))
    conn:write_line(conn:read_line():upper())
  end
end

local LASTING = "-ign_eof "

describe("openssl s_client", function()
  for kind in pairs(CONVERSATIONS) do
    for _, protocol in ipairs(PROTOCOLS) do
      it(("upgrades as %s does, and 1 MiB goes both ways: %s"):format(kind, protocol), function()
        local got
        local said = client(kind, VERSIONS[protocol] .. "-quiet " .. TRUSTING, LARGE, function(conn)
          assert.is_false(conn:is_tls())
          conn:start_tls(serving())
          assert.is_true(conn:is_tls())
          got = conn:read(#LARGE)
          conn:write("all\n", LARGE)
        end)
        assert.is_true(LARGE == got)
        assert.is_true("all\n" .. LARGE == said:sub(-#LARGE - 4), said:sub(1, 2000))
      end)
    end
  end

  for _, protocol in ipairs(PROTOCOLS) do
    for _, name in ipairs { "server", "rsa", "chain" } do
      it(("verifies the certificate of %s and speaks %s with the same cipher"):format(name, protocol), function()
        local options = serving { cert = certificate(name), key = certificate(name, "key") }
        local seen = {}
        local said = client("smtp", VERSIONS[protocol] .. LASTING .. TRUSTING, "hello\n", function(conn)
          shout(options)(conn)
          seen = { conn:protocol(), conn:cipher(), conn:server_name(), conn:resumed(), tostring(conn:peer_cert()) }
        end)
        assert.matches("\nHELLO\r\n", said)
        assert.matches("Verification: OK", said)
        assert.not_matches("errno", said)
        local cipher = said:match("New, " .. protocol:gsub("%p", "%%%0") .. ", Cipher is (%S+)")
        assert.same({ protocol, ciphers.iana(cipher), "localhost", false, "nil" }, seen)
      end)
    end

    it("sends 1 MiB and its end: " .. protocol, function()
      local got
      client("pop3", VERSIONS[protocol] .. "-quiet -no_ign_eof " .. TRUSTING, LARGE, function(conn)
        conn:start_tls(serving())
        got = conn:read_str()
      end)
      assert.is_true(LARGE == got, #got)
    end)

    it("upgrades by no other version than the one that is allowed: " .. protocol, function()
      local other = protocol == "TLSv1.2" and "-tls1_3 " or "-tls1_2 "
      local err
      local said = client("smtp", other .. LASTING .. TRUSTING, "hello\n", function(conn)
        err = fails("tls", conn:try_start_tls(serving { protocols = { protocol } }))
        assert.is_true(conn:is_closed())
      end)
      assert.equal("start_tls", err.op)
      assert.equal("handshake", err.stage)
      assert.matches("alert protocol version", said)
    end)

    it("trusts nobody, and says why: " .. protocol, function()
      local err
      local said = client("imap", VERSIONS[protocol] .. "-verify_return_error -CAfile " .. certificate("stranger-ca"),
        "hello\n", function(conn)
          local options = serving()
          -- TLS 1.3 has the client's word in the handshake, too.
          err = fails("tls", conn:try_start_tls(options))
          assert.is_true(conn:is_closed())
          fails("closed", conn:try_read_line())
          fails("closed", conn:try_write("x"))
          fails("closed", conn:try_start_tls(options))
        end)
      assert.equal("unknown_ca", err.alert)
      assert.equal("start_tls", err.op)
      assert.equal("handshake", err.stage)
      assert.matches("verify error", said)
    end)

    it("is known by its certificate, where one is asked for: " .. protocol, function()
      for _, auth in ipairs { "optional", "required" } do
        local options = serving { client_ca = certificate("ca"), client_auth = auth }
        local subject
        local words = ("-cert %s -key %s "):format(certificate("client"), certificate("client", "key"))
        local said = client("postgres", VERSIONS[protocol] .. LASTING .. TRUSTING .. words, "hello\n", function(conn)
          shout(options)(conn)
          subject = conn:peer_cert().subject
        end)
        assert.equal("CN=client", subject)
        assert.matches("HELLO", said)
      end
    end)

    it("has no certificate, which is well where it is optional only: " .. protocol, function()
      local ca, err = certificate("ca"), nil
      local words = VERSIONS[protocol] .. LASTING .. TRUSTING
      local optional = shout(serving { client_ca = ca, client_auth = "optional" })
      assert.matches("HELLO", client("postgres", words, "hello\n", optional))
      local said = client("postgres", words, "hello\n", function(conn)
        err = select(2, conn:try_start_tls(serving { client_ca = ca, client_auth = "required" }))
        assert.is_true(conn:is_closed())
      end)
      assert.is_true(tcp.is_error(err), tostring(err))
      assert.equal("start_tls", err.op)
      assert.not_matches("HELLO", said)
      assert.matches("SSL alert number %d+", said)
    end)

    it("is refused with a certificate that ended or of another authority: " .. protocol, function()
      local options = serving { client_ca = certificate("ca"), client_auth = "required" }
      for name, alert in pairs { expired = "certificate expired", stranger = "unknown ca" } do
        local words = ("-cert %s -key %s "):format(certificate(name), certificate(name, "key"))
        local err
        local said = client("postgres", VERSIONS[protocol] .. LASTING .. TRUSTING .. words, "hello\n", function(conn)
          err = fails("certificate", conn:try_start_tls(options))
          assert.is_true(conn:is_closed())
        end)
        assert.equal("handshake", err.stage)
        assert.matches("alert " .. alert, said)
      end
    end)

    it("resumes the session of the upgrade before: " .. protocol, function()
      local path = os.tmpname()
      local options = serving()
      local words = VERSIONS[protocol] .. LASTING .. TRUSTING
      local resumed = {}
      local function handle(conn)
        shout(options)(conn)
        resumed[#resumed + 1] = conn:resumed()
      end
      local said = client("smtp", words .. "-sess_out " .. path, "hello\n", handle)
        .. client("smtp", words .. "-sess_in " .. path, "hello\n", handle)
        .. client("smtp", words, "hello\n", handle)
      os.remove(path)
      local kinds = {}
      for kind in said:gmatch("\n(%u%l+), " .. protocol:gsub("%p", "%%%0") .. ", Cipher is") do
        kinds[#kinds + 1] = kind
      end
      assert.same({ "New", "Reused", "New" }, kinds)
      assert.same({ false, true, false }, resumed)
    end)
  end

  it("is shown the certificate of the name that it asks for", function()
    local names = {}
    local options = serving {
      sni = { ["other.example"] = { cert = certificate("other-name"), key = certificate("other-name", "key") } },
    }
    for _, name in ipairs { "localhost", "other.example" } do
      local words = ("%s -servername %s -verify_hostname %s -CAfile %s"):format(LASTING, name, name, certificate("ca"))
      local said = client("imap", words, "hello\n", function(conn)
        shout(options)(conn)
        names[#names + 1] = conn:server_name()
      end)
      assert.matches("Verified peername: " .. name, said)
    end
    assert.same({ "localhost", "other.example" }, names)
  end)

  it("agrees on a protocol with a server that knows one of them", function()
    local chosen
    local said = client("imap", "-alpn smtp,imap " .. LASTING .. TRUSTING, "hello\n", function(conn)
      shout(serving { alpn = { "imap", "pop3" } })(conn)
      chosen = conn:alpn()
    end)
    assert.equal("imap", chosen)
    assert.matches("ALPN protocol: imap", said)
  end)

  for _, kind in ipairs { "mysql", "imap" } do
    it("may have been heard before the upgrade: " .. kind, function()
      local said = client(kind, LASTING .. TRUSTING, "hello\n", function(conn)
        assert.equal("\22\3", conn:peek(2))
        assert.is_true(conn:buffered() > 2)
        shout()(conn)
      end)
      assert.matches("HELLO", said)
    end)
  end

  it("is one of eight that are upgraded at once, each in a task", function()
    local output = os.tmpname()
    local listener = tcp.listen("127.0.0.1", 0, OPTIONS)
    local running = {}
    for i = 1, 8 do
      running[i] = tcp.spawn(function()
        local conn = listener:accept(PATIENCE)
        converse(conn, "smtp")
        shout()(conn)
        conn:close()
      end)
    end
    local command = ("echo hello | timeout 30 openssl s_client -starttls smtp -connect 127.0.0.1:%d %s >>%s 2>&1 & ")
      :format(listener:local_port(), LASTING .. TRUSTING, output)
    local process = assert(io.popen(command:rep(8) .. "wait", "r"))
    for _, task in ipairs(running) do
      task:join(30)
    end
    listener:close()
    waits.see_off()
    process:read("*a")
    process:close()
    local said = contents(output)
    os.remove(output)
    assert.equal(8, select(2, said:gsub("HELLO", "")))
  end)
end)

describe("openssl s_server", function()
  local server

  local function stop()
    if server then
      server:stop()
      server = nil
    end
  end

  --- A test with such a server, which ends before descriptors are counted.
  local function test(name, words, body)
    it(name, function()
      server = servers.start("openssl", function(it)
        local command = { "s_server", "-accept", it.host .. ":" .. it.port }
        for word in words:gmatch("%S+") do
          command[#command + 1] = word:gsub("^=", lfs.currentdir() .. "/build/certificates/")
        end
        return command
      end)
      body()
      stop()
    end)
  end

  local function upgraded(tls)
    local conn = tcp.connect(server.host, server.port, OPTIONS)
    assert.equal(conn, conn:start_tls(tls or transports.CLIENT))
    return conn
  end

  --- What it says of a connection, which it ends.
  local function page(conn)
    conn:write("GET / HTTP/1.0\r\n\r\n")
    local text = conn:read_str()
    conn:close()
    return text
  end

  after_each(stop)

  local PAIR = { server = "-cert =server.pem -key =server.key ", rsa = "-cert =rsa.pem -key =rsa.key " }
  local CIPHERS = {
    { "TLSv1.2", "server", "ECDHE-ECDSA-AES128-GCM-SHA256" },
    { "TLSv1.2", "server", "ECDHE-ECDSA-CHACHA20-POLY1305" },
    { "TLSv1.2", "rsa", "ECDHE-RSA-AES256-GCM-SHA384" },
    { "TLSv1.3", "server", "TLS_AES_128_GCM_SHA256" },
    { "TLSv1.3", "server", "TLS_AES_256_GCM_SHA384" },
    { "TLSv1.3", "rsa", "TLS_CHACHA20_POLY1305_SHA256" },
  }

  for _, case in ipairs(CIPHERS) do
    local protocol, name, cipher = case[1], case[2], case[3]
    local option = protocol == "TLSv1.2" and "-cipher " or "-ciphersuites "
    local words = PAIR[name] .. VERSIONS[protocol] .. option .. cipher .. " -www"
    test("tells the same of an upgraded connection, and resumes: " .. cipher, words, function()
      -- No other server's sessions have been met with these.
      local tls = { ca_bundle = contents(certificate("ca")) .. "# " .. cipher .. "\n" }
      for i, kind in ipairs { "New", "Reused", "Reused" } do
        local conn = upgraded(tls)
        assert.same({ protocol, ciphers.iana(cipher), i > 1 }, { conn:protocol(), conn:cipher(), conn:resumed() })
        assert.equal("CN=localhost", conn:peer_cert().subject)
        assert.matches("\n" .. kind .. ", " .. protocol:gsub("%p", "%%%0") .. ", Cipher is ", page(conn))
        assert.is_nil(conn:protocol())
      end
    end)
  end

  for _, protocol in ipairs(PROTOCOLS) do
    local words = PAIR.server .. VERSIONS[protocol]

    test("turns lines around, one for each: " .. protocol, words .. "-rev", function()
      local conn = upgraded()
      for i = 1, 100 do
        local line = ("line %d"):format(i)
        conn:write_line(line)
        assert.equal(line:reverse(), conn:read_line())
      end
      conn:close()
    end)

    test("agrees on a protocol, or on none: " .. protocol, words .. "-www -alpn imap,pop3", function()
      local tls = { ca_bundle = certificate("ca"), alpn = { "smtp", "pop3" } }
      local conn = upgraded(tls)
      assert.equal("pop3", conn:alpn())
      assert.matches("^HTTP/1.0 200 ok", page(conn))
      conn = upgraded()
      assert.is_nil(conn:alpn())
      conn:close()
      tls.alpn = { "smtp" }
      local err = support.raises("tls", upgraded, tls)
      assert.equal("no_application_protocol", err.alert)
    end)

    local asking = words .. "-www -Verify 1 -verify_return_error -CAfile =ca.pem"
    test("knows a client by its certificate: " .. protocol, asking, function()
      local conn = upgraded {
        ca_bundle = certificate("ca"), client_cert = certificate("client"), client_key = certificate("client", "key"),
      }
      assert.matches("Subject: CN ?= ?client", page(conn))
    end)

    test("refuses a client that has none: " .. protocol, asking, function()
      local conn = tcp.connect(server.host, server.port, OPTIONS)
      local value, err = conn:try_start_tls(transports.CLIENT)
      if protocol == "TLSv1.3" then
        -- The client was done before the server looked.
        assert.equal(conn, value)
        value, err = conn:try_read_line()
      end
      fails("tls", value, err)
      assert.equal(protocol == "TLSv1.3" and "certificate_required" or "handshake_failure", err.alert)
      conn:close()
    end)
  end

  test("is told that TLS 1.1 will not do", PAIR.rsa .. "-www -tls1_1 -cipher ALL:@SECLEVEL=0", function()
    local err = support.raises("tls", upgraded)
    assert.equal("protocol_version", err.alert)
    assert.equal("start_tls", err.op)
    assert.equal("handshake", err.stage)
  end)
end)
