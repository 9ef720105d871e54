-- Sessions that are resumed between sides that both have certificates.

local certificates = require("support.certificates")
local matrix = require("support.matrix")
local support = require("support")
local tcp = require("tcp.core")

local fails = support.fails
local file, text, showing = matrix.file, matrix.text, matrix.showing
local fill, temporary = certificates.fill, certificates.file
local PATIENCE = 10

local listener

--- Listens; for each connection the server says whether it was resumed, and whose certificate it saw.
local function listen(mode, client_ca)
  listener = tcp.listen("127.0.0.1", 0,
    { tls = showing("server", { client_ca = client_ca or file("ca"), client_auth = mode }) })
end

local function serve(count)
  return tcp.spawn(function()
    for _ = 1, count do
      local conn = listener:accept(PATIENCE)
      if conn:try_handshake { timeout = PATIENCE } then
        local cert = conn:peer_cert()
        conn:write_json { resumed = conn:resumed(), cert = cert and cert.fingerprint, subject = cert and cert.subject }
      end
      conn:close()
    end
  end)
end

--- What the server says of a client that shows this certificate, or none; nil and the error if it is refused.
local function visit(name, protocol, more)
  local tls = { ca_bundle = file("ca"), sni = "localhost", protocols = { protocol } }
  if name then
    tls.client_cert, tls.client_key = file(name), file(name, "key")
  end
  for key, value in pairs(more or {}) do
    tls[key] = value
  end
  local task = serve(1)
  local conn, err = tcp.try_connect("127.0.0.1", listener:local_port(), { tls = tls, read_timeout = PATIENCE })
  local told
  if conn then
    told, err = conn:try_read_json()
    if told then
      assert.equal(told.resumed, conn:resumed())
      assert.equal("CN=localhost", conn:peer_cert().subject)
    end
    conn:close()
  end
  task:join(PATIENCE)
  return told, err
end

--- Visits until the session goes on: files that have only just been written are read every time.
local function visit_again(...)
  local deadline = tcp.now() + PATIENCE
  repeat
    local told = visit(...)
    if told.resumed then
      return told
    end
    tcp.sleep(0.01)
  until tcp.now() > deadline
  error("no session goes on")
end

local function fingerprint(name)
  local process = assert(io.popen("openssl x509 -noout -fingerprint -sha256 -in " .. file(name)))
  local line = process:read("*l")
  process:close()
  return (line:match("=(.*)$"):gsub(":", ""):lower())
end

--- A test that closes its listener before its descriptors are counted.
local function test(name, body)
  it(name, function()
    body()
    listener:close()
    tcp.run()
  end)
end

after_each(certificates.remove_files)

for _, protocol in ipairs(matrix.PROTOCOLS) do
  describe("a session of a client with a certificate by " .. protocol, function()
    test("goes on with the certificate from before", function()
      for _, mode in ipairs { "optional", "required" } do
        listen(mode)
        for i = 1, 4 do
          local told = visit("client", protocol)
          assert.equal(i > 1, told.resumed)
          assert.equal(fingerprint("client"), told.cert)
          assert.equal("CN=client", told.subject)
        end
        listener:close()
      end
    end)

    test("is no other client's", function()
      listen("optional", text("pem", "ca", "client-self"))
      for i = 1, 3 do
        for _, name in ipairs { "client", "client-chain", "client-self", "rsa" } do
          local told = visit(name, protocol)
          assert.equal(i > 1, told.resumed, name)
          assert.equal(fingerprint(name), told.cert, name)
        end
        local told = visit(nil, protocol)
        assert.equal(i > 1, told.resumed)
        assert.is_nil(told.cert)
      end
    end)

    test("is not that of a client without one, who is refused", function()
      listen("required")
      visit("client", protocol)
      assert.is_true(visit("client", protocol).resumed)
      fails("tls", visit(nil, protocol))
      fails("tls", visit("client-expired", protocol))
      assert.is_true(visit("client", protocol).resumed)
    end)

    test("is one, whether its certificate is a path or its text", function()
      listen("required")
      local pem = { client_cert = text("pem", "client"), client_key = text("key", "client") }
      visit("client", protocol, pem)
      local told = visit("client", protocol, pem)
      assert.is_true(told.resumed)
      assert.equal(fingerprint("client"), told.cert)
    end)

    test("does not go on when the client's files have changed", function()
      listen("required")
      local pem = { client_cert = temporary("client.pem"), client_key = temporary("client.key") }
      for _, name in ipairs { "client", "rsa", "client-chain" } do
        fill(pem.client_cert, text("pem", name))
        fill(pem.client_key, text("key", name))
        local told = visit("client", protocol, pem)
        assert.is_false(told.resumed, name)
        assert.equal(fingerprint(name), told.cert, name)
        assert.equal(fingerprint(name), visit_again("client", protocol, pem).cert, name)
      end
    end)

    test("does not go on at another listener, which asks for a certificate of others", function()
      listen("required")
      visit("client", protocol)
      local first = listener
      listen("required", file("stranger-ca"))
      -- The same client: its sessions are kept by the server's name, not by its port.
      fails("tls", visit("client", protocol))
      listener:close()
      listener = first
      assert.equal(fingerprint("client"), visit("client", protocol).cert)
    end)

    test("of a listener that asks for none opens no listener that asks for one", function()
      for _, mode in ipairs { "none", "optional" } do
        listen(mode)
        visit(nil, protocol)
        assert.is_true(visit(nil, protocol).resumed)
        local first = listener
        listen("required")
        fails("tls", visit(nil, protocol))
        listener:close()
        listener = first
        -- Nor is one that was shown a certificate asked for it where nobody asks.
        local told = visit("client", protocol)
        assert.equal(mode == "optional" and fingerprint("client") or nil, told.cert)
        listener:close()
      end
    end)

    test("does not go on when the server's client_ca is another's", function()
      local path = temporary("client_ca.pem", text("pem", "ca"))
      listen("required", path)
      assert.equal("CN=client", visit_again("client", protocol).subject)
      fill(path, text("pem", "stranger-ca"))
      fails("tls", visit("client", protocol))
      assert.equal("CN=client", visit("client-stranger", protocol).subject)
    end)
  end)
end
