-- What start_tls says to wrong arguments, and that they harm nothing.

local handshakes = require("support.handshakes")
local misuses = require("support.misuse")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")
local upgrades = require("support.upgrades")

local CLIENT, SERVER, with = upgrades.CLIENT, upgrades.SERVER, upgrades.with
local CERT, KEY = SERVER.cert, SERVER.key
local PLACE = { server = true, cert = CERT, key = KEY }

local SIDES = { client = {}, server = PLACE }

local CLIENT_KNOWN = "unknown; known are alpn, ca_bundle, client_cert, client_key, crl, handshake_timeout, protocols, "
  .. "server, sni, verify"
local SERVER_KNOWN = "unknown; known are alpn, cert, client_auth, client_ca, handshake_timeout, key, protocols, "
  .. "server, sni"

-- Values that are no option of this kind, and what is said of them.

local PEM = misuses.join(misuses.of_types("boolean table function userdata thread", "string"), {
  { value = "", problem = "path or PEM text expected, got an empty string" },
  { value = "a\0b", problem = "path contains a zero byte" },
  { value = "\255", problem = "path is not UTF-8" },
})

local SECONDS = misuses.seconds("boolean string table function userdata thread")

local ALPN = misuses.join(misuses.of_types("boolean number string function userdata thread", "list of strings"), {
  { value = { "" }, problem = "strings of 1 to 255 bytes expected, got one of 0" },
  { value = { ("x"):rep(256) }, problem = "strings of 1 to 255 bytes expected, got one of 256" },
  { value = { "a", b = "c" }, problem = "list of strings expected, got other keys than 1 to 1" },
  { value = { {} }, problem = "string expected, got table" },
  { value = { true }, problem = "string expected, got boolean" },
})

local VERSIONS = "list of 'TLSv1.2' and 'TLSv1.3'"
local PROTOCOLS = misuses.join(misuses.of_types("boolean number string function userdata thread", VERSIONS), {
  { value = {}, problem = "'TLSv1.2' or 'TLSv1.3' expected, got an empty list" },
  { value = { "TLSv1.1" }, problem = "'TLSv1.2' or 'TLSv1.3' expected, got 'TLSv1.1'" },
  { value = { "TLSv1.3", "tlsv1.2" }, problem = "'TLSv1.2' or 'TLSv1.3' expected, got 'tlsv1.2'" },
  { value = { tls = "TLSv1.3" }, problem = VERSIONS .. " expected, got other keys than 1 to 0" },
  { value = { 1 }, problem = "'TLSv1.2' or 'TLSv1.3' expected, got '1'" },
  { value = { false }, problem = "string expected, got boolean" },
})

local NAME = "name of a host, or address, expected, got "
local SNI = misuses.join(misuses.of_types("boolean table function userdata thread", "string"), {
  { value = "", problem = NAME .. "''" },
  { value = "two words", problem = NAME .. "'two words'" },
  { value = "localhost:443", problem = NAME .. "'localhost:443'" },
  { value = "\255", problem = "string is not UTF-8" },
})

local AUTH = misuses.words("'none' or 'optional' or 'required'", "boolean table function userdata thread")

local SNI_MAP = misuses.join(misuses.of_types("boolean number string function userdata thread",
  "table (names, each with cert and key)"), {
    { value = { ["two words"] = { cert = CERT, key = KEY } },
      problem = "name of a host, or '*.' and a name, expected, got 'two words'" },
    { value = { ["127.0.0.1"] = { cert = CERT, key = KEY } },
      problem = "name of a host, or '*.' and a name, expected, got '127.0.0.1'" },
  })

local MISTAKES = {
  client = { alpn = ALPN, ca_bundle = PEM, client_cert = PEM, client_key = PEM, crl = PEM, handshake_timeout = SECONDS,
    protocols = PROTOCOLS, sni = SNI, verify = misuses.BOOLEAN },
  server = { alpn = ALPN, cert = PEM, client_auth = AUTH, client_ca = PEM, handshake_timeout = SECONDS, key = PEM,
    protocols = PROTOCOLS, sni = SNI_MAP },
}

local HINTS = {
  client = { verifi = "verify", Verify = "verify", cabundle = "ca_bundle", client_certs = "client_cert",
    clientkey = "client_key", crls = "crl", handshake_timout = "handshake_timeout",
    protocol = "protocols", SNI = "sni", alpns = "alpn", Server = "server" },
  server = { certs = "cert", Key = "key", client_cas = "client_ca", clientauth = "client_auth",
    handshaketimeout = "handshake_timeout", protocol = "protocols", snis = "sni", alnp = "alpn" },
}

local conn, other

--- Asserts that both forms say this to these options, and that the connection is as it was.
local function refuses(blamed, problem, options)
  for _, name in ipairs { "start_tls", "try_start_tls" } do
    support.misuse(("bad %s to '%s' (%s)"):format(blamed, name, problem), conn[name], conn, options)
  end
  assert.is_false(conn:is_closed())
  assert.is_false(conn:is_tls())
end

--- Asserts that a connection is plain, and can be upgraded.
local function is_unharmed()
  upgrades.is_usable(conn, other)
  local serving = tasks.trying(other, "start_tls", SERVER)
  conn:start_tls(CLIENT)
  tasks.succeeds(serving)
  upgrades.is_usable(conn, other)
end

local function test(name, body)
  it(name, function()
    body()
    is_unharmed()
    handshakes.clean()
  end)
end

describe("misuse of start_tls", function()
  before_each(function()
    conn, other = upgrades.tcp.pair()
  end)

  after_each(handshakes.clean)

  test("is anything but a table of options", function()
    for _, it in ipairs(misuses.of_types("boolean number string function userdata thread", "table (TLS options)")) do
      refuses("argument #1", it.problem, it.value)
    end
  end)

  for side, good in pairs(SIDES) do
    for option, mistakes in pairs(MISTAKES[side]) do
      test(("is a wrong %s of a %s"):format(option, side), function()
        for _, mistake in ipairs(mistakes) do
          if mistake.value ~= nil then
            refuses(("option '%s'"):format(option), mistake.problem, with(good, { [option] = mistake.value }))
          end
        end
      end)
    end

    test("is an option that is misspelt, of a " .. side, function()
      for wrong, right in pairs(HINTS[side]) do
        refuses(("option '%s'"):format(wrong), ("did you mean '%s'?"):format(right), with(good, { [wrong] = "x" }))
      end
    end)

    test("is an option that nobody knows, of a " .. side, function()
      local known = side == "client" and CLIENT_KNOWN or SERVER_KNOWN
      for _, key in ipairs { "xyzzy", "", 1, 1.5, true } do
        refuses(("option '%s'"):format(tostring(key)), known, with(good, { [key] = 1 }))
      end
    end)
  end

  test("is a server that is not said to be one by true or false", function()
    for _, mistake in ipairs(misuses.BOOLEAN) do
      if mistake.value ~= nil then
        refuses("option 'server'", mistake.problem, { server = mistake.value, cert = CERT, key = KEY })
      end
    end
  end)

  test("is a certificate that leaves open whose it is", function()
    local hint = "that is a server's: with server = true; a client's are client_cert and client_key"
    refuses("option 'cert'", hint, { cert = CERT, key = KEY })
    refuses("option 'key'", hint, { key = KEY })
    refuses("option 'cert'", hint, { server = false, cert = CERT })
  end)

  test("is a server without its certificate or key", function()
    refuses("argument #1", "cert is missing: the path of a certificate, or PEM text", { server = true })
    refuses("argument #1", "cert is missing: the path of a certificate, or PEM text", { server = true, key = KEY })
    refuses("argument #1", "key is missing: the path of the certificate's key, or PEM text",
      { server = true, cert = CERT })
  end)

  test("is one of a client's certificate and key without the other", function()
    refuses("option 'client_cert'", "client_key is missing: one does not work without the other",
      { client_cert = CERT })
    refuses("option 'client_key'", "client_cert is missing: one does not work without the other", { client_key = KEY })
  end)

  test("is asking clients for certificates of nobody", function()
    for _, word in ipairs { "optional", "required" } do
      refuses("option 'client_auth'", "client_ca is missing: whose certificates are taken",
        with(PLACE, { client_auth = word }))
    end
  end)

  test("is an option of the other side", function()
    for _, name in ipairs { "verify", "ca_bundle", "crl", "client_cert", "client_key" } do
      local _, err = pcall(conn.start_tls, conn, with(PLACE, { [name] = "x" }))
      assert.matches("bad option '" .. name .. "' to 'start_tls'", err)
    end
    for _, name in ipairs { "client_ca", "client_auth" } do
      local _, err = pcall(conn.start_tls, conn, { [name] = "x" })
      assert.matches("bad option '" .. name .. "' to 'start_tls'", err)
    end
  end)

  test("is an option of connect", function()
    for _, name in ipairs { "timeout", "tls", "read_timeout", "nodelay" } do
      refuses(("option '%s'"):format(name), CLIENT_KNOWN, { [name] = {} })
    end
  end)

  test("is told in a task, too", function()
    local task = tasks.spawn(conn.start_tls, conn, { verifi = false })
    local ok, err = task:try_join(5)
    assert.is_nil(ok)
    assert.matches("bad option 'verifi' to 'start_tls' %(did you mean 'verify'%?%)$", err)
  end)

  it("is anything but a connection before the colon", function()
    assert.equal("", misuses.wrong_selfs(conn, "Connection", { "start_tls", "try_start_tls" }))
    handshakes.clean()
  end)
end)

describe("misuse of start_tls on a unix path", function()
  after_each(handshakes.clean)

  it("is to verify nobody by name", function()
    conn, other = upgrades.unix.pair()
    local problem = "a unix path is no name that a certificate could cover: give tls.sni"
    refuses("option 'sni'", problem, nil)
    refuses("option 'sni'", problem, {})
    refuses("option 'sni'", problem, { ca_bundle = transports.certificate("ca") })
    refuses("option 'sni'", problem, { verify = true })
    upgrades.is_usable(conn, other)
    local serving = tasks.trying(other, "start_tls", SERVER)
    conn:start_tls({ verify = false })
    tasks.succeeds(serving)
    upgrades.is_usable(conn, other)
    handshakes.clean()
  end)
end)
