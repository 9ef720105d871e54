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

local MISMATCH = "key%s does not belong to cert%s (whose first certificate has to be one's own)"

local function mismatch(key, cert)
  return MISMATCH:format(" '" .. key .. "'", " '" .. cert .. "'")
end

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

  it("that cannot be used is told by listen", function()
    local pkcs8 = openssl("pkey -aes256 -passout pass:x -in " .. SERVER_KEY, "pkcs8.key")
    local sec1 = openssl("ec -aes256 -passout pass:x -in " .. SERVER_KEY, "sec1.key")
    local der = openssl("x509 -outform der -in " .. SERVER_PEM, "der.pem")
    local encrypted = "%s is encrypted: decrypt it first, as with openssl pkey"
    for _, it in ipairs {
      { SERVER_PEM, certificate("leaf", "key"), mismatch(certificate("leaf", "key"), SERVER_PEM) },
      { SERVER_PEM, certificate("rsa", "key"), mismatch(certificate("rsa", "key"), SERVER_PEM) },
      { contents(SERVER_PEM), contents(certificate("rsa", "key")), MISMATCH:format("", "") },
      { SERVER_PEM, pkcs8, encrypted:format("key '" .. pkcs8 .. "'") },
      { SERVER_PEM, sec1, encrypted:format("key '" .. sec1 .. "'") },
      { SERVER_PEM, contents(pkcs8), encrypted:format("key") },
      { SERVER_PEM, contents(sec1), encrypted:format("key") },
      { SERVER_KEY, SERVER_PEM, "cert '" .. SERVER_KEY .. "' holds no certificate in PEM" },
      { SERVER_PEM, SERVER_PEM, "key '" .. SERVER_PEM .. "' holds no key in PEM" },
      { der, SERVER_KEY, "cert '" .. der
        .. "' is DER, not PEM: openssl x509 (or crl) -inform der turns the one into the other" },
      { file("empty.pem", ""), SERVER_KEY, "cert '" .. file("empty.pem") .. "' is empty" },
      { SERVER_PEM, file("empty.pem"), "key '" .. file("empty.pem") .. "' is empty" },
    } do
      local err = fails("tls", listen(it[1], it[2]))
      assert.equal(it[3], err.message)
      assert.equal("listen", err.op)
      assert.equal("listen 127.0.0.1:0: " .. it[3], tostring(err))
    end
    local ok, raised = pcall(tcp.listen, "127.0.0.1", 0, { tls = { cert = SERVER_PEM, key = pkcs8 } })
    assert.is_false(ok)
    assert.is_true(tcp.is_error(raised, "tls"))
  end)

  it("that cannot be read is told by listen", function()
    for _, it in ipairs {
      { "/no/such/cert.pem", SERVER_KEY, 2, "cannot read cert '/no/such/cert.pem': no such file or directory" },
      { SERVER_PEM, "/no/such/key.pem", 2, "cannot read key '/no/such/key.pem': no such file or directory" },
      { "/", SERVER_KEY, 21, "cannot read cert '/': is a directory" },
      { SERVER_PEM, "/", 21, "cannot read key '/': is a directory" },
    } do
      local err = fails("system", listen(it[1], it[2]))
      assert.equal(it[3], err.errno)
      assert.equal(it[4], err.message)
      assert.equal("listen", err.op)
    end
  end)

  it("with a key that nobody can use is told by listen", function()
    local key = openssl("ecparam -name secp256k1 -genkey -noout", "curve.key")
    local cert = openssl("req -x509 -new -subj /CN=localhost -key " .. key, "curve.pem")
    local err = fails("tls", listen(cert, key))
    assert.matches("^key '[^']+' is of a kind or size that is not supported %(ECDSA P%-256, ", err.message)
  end)

  it("is told without a byte of the key", function()
    local key = contents(SERVER_KEY)
    for _, damaged in ipairs { (key:gsub("\n", "")), (key:gsub("\n", " ")), key:sub(1, -20), (key:gsub("%-\n", "-", 1)),
      (key:gsub("\n%w", "\n!", 1)) } do
      local err = fails("tls", listen(SERVER_PEM, damaged))
      assert.matches("^key is malformed PEM", err.message)
      assert.is_true(#err.message < 120 and not err.message:find("%d+, %d+"), "bytes of the key: " .. err.message)
    end
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
