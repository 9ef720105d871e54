-- How people keep certificates, keys and lists in files: all of it is understood.

local certificates = require("support.certificates")
local matrix = require("support.matrix")
local tcp = require("tcp.core")
local transports = require("support.transports")
local waits = require("support.waits")

local file, text = matrix.file, matrix.text
local temporary, openssl = certificates.file, certificates.openssl
local PATIENCE = 10

local CA, CERT, KEY = file("ca"), file("server"), file("server", "key")
local CLIENT, CLIENT_KEY = file("client"), file("client", "key")

after_each(certificates.remove_files)

--- A test that leaves nothing behind before its descriptors are counted.
local function test(name, body)
  it(name, waits.cleanly(body))
end

--- Asserts that two sides with these options understand each other.
local function meet(client, server)
  local tls = { cert = CERT, key = KEY, client_ca = CA, client_auth = "required" }
  for name, value in pairs(server) do
    tls[name] = value
  end
  local options = { ca_bundle = CA, sni = "localhost", client_cert = CLIENT, client_key = CLIENT_KEY }
  for name, value in pairs(client) do
    options[name] = value
  end
  local listener = tcp.listen("127.0.0.1", 0, { tls = tls })
  local serving = tcp.spawn(function()
    local conn = listener:accept(PATIENCE)
    local _, err = conn:try_write("hello\n")
    conn:close()
    return err
  end)
  local conn = tcp.connect("127.0.0.1", listener:local_port(), { tls = options, read_timeout = PATIENCE })
  assert.equal("hello", conn:read_line())
  assert.is_nil(serving:join(PATIENCE))
  transports.close_all(conn, listener)
end

-- How people keep PEM.
local KEPT = {
  ["CRLF line ends"] = function(pem)
    return (pem:gsub("\n", "\r\n"))
  end,
  ["no last line end"] = function(pem)
    return (pem:gsub("\n$", ""))
  end,
  ["a byte order mark"] = function(pem)
    return "\239\187\191" .. pem
  end,
  ["text before and after"] = function(pem)
    return "Bag Attributes\n    friendlyName: mine\nsubject=CN = x\n" .. pem .. "\nthe end\n"
  end,
  ["blank lines and blanks at line ends"] = function(pem)
    return "\n\n" .. pem:gsub("\n", " \n") .. "\n\n"
  end,
  ["something else before and after"] = function(pem)
    local parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    return parameters .. pem .. parameters
  end,
}

describe("PEM is taken", function()
  for name, change in pairs(KEPT) do
    test("with " .. name, function()
      for i, as in ipairs { function(_, content)
        return content
      end, temporary } do
        local function made(label, content)
          return as(("%s-%d.pem"):format(label, i), change(content))
        end
        meet({ ca_bundle = made("ca", text("pem", "ca")), crl = made("crl", text("crl", "ca")),
          client_cert = made("client", text("pem", "client")), client_key = made("client-key", text("key", "client")) },
          { cert = made("cert", text("pem", "server")), key = made("key", text("key", "server")),
            client_ca = made("client-ca", text("pem", "ca")), sni = { localhost = {
              cert = made("sni", text("pem", "rsa")), key = made("sni-key", text("key", "rsa")),
            } } })
      end
    end)
  end

  test("with certificate and key in one file, in either order", function()
    for _, first in ipairs { "pem", "key" } do
      local function both(name)
        return temporary(name .. ".both", text(first, name) .. text(first == "pem" and "key" or "pem", name))
      end
      local client, server = both("client"), both("server")
      meet({ client_cert = client, client_key = client }, { cert = server, key = server })
    end
  end)

  test("with several keys, of which the first is meant", function()
    meet({ client_key = text("key", "client", "rsa") }, { key = text("key", "server", "rsa") })
  end)

  test("with a key in any form that openssl writes", function()
    local rsa, ec = file("rsa", "key"), KEY
    local forms = { openssl("rsa -traditional -in " .. rsa, "pkcs1.key"), openssl("pkcs8 -topk8 -nocrypt -in " .. rsa,
      "pkcs8.key") }
    for _, key in ipairs(forms) do
      meet({ client_cert = file("rsa"), client_key = key }, { cert = file("rsa"), key = key })
    end
    forms = { openssl("ec -in " .. ec, "sec1.key"), openssl("pkcs8 -topk8 -nocrypt -in " .. ec, "pkcs8.key") }
    for _, key in ipairs(forms) do
      meet({ client_cert = CERT, client_key = key }, { cert = CERT, key = key })
    end
    for _, kind in ipairs { "rsa2048", "rsa3072", "p384", "p521", "ed25519" } do
      local cert, key, authority = file(kind), file(kind, "key"), file(kind .. "-ca")
      meet({ client_cert = cert, client_key = key, ca_bundle = authority },
        { cert = cert, key = key, client_ca = authority })
    end
  end)
end)
