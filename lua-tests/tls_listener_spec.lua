local lfs = require("lfs")
local support = require("support")
local tcp = require("tcp.core")
local certificates = require("support.certificates")
local transports = require("support.transports")

local fails, certificate = support.fails, transports.certificate
local CA, SERVER_PEM = transports.certificate("ca"), transports.certificate("server")
local contents, file, trusting = certificates.contents, certificates.file, certificates.trusting
local openssl = certificates.openssl

after_each(certificates.remove_files)

describe("a listener's certificate", function()
  local SERVER_KEY = certificate("server", "key")

  local function listen(cert, key)
    return tcp.try_listen("127.0.0.1", 0, { tls = { cert = cert, key = key } })
  end

  --- Asserts that a client can talk to a listener with these, as to one with the certificate `trusted`.
  local function serves(cert, key, trusted)
    local listener = assert(listen(cert, key))
    local task = tcp.spawn(function()
      local conn = listener:accept(10)
      local line = conn:read_line({ timeout = 10 })
      conn:write_line(line:upper())
      conn:close()
    end)
    local conn = tcp.connect("127.0.0.1", listener:local_port(), { tls = trusting(trusted or CA, "localhost") })
    conn:write_line("hello")
    assert.equal("HELLO", conn:read_line({ timeout = 10 }))
    task:join(10)
    conn:close()
    listener:close()
    tcp.run()
  end

  it("and its key are paths or PEM text, apart or together", function()
    local cert, key = contents(SERVER_PEM), contents(SERVER_KEY)
    serves(SERVER_PEM, SERVER_KEY)
    serves(cert, key)
    serves(SERVER_PEM, key)
    serves(cert, SERVER_KEY)
    for _, both in ipairs { cert .. key, key .. cert } do
      serves(both, both)
      local path = file("both.pem", both)
      serves(path, path)
    end
    serves(certificate("chain"), certificate("chain", "key"))
    serves(certificate("rsa"), certificate("rsa", "key"))
    serves(certificate("self-signed"), certificate("self-signed", "key"), certificate("self-signed"))
  end)

  it("may have its key in any form that openssl writes", function()
    serves(SERVER_PEM, openssl("ec -in " .. SERVER_KEY, "sec1.key"))
    file("parameters.key", "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
      .. contents(file("sec1.key")))
    serves(SERVER_PEM, file("parameters.key"))
    serves(openssl("x509 -text -in " .. SERVER_PEM, "text.pem"), SERVER_KEY)
    serves(certificate("rsa"), openssl("rsa -traditional -in " .. certificate("rsa", "key"), "pkcs1.key"))
    local key = openssl("genpkey -algorithm ed25519", "ed25519.key")
    local cert = openssl("req -x509 -new -subj /CN=localhost -addext subjectAltName=DNS:localhost -key " .. key,
      "ed25519.pem")
    serves(cert, key, cert)
  end)

  it("leaves no address taken when it cannot be used", function()
    local listener = tcp.listen("127.0.0.1", 0)
    local port = listener:local_port()
    listener:close()
    fails("tls", tcp.try_listen("127.0.0.1", port, { tls = { cert = SERVER_PEM, key = certificate("rsa", "key") } }))
    tcp.listen("127.0.0.1", port):close()
    local path = file("socket")
    fails("tls", tcp.try_listen("unix:" .. path, nil, { tls = { cert = SERVER_PEM, key = certificate("rsa", "key") } }))
    assert.is_nil(lfs.attributes(path))
  end)
end)
