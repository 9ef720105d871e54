-- Mail: TLS begins in the middle of a connection, by STARTTLS (RFC 3207). The server is aiosmtpd.

local tcp = require("tcp.core")
local certificates = require("support.certificates")
local examples = require("support.examples")
local peers = require("support.peers")
local smtp = require("support.smtp")
local support = require("support")
local transports = require("support.transports")
local waits = require("support.waits")

if not smtp.python() then
  describe("aiosmtpd", function()
    pending("is not installed: apt-get install python3-aiosmtpd")
  end)
  return
end

local fails, certificate, contents = support.fails, transports.certificate, certificates.contents
local ask, read_answer = smtp.ask, smtp.read_answer

local AUTHORITY = certificate("ca")
local PATIENCE = 30
local OPTIONS = { read_timeout = PATIENCE, write_timeout = PATIENCE }
local ANN, BOB, EVE = "ann@example.com", "bob@example.com", "eve@example.com"
local ENVELOPE = ANN .. " " .. BOB .. "\n"

-- 1 MiB, most of which differs, with dots wherever they may be taken for the end.
local lines = { "Subject: dots", "", ".", "..", ".\0", "...x", "x.", " ." }
for i = 1, 65536 do
  lines[#lines + 1] = ("%s%013d"):format(i % 7 == 0 and "." or "", i)
end
local LARGE = table.concat(lines, "\r\n") .. "\r\n.\r\n\r\n"

local function test(name, body)
  it(name, waits.cleanly(body))
end

--- A connection in the clear that was greeted.
local function greet(server, host)
  local conn = waits.opens(tcp.connect(host or server.host, server.port, OPTIONS))
  assert.equal(220, (read_answer(conn)))
  assert.equal(250, (ask(conn, "EHLO client.example")))
  return conn
end

--- One on which the server waits for TLS.
local function request(server, host)
  local conn = greet(server, host)
  assert.equal(220, (ask(conn, "STARTTLS")))
  return conn
end

local function upgrade(server, tls, host)
  local conn = request(server, host)
  assert.equal(conn, conn:start_tls(tls))
  assert.equal(250, (ask(conn, "EHLO client.example")))
  return conn
end

--- Options whose sessions no other test has met.
local function fresh(protocol)
  return { ca_bundle = contents(AUTHORITY) .. "\n# " .. tcp.now() .. "\n", protocols = { protocol } }
end

local function kept(server, name)
  return contents(server.dir .. "/" .. name)
end

describe("aiosmtpd", function()
  local server

  setup(function()
    server = smtp.start("server")
  end)

  teardown(function()
    server:stop()
  end)

  after_each(waits.clean)

  for _, protocol in ipairs { "TLSv1.2", "TLSv1.3" } do
    test("is spoken to in the clear, and then by " .. protocol, function()
      local conn = greet(server)
      local _, _, offers = ask(conn, "EHLO client.example")
      assert.is_true(offers["STARTTLS"])
      assert.is_nil(offers["AUTH LOGIN PLAIN"])
      for _, name in ipairs { "protocol", "cipher", "peer_cert", "alpn", "server_name", "resumed" } do
        assert.is_nil(conn[name](conn), name)
      end
      assert.is_false(conn:is_tls())

      assert.equal(220, (ask(conn, "STARTTLS")))
      assert.equal(0, conn:buffered())
      assert.equal(conn, conn:start_tls({ ca_bundle = AUTHORITY, protocols = { protocol } }))
      assert.is_true(conn:is_tls())
      assert.equal(PATIENCE, conn:read_timeout())

      _, _, offers = ask(conn, "EHLO client.example")
      assert.is_nil(offers["STARTTLS"])
      assert.is_true(offers["AUTH LOGIN PLAIN"])
      assert.equal(221, (ask(conn, "QUIT")))
      assert.is_nil(conn:recv())
    end)

    test("tells of the same TLS as the connection does, and resumes the one before: " .. protocol, function()
      local tls = fresh(protocol)
      for i = 1, 4 do
        local conn = upgrade(server, tls)
        local version, cipher, reused = select(2, ask(conn, "XTLS")):match("^(%S+) (%S+) (%S+)$")
        assert.equal(protocol, version)
        assert.equal(protocol, conn:protocol())
        assert.equal(conn:cipher(), protocol == "TLSv1.3" and cipher
          or "TLS_" .. cipher:gsub("%-", "_"):gsub("ECDSA_AES(%d+)", "ECDSA_WITH_AES_%1"))
        assert.equal(i > 1, conn:resumed())
        assert.equal(i > 1 and "True" or "False", reused)
        assert.equal("CN=localhost", conn:peer_cert().subject)
        conn:close()
        assert.is_nil(conn:resumed())
        assert.is_nil(conn:protocol())
      end
    end)

    test("takes a mail of 1 MiB as it is: " .. protocol, function()
      local conn = upgrade(server, fresh(protocol))
      for _ = 1, 3 do
        assert.is_true(ENVELOPE .. LARGE == kept(server, smtp.send(conn, LARGE)))
      end
    end)
  end

  test("takes mail line by line, and in pieces", function()
    local conn = upgrade(server, transports.CLIENT)
    local stuffed = smtp.stuffed(LARGE)
    local ways = {
      function()
        for line in stuffed:gmatch("([^\n]*)\r\n") do
          conn:write_line(line)
        end
      end,
      function()
        local pieces, first = {}, 1
        for i = 1, 1000 do
          pieces[i] = stuffed:sub(first, first + i - 1)
          first = first + i
        end
        conn:write(pieces)
        conn:write(stuffed:sub(first))
      end,
    }
    for _, write in ipairs(ways) do
      assert.equal(250, (ask(conn, "MAIL FROM:<" .. ANN .. ">")))
      assert.equal(250, (ask(conn, "RCPT TO:<" .. BOB .. ">")))
      assert.equal(354, (ask(conn, "DATA")))
      write()
      local code, text = read_answer(conn)
      assert.equal(250, code)
      assert.is_true(ENVELOPE .. LARGE == kept(server, text:match("^kept as (%S+)$")))
    end
  end)

  test("shows its certificate as OpenSSL does", function()
    local function openssl(words)
      local process = io.popen(("openssl x509 -in %s -noout %s"):format(certificate("server"), words), "r")
      local value = process:read("*l"):match("=(.*)$")
      process:close()
      return value
    end
    local function seconds(date)
      local process = io.popen(("date -d '%s' +%%s"):format(date), "r")
      local value = process:read("*l")
      process:close()
      return tonumber(value)
    end
    local cert = upgrade(server, transports.CLIENT):peer_cert()
    assert.equal(openssl("-serial"):lower(), cert.serial)
    assert.equal(openssl("-fingerprint -sha256"):gsub(":", ""):lower(), cert.fingerprint)
    assert.equal(openssl("-subject -nameopt RFC2253"), cert.subject)
    assert.equal(openssl("-issuer -nameopt RFC2253"), cert.issuer)
    assert.equal(seconds(openssl("-startdate")), cert.valid_from)
    assert.equal(seconds(openssl("-enddate")), cert.valid_until)
    assert.same({ "localhost", "127.0.0.1", "::1" }, cert.sans)
    local path = certificates.openssl("x509 -outform DER -in " .. certificate("server"), "der")
    assert.is_true(contents(path) == cert.der)
    certificates.remove_files()
  end)

  test("lets nobody log in before it speaks TLS", function()
    -- ann and secret é: a NUL stands before each.
    local login = "AUTH PLAIN AGFubgBzZWNyZXQgw6k="
    local conn = greet(server)
    assert.equal(538, (ask(conn, login)))
    assert.equal(220, (ask(conn, "STARTTLS")))
    conn:start_tls(transports.CLIENT)
    assert.equal(250, (ask(conn, "EHLO client.example")))
    assert.equal(535, (ask(conn, "AUTH PLAIN AGFubgBzZWNyZXQ=")))
    assert.equal(235, (ask(conn, login)))
  end)

  test("is verified by the name or the address that was connected to", function()
    for _, host in ipairs { "localhost", "127.0.0.1" } do
      local conn = upgrade(server, transports.CLIENT, host)
      assert.equal(host, conn:host())
      assert.is_true(ENVELOPE .. "hello\r\n" == kept(server, smtp.send(conn, "hello\r\n")))
    end
  end)

  local UNTRUSTED = {
    ["under another name"] = { ca_bundle = AUTHORITY, sni = "mail.example" },
    ["under another address"] = { ca_bundle = AUTHORITY, sni = "127.0.0.2" },
    ["without its authority"] = { ca_bundle = certificate("stranger-ca") },
  }
  for case, tls in pairs(UNTRUSTED) do
    test("is not believed, and the connection is closed: " .. case, function()
      local conn = request(server, "localhost")
      local err = fails("certificate", conn:try_start_tls(tls))
      assert.equal("start_tls", err.op)
      assert.equal("handshake", err.stage)
      assert.equal("localhost:" .. server.port, err.peer)
      if tls.sni then
        assert.matches(tls.sni, err.message, 1, true)
        assert.matches("localhost", err.message, 1, true)
      end
      assert.is_true(conn:is_closed())
      assert.is_nil(conn:peer_cert())
      fails("closed", conn:try_write_line("MAIL FROM:<" .. ANN .. ">"))
      fails("closed", conn:try_read_line())
    end)
  end

  test("is believed by the system's authorities only, if none are named", function()
    local conn = request(server)
    fails("certificate", conn:try_start_tls())
    assert.is_true(conn:is_closed())
  end)

  test("is believed without a look by who asks for that", function()
    local conn = upgrade(server, { verify = false, sni = "mail.example" })
    assert.equal("CN=localhost", conn:peer_cert().subject)
    assert.is_true(ENVELOPE .. "hello\r\n" == kept(server, smtp.send(conn, "hello\r\n")))
  end)

  -- What was not read before TLS may have been slipped in by anybody on the way.
  test("has said nothing that is still unread when TLS begins, or it fails", function()
    local conn = greet(server)
    conn:write("NOOP\r\nSTARTTLS\r\n")
    assert.equal(250, (read_answer(conn)))
    assert.equal("220", conn:peek(3))
    fails("tls", conn:try_start_tls({ ca_bundle = AUTHORITY }))
    assert.is_true(conn:is_closed())
    assert.equal(0, conn:buffered())
  end)

  test("takes mail from twenty tasks at once", function()
    local tasks = {}
    for i = 1, 20 do
      tasks[i] = tcp.spawn(function()
        local conn = upgrade(server, transports.CLIENT)
        local name = smtp.send(conn, ("mail %d\r\n"):format(i))
        conn:close()
        return name
      end)
    end
    for i, task in ipairs(tasks) do
      assert.equal(("%smail %d\r\n"):format(ENVELOPE, i), kept(server, (task:join(PATIENCE))))
    end
  end)
end)

describe("aiosmtpd without TLS", function()
  local server

  setup(function()
    server = smtp.start()
  end)

  teardown(function()
    server:stop()
  end)

  after_each(waits.clean)

  test("refuses STARTTLS, and the connection is as good as before", function()
    local conn = greet(server)
    local _, _, offers = ask(conn, "EHLO client.example")
    assert.is_nil(offers["STARTTLS"])
    assert.equal(454, (ask(conn, "STARTTLS")))
    assert.is_true(ENVELOPE .. LARGE == kept(server, smtp.send(conn, LARGE)))
    assert.equal("none", select(2, ask(conn, "XTLS")))
    assert.is_false(conn:is_tls())
    assert.equal(221, (ask(conn, "QUIT")))
  end)

  test("is sent nothing by the example", function()
    assert.equal("not sent: STARTTLS: the server says 454 TLS not available\nexit 1\n",
      examples.run("smtp_send.lua", { "localhost", server.port, ANN, BOB }, "echo hello |"))
  end)
end)

describe("the example smtp_send", function()
  local server

  --- Sends a mail of these bytes, with this environment.
  local function run(mail, environment, ...)
    local words = { "localhost", server.port, ... }
    local path = certificates.file("mail", mail)
    local output = examples.run("smtp_send.lua", words, ("cat %s | env SMTP_CA_BUNDLE=%s %s"):format(path, AUTHORITY,
      environment or ""))
    certificates.remove_files()
    return output
  end

  setup(function()
    server = smtp.start("server")
  end)

  teardown(function()
    server:stop()
  end)

  it("sends a mail to all, whatever stands in it", function()
    local MAILS = {
      ["Subject: hello\n\nhello\n"] = "Subject: hello\r\n\r\nhello\r\n",
      ["Subject: hello\r\n\r\nhello\r\n"] = "Subject: hello\r\n\r\nhello\r\n",
      [".\n..\n.x\n\n.\nno newline"] = ".\r\n..\r\n.x\r\n\r\n.\r\nno newline\r\n",
      ["\n.\r\nMAIL FROM:<x>\r\r\n.\r.\n"] = "\r\n.\r\nMAIL FROM:<x>\r\n..\r\n",
      [""] = "\r\n",
      [LARGE] = LARGE,
    }
    for mail, taken in pairs(MAILS) do
      local name = run(mail, nil, ANN, BOB, EVE):match("^sent: 250 kept as (%S+)\n$")
      assert.is_true(("%s %s %s\n"):format(ANN, BOB, EVE) .. taken == kept(server, name), taken:sub(1, 99))
    end
  end)

  it("logs in", function()
    assert.matches("^sent: ", run("hello\n", "SMTP_USER=ann SMTP_PASSWORD='secret é'", ANN, BOB))
    for _, password in ipairs { "", "s", "se", "sec" } do
      assert.equal("not sent: AUTH: the server says 535 5.7.8 Authentication credentials invalid\nexit 1\n",
        run("hello\n", "SMTP_USER=ann SMTP_PASSWORD=" .. password, ANN, BOB))
    end
  end)

  it("says what the server says", function()
    assert.matches("^not sent: RCPT: the server says 5%d%d [^\n]*\nexit 1\n$", run("hello\n", nil, ANN, "@"))
    assert.matches("not sent: .*a command is one line\nexit 1\n$", run("hello\n", nil, ANN, "b@c>\r\nRSET"))
  end)

  it("says nothing to a server that it does not know", function()
    local output = run("hello\n", "SMTP_CA_BUNDLE=" .. certificate("stranger-ca"), ANN, BOB)
    assert.matches("^not sent: [^\n]*start_tls localhost:%d+: the certificate's issuer is not trusted here", output)
  end)

  it("asks for STARTTLS though it is not offered, and says nothing without it", function()
    local dialogue = "^EHLO %[127%.0%.0%.1%]\r\nSTARTTLS\r\n$"
    local peer = peers.start("accept", { "send", "220 hello\r\n250 mail.example\r\n500 what?\r\n" }, "drain")
    assert.equal("not sent: STARTTLS: the server says 500 what?\nexit 1\n",
      examples.run("smtp_send.lua", { "127.0.0.1", peer.port, ANN, BOB }, "echo hello |"))
    assert.matches(dialogue, peer:got())
  end)

  it("tells how to use it", function()
    assert.equal("usage: lua smtp_send.lua HOST PORT FROM TO... <MAIL\nexit 2\n",
      examples.run("smtp_send.lua", { "localhost" }))
  end)
end)
