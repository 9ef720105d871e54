-- The certificates of tools/certificate-matrix.sh, and servers that show one of them: this module's, and OpenSSL's
-- for what this module will not show.

local assert = require("luassert")
local lfs = require("lfs")
local tcp = require("tcp.core")
local certificates = require("support.certificates")
local servers = require("support.servers")
local support = require("support")
local transports = require("support.transports")

local unpack = table.unpack or unpack

local matrix = {}

assert(support.succeeds("tools/certificate-matrix.sh build/certificates"),
  "tools/certificate-matrix.sh build/certificates fails")

matrix.PROTOCOLS = { "TLSv1.2", "TLSv1.3" }

local HERE = lfs.currentdir() .. "/"
local PATIENCE = 10

--- The path of a certificate of the tests or of the matrix, of its key, or of a list: `kind` is "pem" if nothing is
-- said, "key" or "crl".
function matrix.file(name, kind)
  local path = transports.certificate(name, kind)
  return lfs.attributes(path) and path or transports.certificate("matrix/" .. name, kind)
end

--- What these files say, one after the other.
function matrix.text(kind, ...)
  local texts = {}
  for i, name in ipairs { ... } do
    texts[i] = certificates.contents(matrix.file(name, kind))
  end
  return table.concat(texts)
end

--- The options of a listener that shows a certificate.
function matrix.showing(name, options)
  local tls = { cert = matrix.file(name), key = matrix.file(name, "key") }
  for key, value in pairs(options or {}) do
    tls[key] = value
  end
  return tls
end

--- OpenSSL's server, which turns lines around for its clients, one after the other.
function matrix.s_server(name, ...)
  local cert = HERE .. matrix.file(name)
  local words = { "-cert", cert, "-cert_chain", cert, "-key", HERE .. matrix.file(name, "key"), "-rev", ... }
  return servers.start("openssl", function(it)
    return { "s_server", "-accept", it.host .. ":" .. it.port, unpack(words) }
  end)
end

local function reverse(conn)
  local line = conn:try_read_line({ timeout = PATIENCE })
  if line then
    conn:try_write_line(line:reverse())
  end
  conn:close()
end

--- This module's server, which turns a line around for each client.
function matrix.serve(name, options)
  local listener = tcp.listen("127.0.0.1", 0, { tls = matrix.showing(name, options) })
  local accepting = tcp.spawn(function()
    local conn = listener:try_accept()
    while conn do
      tcp.spawn(reverse, conn)
      conn = listener:try_accept()
    end
  end)
  local server = { port = listener:local_port() }
  function server.stop()
    listener:close()
    accepting:join(PATIENCE)
    -- What is left of its connections goes, too.
    tcp.run()
  end
  return server
end

--- Connects to one of them, by one protocol if that is said.
function matrix.connect(server, tls, protocol)
  local all = { sni = "localhost", protocols = protocol and { protocol } }
  for name, value in pairs(tls) do
    all[name] = value
  end
  return tcp.try_connect("127.0.0.1", server.port, { tls = all, read_timeout = PATIENCE, write_timeout = PATIENCE })
end

--- Asserts that one of them is talked to.
function matrix.accepts(server, tls, protocol)
  local conn, err = matrix.connect(server, tls, protocol)
  assert(conn, "not accepted: " .. tostring(err))
  conn:write("hello\n")
  assert.equal("olleh", conn:read_line())
  conn:close()
end

--- Asserts that one of them is not believed, and gives the message.
function matrix.refuses(server, tls, protocol)
  local conn, err = matrix.connect(server, tls, protocol)
  if conn then
    conn:close()
  end
  support.fails("certificate", conn, err)
  assert.equal("handshake", err.stage)
  assert.is_nil(err.alert)
  return err.message
end

--- Asserts that a text has each of these patterns in it.
function matrix.says(text, patterns)
  for _, pattern in ipairs(patterns) do
    assert(text:find(pattern), ("'%s' is not in: %s"):format(pattern, text))
  end
end

return matrix
