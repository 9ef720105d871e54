local peers = require("support.peers")
local support = require("support")
local tcp = require("tcp.core")
local certificates = require("support.certificates")
local transports = require("support.transports")

local fails, certificate = support.fails, transports.certificate
local CA = transports.certificate("ca")
local contents, file, serve = certificates.contents, certificates.file, certificates.serve
local connect, accepts, refuses = certificates.connect, certificates.accepts, certificates.refuses
local trusting, openssl, issue = certificates.trusting, certificates.openssl, certificates.issue
local refuses_files, refuses_issued = certificates.refuses_files, certificates.refuses_issued
local COVERS, UNKNOWN = certificates.COVERS, certificates.UNKNOWN

after_each(certificates.remove_files)

describe("a server's certificate", function()
  it("is refused by connect_tls as by connect, and raised", function()
    local peer = peers.start({ "--tls", "stranger" }, "accept", "again")
    local options = { tls = trusting(CA) }
    local err = fails("certificate", tcp.try_connect_tls("127.0.0.1", peer.port, options))
    assert.equal("connect_tls", err.op)
    assert.equal(("connect_tls 127.0.0.1:%d: %s"):format(peer.port, UNKNOWN:format("Strange Authority")), tostring(err))
    local ok, raised = pcall(tcp.connect_tls, "127.0.0.1", peer.port, options)
    assert.is_false(ok)
    assert.is_true(tcp.is_error(raised, "certificate"))
    assert.equal("handshake", raised.stage)
  end)

  it("is refused in a task, and leaves the other connects alone", function()
    local bad, good = serve("expired"), serve("server")
    local tasks = {}
    for i = 1, 10 do
      tasks[i] = tcp.spawn(function()
        local conn, err = connect(i % 2 == 0 and good or bad, trusting(CA))
        local seen = conn and conn:read_line() or err.kind
        if conn then
          conn:close()
        end
        return seen
      end)
    end
    for i, task in ipairs(tasks) do
      assert.equal(i % 2 == 0 and "hello" or "certificate", task:join(10))
    end
  end)

  it("that was refused is told so by an alert", function()
    for name, alert in pairs {
      expired = "certificate_expired", stranger = "unknown_ca", ["other-name"] = "bad_certificate",
    } do
      local tls = { cert = certificate(name), key = certificate(name, "key") }
      local listener = tcp.listen("127.0.0.1", 0, { tls = tls })
      local task = tcp.spawn(function()
        local conn = listener:accept(10)
        local _, err = conn:try_handshake({ timeout = 10 })
        conn:close()
        return err
      end)
      refuses(nil, trusting(CA), nil, { port = listener:local_port() })
      local err = task:join(10)
      listener:close()
      -- What is left of the connection goes, too.
      tcp.run()
      assert.equal("tls", err.kind)
      assert.equal("handshake", err.stage)
      assert.equal(alert, err.alert)
      assert.equal("the client broke off with TLS alert " .. err.alert, err.message)
    end
  end)

  it("is accepted for every name and address that it covers", function()
    for _, name in ipairs { "server", "rsa", "chain" } do
      accepts(name, trusting(CA), "localhost")
      accepts(name, trusting(CA), "LocalHost")
      accepts(name, trusting(CA), "127.0.0.1")
      for _, sni in ipairs { "localhost", "localhost.", "127.0.0.1", "::1" } do
        accepts(name, trusting(CA, sni))
      end
    end
  end)

  it("is accepted for ::1, with and without brackets", function()
    if not support.succeeds("test -s /proc/net/if_inet6") then
      return pending("there is no IPv6 here")
    end
    local peer = peers.start({ "--tls", "server" }, "--ipv6", "accept", { "send", "hello\n" }, "close", "again")
    accepts(nil, trusting(CA), "::1", peer)
    accepts(nil, trusting(CA), "[::1]", peer)
    assert.equal("the certificate is not for ::2, but for localhost, 127.0.0.1, ::1",
      refuses(nil, trusting(CA, "::2"), "::1", peer))
  end)

  it("is compared with sni in place of the host", function()
    for _, sni in ipairs { "other.example", "OTHER.example.", "a.wild.example", "192.0.2.7" } do
      accepts("other-name", trusting(CA, sni))
    end
    for _, sni in ipairs { "a.b.wild.example", "wild.example", "xother.example", "example", "192.0.2.8",
      "192.0.2.70" } do
      assert.equal(("the certificate is not for %s, but for %s"):format(sni, COVERS),
        refuses("other-name", trusting(CA, sni)))
    end
    assert.equal("the certificate is not for 127.0.0.2, but for localhost, 127.0.0.1, ::1",
      refuses("server", trusting(CA, "127.0.0.2")))
  end)

  it("is refused for a host that is an address, and that it covers by name only", function()
    assert.equal("the certificate is not for 127.0.0.1, but for " .. COVERS,
      refuses("other-name", trusting(CA), "127.0.0.1"))
  end)

  it("is described in one line of printable characters, whatever it says, and not at length", function()
    -- The issuer's name is the server's word: it must not write into terminals and logs.
    local key = openssl("ecparam -name prime256v1 -genkey -noout", "evil.key")
    local name = '/CN="$(printf "good\\n\\033[31mFAKE LINE OF A LOG")"'
    local authority = openssl("req -x509 -new -utf8 -days 10 -key " .. key .. " -subj " .. name, "evil.pem")
    local message = refuses_issued(authority, key)
    assert.matches("^the certificate's issuer is not trusted here: CN=good", message)
    assert.is_nil(message:find("%c"), ("%q"):format(message))
    authority = openssl("req -x509 -new -days 10 -key " .. key .. " -subj " .. ("/OU=" .. ("x"):rep(60)):rep(300),
      "evil.pem")
    message = refuses_issued(authority, key)
    assert.is_true(#message < 1000, #message .. " bytes")
    local names = {}
    for i = 1, 1000 do
      names[i] = ("DNS:n%d.example"):format(i)
    end
    local cert
    cert, key = issue(CA, certificate("ca", "key"), "subjectAltName=" .. table.concat(names, ",") .. "\n")
    message = refuses_files(cert, key, trusting(CA))
    assert.matches("^the certificate is not for localhost, but for n1%.example, n2%.example, ", message)
    assert.is_true(#message < 1000, #message .. " bytes")
  end)

  it("is compared with sni over a unix socket", function()
    local path = file("socket")
    peers.start({ "--tls", "server" }, { "--unix", path }, "accept", { "send", "hello\n" }, "close", "again")
    local host = "unix:" .. path
    local conn = tcp.connect(host, nil, { tls = trusting(CA, "localhost") })
    assert.equal("hello", conn:read_line())
    conn:close()
    local err = fails("certificate", tcp.try_connect(host, nil, { tls = trusting(CA, "other.example") }))
    assert.equal("the certificate is not for other.example, but for localhost, 127.0.0.1, ::1", err.message)
    assert.equal(host, err.peer)
  end)

  it("may be any if verify is false, but TLS it has to be", function()
    accepts("stranger", { verify = false, ca_bundle = CA, sni = "elsewhere.example" })
    local peer = peers.start("accept", { "send", "220 mail.example\r\n" }, "stall")
    local err = fails("tls", connect(peer, { verify = false }))
    assert.equal("handshake", err.stage)
  end)

  it("that was taken without a look is looked at by the next connect", function()
    local peer = serve("server")
    accepts(nil, { verify = false, ca_bundle = certificate("stranger-ca") }, nil, peer)
    refuses(nil, trusting(certificate("stranger-ca")), nil, peer)
    accepts(nil, trusting(CA), nil, peer)
    refuses(nil, trusting(CA, "elsewhere.example"), nil, peer)
    refuses(nil, trusting("mozilla"), nil, peer)
  end)

  it("of a stranger's authority that it brings along is not called self-signed", function()
    -- What the operator has to trust is the authority, not this certificate.
    local chain = contents(certificate("stranger")) .. contents(certificate("stranger-ca"))
    local message = refuses_files(chain, certificate("stranger", "key"), trusting(CA))
    assert.equal(UNKNOWN:format("Strange Authority"), message)
  end)
end)
