-- What a connection says of its TLS, and when it says nothing.

local handshakes = require("support.handshakes")
local peers = require("support.peers")
local servers = require("support.servers")
local sessions = require("support.sessions")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local certificate = transports.certificate
local METHODS = { "cipher", "protocol", "alpn", "server_name", "resumed", "peer_cert" }

local function says_nothing(conn)
  for _, method in ipairs(METHODS) do
    assert.equal(1, select("#", conn[method](conn)), method)
    assert.is_nil(conn[method](conn), method)
  end
end

local function openssl(words)
  local process = assert(io.popen("openssl " .. words .. " 2>/dev/null", "r"))
  local output = process:read("*a")
  process:close()
  return output
end

describe("a connection in the clear", function()
  it("has nothing to say of TLS, open or closed", function()
    local near, far = transports.plain.pair()
    for _, conn in ipairs { near, far } do
      says_nothing(conn)
      conn:close()
      says_nothing(conn)
    end
    tcp.run()
  end)

  it("is asked as a method, and the value is a connection", function()
    for _, method in ipairs(METHODS) do
      local near, far = transports.plain.pair()
      support.misuse(("bad self to '%s' (Connection expected, got string; use ':')"):format(method), near[method], "x")
      near:close()
      far:close()
    end
    tcp.run()
  end)
end)

describe("a connection over TLS", function()
  it("has nothing to say before its handshake, while it is under way, and once it has failed", function()
    local conn, client, listener = transports.plain_client { handshake_timeout = 10 }
    says_nothing(conn)
    assert.is_true(conn:is_tls())
    support.fails("timeout", conn:try_handshake({ timeout = 0.01 }))
    says_nothing(conn)
    client:write("GET / HTTP/1.0\r\n\r\n")
    support.fails("tls", conn:try_read_line({ timeout = 10 }))
    says_nothing(conn)
    transports.close_all(conn, client, listener)
    says_nothing(conn)
  end)

  it("has nothing to say while the last message of the client is missing, but for the name perhaps", function()
    local listener = handshakes.opens(sessions.listen { alpn = { "one" } })
    local raw = handshakes.opens(tcp.listen("127.0.0.1", 0))
    local connecting = tcp.spawn(function()
      local tls = sessions.fresh { sni = "localhost", alpn = { "one" } }
      return handshakes.opens(tcp.connect("127.0.0.1", raw:local_port(), { tls = tls }))
    end)
    local near = handshakes.opens(raw:accept(10))
    local far = handshakes.opens(tcp.connect("127.0.0.1", listener:local_port()))
    local conn = handshakes.opens(listener:accept(10))
    far:write(near:recv())
    support.fails("timeout", conn:try_handshake({ timeout = 0.05 }))
    for _, method in ipairs { "cipher", "protocol", "alpn", "resumed", "peer_cert" } do
      assert.is_nil(conn[method](conn), method)
    end
    near:write(far:recv())
    far:write(near:recv())
    conn:handshake({ timeout = 10 })
    assert.equal("localhost", conn:server_name())
    assert.equal("one", conn:alpn())
    local client = connecting:join(10)
    assert.equal("one", client:alpn())
    near:close()
    far:close()
    handshakes.clean()
    tcp.run()
  end)

  for _, protocol in ipairs(sessions.VERSIONS) do
    it("says the same at both ends, as long as it is open: " .. protocol, function()
      local listener = sessions.listen { alpn = { "one" }, client_ca = certificate("ca"), client_auth = "required" }
      local tls = sessions.fresh { alpn = { "one" }, sni = "localhost", protocols = { protocol },
        client_cert = certificate("client"), client_key = certificate("client", "key") }
      local far
      local serving = tcp.spawn(function()
        far = listener:accept(10)
        far:handshake()
      end)
      local near = tcp.connect("127.0.0.1", listener:local_port(), { tls = tls })
      serving:join(10)
      far:write("x")
      near:read(1)
      local near_facts, far_facts = sessions.facts(near), sessions.facts(far)
      near_facts.peer, far_facts.peer = nil, nil
      assert.same(near_facts, far_facts)
      assert.equal(protocol, near:protocol())
      assert.is_false(near:resumed())
      assert.equal("CN=localhost", near:peer_cert().subject)
      assert.equal("CN=client", far:peer_cert().subject)
      -- Half closed is open.
      near:shutdown("send")
      assert.is_nil(far:recv())
      assert.equal(protocol, near:protocol())
      assert.equal(protocol, far:protocol())
      near:close()
      says_nothing(near)
      -- The other end may still be asked.
      far_facts = sessions.facts(far)
      assert.equal(protocol, far_facts.protocol)
      far:close()
      says_nothing(far)
      listener:close()
      tcp.run()
    end)

    it("is told of the certificate as openssl tells of it: " .. protocol, function()
      if not servers.find("openssl") then
        return pending("openssl is not installed: apt-get install openssl")
      end
      for _, name in ipairs { "server", "rsa", "chain", "self-signed" } do
        local listener = sessions.listen { cert = certificate(name), key = certificate(name, "key") }
        local cert
        local serving = tcp.spawn(function()
          local conn = listener:accept(10)
          conn:handshake()
          assert.is_nil(conn:peer_cert())
          conn:try_recv()
          conn:close()
        end)
        local conn = tcp.connect("127.0.0.1", listener:local_port(),
          { tls = { verify = false, protocols = { protocol } } })
        cert = conn:peer_cert()
        conn:close()
        serving:join(10)
        listener:close()
        local x509 = "x509 -in " .. certificate(name) .. " -noout "
        assert.equal(openssl(x509 .. "-fingerprint -sha256"):match("=(%S+)"):gsub(":", ""):lower(), cert.fingerprint)
        assert.equal(openssl(x509 .. "-subject -nameopt RFC2253"):match("=(.-)\n"), cert.subject)
        assert.equal(openssl(x509 .. "-issuer -nameopt RFC2253"):match("=(.-)\n"), cert.issuer)
        assert.equal(openssl(x509 .. "-serial"):match("=(%S+)"):lower(), cert.serial)
        assert.is_true(openssl("x509 -outform DER -in " .. certificate(name)) == cert.der)
        assert.same({ "localhost", "127.0.0.1", "::1" }, cert.sans)
        assert.is_true(cert.valid_from < os.time() and cert.valid_until > os.time())
        -- Every call gives a table of its own.
        cert.sans[1] = "changed"
      end
      tcp.run()
    end)
  end

  it("says nothing anew after the other side has gone without a word, and keeps to what it was", function()
    local peer = peers.start({ "--tls", "server" }, "accept", { "send", "hello\n" }, "cut")
    local conn = tcp.connect_tls("localhost", peer.port, { family = "ipv4", tls = transports.CLIENT })
    assert.equal("hello", conn:read_line())
    support.fails("truncated", conn:try_recv())
    assert.equal("TLSv1.3", conn:protocol())
    assert.equal("localhost", conn:server_name())
    conn:close()
    says_nothing(conn)
  end)
end)
