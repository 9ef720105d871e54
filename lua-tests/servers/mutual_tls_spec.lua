-- Certificates of clients: nginx's and OpenSSL's servers for our clients, OpenSSL's client and curl for our listeners.

local certificates = require("support.certificates")
local matrix = require("support.matrix")
local nginx = require("support.nginx")
local servers = require("support.servers")
local support = require("support")
local tcp = require("tcp.core")

local fails = support.fails
local file, text = matrix.file, matrix.text
local HERE = require("lfs").currentdir() .. "/"
local PATIENCE = 10

local function client_tls(name, protocol)
  local tls = { ca_bundle = file("ca"), sni = "localhost", protocols = { protocol } }
  if name then
    tls.client_cert, tls.client_key = file(name), file(name, "key")
  end
  return tls
end

local function try_connect(server, tls)
  return tcp.try_connect(server.host, server.port, { read_timeout = PATIENCE, write_timeout = PATIENCE, tls = tls })
end

describe("nginx", function()
  if not servers.find("nginx") then
    pending("is not installed: apt-get install nginx")
    return
  end

  local CONFIGURATION = nginx.certificate("server")
    .. "ssl_client_certificate " .. HERE .. file("ca") .. ";"
    .. "ssl_verify_depth 3; ssl_verify_client %s; ssl_protocols %s;"
    .. ' location /client { return 200 "$ssl_client_verify $ssl_client_s_dn"; }'

  --- Status and body of its page about the client.
  local function ask(server, tls)
    local conn = assert(try_connect(server, tls))
    conn:write(nginx.request("/client", "Connection: close\r\n"))
    local body, status = nginx.read_response(conn)
    assert.is_nil(conn:recv())
    conn:close()
    return status, body
  end

  for _, protocol in ipairs(matrix.PROTOCOLS) do
    for _, mode in ipairs { "on", "optional" } do
      describe(("that has ssl_verify_client %s and speaks %s"):format(mode, protocol), function()
        local server

        setup(function()
          server = nginx.start({}, CONFIGURATION:format(mode, protocol))
        end)

        teardown(function()
          server:stop()
        end)

        for name, subject in pairs { client = "CN=client", ["client-chain"] = "CN=client", rsa = "CN=localhost",
          server = "CN=localhost" } do
          it("knows our client by the certificate of " .. name, function()
            for _ = 1, 3 do
              local status, body = ask(server, client_tls(name, protocol))
              assert.equal("SUCCESS " .. subject, body)
              assert.equal(200, status)
            end
          end)
        end

        for _, name in ipairs { "client-expired", "client-stranger", "client-server", "client-leaf" } do
          it("refuses the certificate of " .. name .. " by HTTP", function()
            local status, body = ask(server, client_tls(name, protocol))
            assert.equal(400, status)
            assert.matches("The SSL certificate error", body)
          end)
        end

        it("gets none from a client that has none", function()
          local status, body = ask(server, client_tls(nil, protocol))
          if mode == "on" then
            assert.equal(400, status)
            assert.matches("No required SSL certificate was sent", body)
          else
            assert.equal("NONE ", body)
          end
        end)
      end)
    end
  end
end)

describe("openssl s_server -Verify", function()
  if not servers.find("openssl") then
    pending("is not installed: apt-get install openssl")
    return
  end

  local REFUSED = {
    { "client-stranger", "unknown_ca" }, { "client-leaf", "unknown_ca" }, { "client-self", "unknown_ca" },
    { "client-expired", "certificate_expired" }, { "client-server", "unsupported_certificate" },
  }

  for _, protocol in ipairs(matrix.PROTOCOLS) do
    local server

    local function test(name, body)
      it(name .. ": " .. protocol, function()
        server = matrix.s_server("server", "-Verify", "3", "-verify_return_error", "-CAfile", HERE .. file("ca"))
        body()
        server:stop()
      end)
    end

    test("takes our client's certificate", function()
      for _, name in ipairs { "client", "client-chain", "rsa" } do
        local conn = assert(try_connect(server, client_tls(name, protocol)))
        conn:write("hello\n")
        assert.equal("olleh", conn:read_line())
        conn:close()
      end
    end)

    --- The alert of a refusal, which by TLS 1.3 comes after the client's handshake: if it only reads then, or also
    -- writes.
    local function alert(name, bytes)
      local conn, err = try_connect(server, client_tls(name, protocol))
      assert.equal(protocol == "TLSv1.3", conn ~= nil)
      if conn then
        local _
        if bytes then
          _, err = conn:try_write(bytes)
        end
        if not err then
          _, err = conn:try_read_line()
        end
        conn:close()
      end
      return fails("tls", nil, err).alert
    end

    test("refuses our client with an alert", function()
      for _, case in ipairs(REFUSED) do
        assert.equal(case[2], alert(case[1]), case[1])
      end
    end)

    test("refuses our client without a certificate with an alert", function()
      assert.equal(protocol == "TLSv1.3" and "certificate_required" or "handshake_failure", alert(nil))
    end)

    test("refuses our client with an alert, and no reset, while that writes", function()
      for i = 1, 50 do
        assert.equal("certificate_expired", alert("client-expired", ("x"):rep(i % 2 == 0 and 1000 or 1000000)))
      end
    end)
  end
end)

describe("a listener with client_auth", function()
  local OPTIONS = { tls = matrix.showing("server", { client_ca = text("pem", "ca"), client_auth = "required" }) }

  --- Runs a command of the shell in which `$port` is the listener's; gives what the server saw of the client, or its
  -- error, and what the command printed.
  local function serve(command, answer)
    local listener = tcp.listen("127.0.0.1", 0, OPTIONS)
    local output = certificates.file("output")
    local process = assert(io.popen(("{ %s; } >%s 2>&1"):format(command:gsub("$port", listener:local_port()), output)))
    local conn = listener:accept(PATIENCE)
    local line, err = conn:try_read_line { timeout = PATIENCE }
    local cert = conn:peer_cert()
    if line then
      conn:write(answer)
    end
    conn:close()
    listener:close()
    tcp.run()
    process:read("*a")
    process:close()
    return cert or err, certificates.contents(output)
  end

  after_each(certificates.remove_files)

  --- The words that both programs understand.
  local function shown(name)
    return (" --cert %s --key %s"):format(file(name), file(name, "key"))
  end

  for program, words in pairs {
    ["openssl s_client"] = "echo hello | openssl s_client -quiet -connect 127.0.0.1:$port -CAfile " .. file("ca"),
    curl = "curl -sS --http0.9 --max-time 10 https://127.0.0.1:$port/ --cacert " .. file("ca"),
  } do
    if not servers.find(program:match("%l+")) then
      pending(program .. " is not installed")
      return
    end
    for protocol, version in pairs {
      ["TLSv1.2"] = program == "curl" and " --tls-max 1.2" or " -tls1_2",
      ["TLSv1.3"] = program == "curl" and " --tlsv1.3" or " -tls1_3",
    } do
      it(("takes the certificate of %s by %s"):format(program, protocol), function()
        for _, name in ipairs { "client", "rsa", "server" } do
          local cert, output = serve(words .. version .. shown(name), "welcome\n")
          assert.equal(name == "client" and "CN=client" or "CN=localhost", cert.subject)
          assert.matches("welcome", output)
        end
      end)

      it(("refuses %s by %s, and tells why"):format(program, protocol), function()
        for name, alert in pairs { ["client-expired"] = "expired", ["client-stranger"] = "unknown ca",
          ["client-server"] = "unsupported certificate" } do
          local err, output = serve(words .. version .. shown(name), "welcome\n")
          fails("certificate", nil, err)
          -- curl has words of its own for some.
          assert.matches(program == "curl" and "^curl: %(%d+%)" or "alert.*" .. alert, output)
        end
        local err, output = serve(words .. version, "welcome\n")
        assert.equal("the client has no certificate", fails("certificate", nil, err).message)
        assert.matches("alert", output)
      end)
    end
  end

  it("tells apart what is too weak of openssl's clients", function()
    if not servers.find("openssl") then
      return pending("openssl is not installed: apt-get install openssl")
    end
    for name, word in pairs { rsa1024 = "RSA key that is too small", sha1 = "SHA%-1", v1 = "X.509 version" } do
      for _, version in ipairs { " -tls1_2", " -tls1_3" } do
        local err = serve("echo hello | openssl s_client -quiet -connect 127.0.0.1:$port -cipher DEFAULT@SECLEVEL=0"
          .. version .. shown(name), "welcome\n")
        matrix.says(fails("certificate", nil, err).message, { word })
      end
    end
  end)
end)
