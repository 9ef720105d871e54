-- What specs of certificates share: files of their own, servers that show a certificate, and whether they are believed.

local assert = require("luassert")
local lfs = require("lfs")
local tcp = require("tcp.core")
local peers = require("support.peers")
local support = require("support")
local transports = require("support.transports")

local certificates = {}

local fails, certificate = support.fails, transports.certificate
local CA = certificate("ca")

function certificates.contents(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function certificates.fill(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

local folder

--- The folder of a test's files, gone after it.
function certificates.folder()
  if not folder then
    folder = os.tmpname()
    os.remove(folder)
    assert(lfs.mkdir(folder))
  end
  return folder
end

--- The path of a file of this name in there; with `text` it is written.
function certificates.file(name, text)
  local path = certificates.folder() .. "/" .. name
  if text then
    certificates.fill(path, text)
  end
  return path
end

--- Removes those files: `after_each` of the specs.
function certificates.remove_files()
  if folder then
    for name in lfs.dir(folder) do
      os.remove(folder .. "/" .. name)
    end
    assert(lfs.rmdir(folder))
    folder = nil
  end
end

--- A peer that shows this certificate and says hello.
function certificates.serve(name, ...)
  return peers.start({ "--tls", name }, "accept", { "send", "hello\n" }, "close", "again", ...)
end

function certificates.connect(peer, tls, host)
  return tcp.try_connect(host or "localhost", peer.port, { family = not host and "ipv4" or nil, tls = tls })
end

--- Asserts that a server with this certificate is talked to.
function certificates.accepts(name, tls, host, peer)
  local conn, err = certificates.connect(peer or certificates.serve(name), tls, host)
  assert(conn, "not accepted: " .. tostring(err))
  assert.is_true(conn:is_tls())
  assert.equal("hello", conn:read_line())
  conn:close()
end

--- Asserts that a server with this certificate is not, and gives the message.
function certificates.refuses(name, tls, host, peer)
  local err = fails("certificate", certificates.connect(peer or certificates.serve(name), tls, host))
  assert.equal("handshake", err.stage)
  assert.equal("connect", err.op)
  assert.is_nil(err.alert)
  -- The time of the test.
  local message, count = err.message:gsub("says %d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d UTC%)$", "says NOW)")
  assert.equal(count == 1, err.message:find("the clock here", 1, true) ~= nil)
  return message
end

function certificates.trusting(bundle, sni)
  return { ca_bundle = bundle, sni = sni }
end

certificates.COVERS = "other.example, *.wild.example, 192.0.2.7"
certificates.UNKNOWN = "the certificate's issuer is not trusted here: CN=%s "
  .. "(ca_bundle may name it, or the server should send its certificate)"

function certificates.openssl(command, output)
  assert.is_true(support.succeeds("openssl " .. command .. " -out " .. certificates.file(output)), command)
  return certificates.file(output)
end

--- Makes a certificate for victim.example, issued by the holder of another: its path, and that of its key.
function certificates.issue(authority, authority_key, extensions)
  local key = certificates.openssl("ecparam -name prime256v1 -genkey -noout", "issued.key")
  local request = certificates.openssl("req -new -subj /CN=victim.example -key " .. key, "issued.csr")
  local names = certificates.file("extensions", extensions or "subjectAltName=DNS:victim.example\n")
  local command = "x509 -req -days 10 -set_serial 5 -in %s -CA %s -CAkey %s -extfile %s"
  return certificates.openssl(command:format(request, authority, authority_key, names), "issued.pem"), key
end

local LIST = [[
[ca]
default_ca = test
[test]
database = %s
default_md = sha256
default_crl_days = 10
crlnumber = %s
crl_extensions = extensions
[extensions]
authorityKeyIdentifier = keyid
]]

--- A revocation list of the tests' authority that names nobody.
function certificates.empty_crl()
  local config = certificates.file("list.cnf", LIST:format(certificates.file("index", ""),
    certificates.file("number", "01")))
  local command = "ca -gencrl -config %s -cert %s -keyfile %s"
  return certificates.openssl(command:format(config, CA, certificate("ca", "key")), "list.pem")
end

--- As `refuses`, for a server of this module with this certificate.
function certificates.refuses_files(cert, key, tls)
  local listener = tcp.listen("127.0.0.1", 0, { tls = { cert = cert, key = key } })
  local task = tcp.spawn(function()
    local conn = listener:accept(10)
    conn:try_handshake({ timeout = 10 })
    conn:close()
  end)
  local conn, err = certificates.connect({ port = listener:local_port() }, tls)
  if conn then
    conn:close()
  end
  task:join(10)
  listener:close()
  -- What is left of the accepted connection goes, too.
  tcp.run()
  fails("certificate", conn, err)
  assert.equal("handshake", err.stage)
  return err.message
end

--- The same for what the holder of another certificate issued.
function certificates.refuses_issued(authority, authority_key)
  local cert, key = certificates.issue(authority, authority_key)
  return certificates.refuses_files(cert, key, certificates.trusting(CA))
end

return certificates
