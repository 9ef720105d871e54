-- Mistakes with the options of TLS, and what is to be said about them.

local misuse = require("support.misuse")

local STRING, BOOLEAN = misuse.STRING, misuse.BOOLEAN
local at, case, in_options, join, of_types, seconds, words =
  misuse.at, misuse.case, misuse.in_options, misuse.join, misuse.of_types, misuse.seconds, misuse.words

local NOT_TABLE = "nil boolean number string function userdata thread"

-- PEM, by its path or as it is.
local PEM = join(STRING, {
  { value = "", problem = "path or PEM text expected, got an empty string" },
  { value = "a\0b", problem = "path contains a zero byte" },
  { value = "caf\233", problem = "path is not UTF-8" },
})

local SERVER_NAME = join(STRING, { { value = "caf\233", problem = "string is not UTF-8" } })
for _, name in ipairs { "", "a b", "[::1", "localhost:443", "1.2.3", "*.example", "a..example", ".example",
  ("a"):rep(64) .. ".example", ("a."):rep(128), "caf\195\169.example" } do
  local problem = ("name of a host, or address, expected, got '%s'"):format(name)
  SERVER_NAME[#SERVER_NAME + 1] = { value = name, problem = problem }
end

local VERSIONS = "list of 'TLSv1.2' and 'TLSv1.3'"
local PROTOCOLS = join(of_types(NOT_TABLE, VERSIONS), {
  { value = {}, problem = "'TLSv1.2' or 'TLSv1.3' expected, got an empty list" },
  { value = { "TLSv1.1" }, problem = "'TLSv1.2' or 'TLSv1.3' expected, got 'TLSv1.1'" },
  { value = { "TLSv1.3", "tlsv1.2" }, problem = "'TLSv1.2' or 'TLSv1.3' expected, got 'tlsv1.2'" },
  { value = { 5 }, problem = "'TLSv1.2' or 'TLSv1.3' expected, got '5'" },
  { value = { true }, problem = "string expected, got boolean" },
  { value = { ["TLSv1.3"] = true }, problem = VERSIONS .. " expected, got other keys than 1 to 0" },
  { value = { "TLSv1.3", nil, "TLSv1.2" }, problem = VERSIONS .. " expected, got other keys than 1 to 1" },
})

local ALPN = join(of_types(NOT_TABLE, "list of strings"), {
  { value = { "" }, problem = "strings of 1 to 255 bytes expected, got one of 0" },
  { value = { "h2", ("x"):rep(256) }, problem = "strings of 1 to 255 bytes expected, got one of 256" },
  { value = { "h2", {} }, problem = "string expected, got table" },
  { value = { first = "h2" }, problem = "list of strings expected, got other keys than 1 to 0" },
})

local BOTH = { cert = "x", key = "x" }
local NAMES = join(of_types(NOT_TABLE, "table (names, each with cert and key)"), {
  { value = { [true] = BOTH }, problem = "string expected, got boolean" },
  { value = { ["caf\233"] = BOTH }, problem = "string is not UTF-8" },
})
for _, name in ipairs { "", "a b", "*", "*.", "a.*.b", "127.0.0.1", "[::1]", "::1" } do
  local problem = ("name of a host, or '*.' and a name, expected, got '%s'"):format(name)
  NAMES[#NAMES + 1] = { value = { [name] = BOTH }, problem = problem }
end

local tls = {}

--- What a client's table takes, with `prefix` in front of the names; and so for a server's.
function tls.client(prefix)
  return {
    [prefix .. "alpn"] = ALPN,
    [prefix .. "ca_bundle"] = PEM,
    [prefix .. "client_cert"] = PEM,
    [prefix .. "client_key"] = PEM,
    [prefix .. "crl"] = PEM,
    [prefix .. "protocols"] = PROTOCOLS,
    [prefix .. "sni"] = SERVER_NAME,
    [prefix .. "verify"] = BOOLEAN,
  }
end

function tls.server(prefix)
  return {
    [prefix .. "alpn"] = ALPN,
    [prefix .. "cert"] = PEM,
    [prefix .. "client_auth"] = join(words("'none' or 'optional' or 'required'"), {
      { value = "Required", problem = "'none' or 'optional' or 'required' expected, got 'Required'" },
    }),
    [prefix .. "client_ca"] = PEM,
    [prefix .. "key"] = PEM,
    [prefix .. "protocols"] = PROTOCOLS,
    [prefix .. "sni"] = NAMES,
  }
end

local LONELY = "%s is missing: one does not work without the other"

--- Cases of options that do not go together. `wrap` makes of a table of them what is given, after good arguments.
function tls.client_together(prefix, wrap)
  local cases = {
    case(("option '%sclient_cert'"):format(prefix), LONELY:format("client_key"), wrap { client_cert = "x" }),
    case(("option '%sclient_key'"):format(prefix), LONELY:format("client_cert"), wrap { client_key = "x" }),
  }
  local meant = { ca = "ca_bundle", cafile = "ca_bundle", hostname = "sni", servername = "sni" }
  if prefix ~= "" then
    meant.cert, meant.key = "client_cert", "client_key"
  end
  return join(cases, tls.meant(prefix, wrap, meant))
end

--- Cases of what other libraries call the options.
function tls.meant(prefix, wrap, meant)
  local cases = {}
  for wrong, right in pairs(meant) do
    local hint = ("did you mean '%s%s'?"):format(prefix, right)
    cases[#cases + 1] = case(("option '%s%s'"):format(prefix, wrong), hint, wrap { [wrong] = "x" })
  end
  local hint = prefix == "" and "did you mean 'handshake_timeout'?" or "did you mean 'timeout', beside 'tls'?"
  cases[#cases + 1] = case(("option '%stimeout'"):format(prefix), hint, wrap { timeout = 5 })
  return cases
end

function tls.server_together(prefix, wrap)
  local cases = {}
  local function add(name, problem, options)
    options.cert = options.cert or "x"
    options.key = options.key or "x"
    cases[#cases + 1] = case(("option '%s%s'"):format(prefix, name), problem, wrap(options))
  end
  local NO_CA = "client_ca is missing: whose certificates are taken"
  add("client_auth", NO_CA, { client_auth = "required" })
  add("client_auth", NO_CA, { client_auth = "optional" })
  add("sni['a.b']", "table (cert and key) expected, got string", { sni = { ["a.b"] = "x" } })
  add("sni['a.b']", "both cert and key are needed", { sni = { ["A.b"] = { cert = "x" } } })
  add("sni['*.b']", "both cert and key are needed", { sni = { ["*.b"] = {} } })
  add("sni['a.b'].key", "path or PEM text expected, got an empty string",
    { sni = { ["a.b"] = { cert = "x", key = "" } } })
  add("crl", "revocation lists are for clients only", { crl = "x" })
  for _, it in ipairs(tls.meant(prefix, wrap, { ca = "client_ca", ca_bundle = "client_ca", certificate = "cert" })) do
    cases[#cases + 1] = it
  end
  add("sni['a.b'].certs", "unknown; known are cert, key", { sni = { ["a.b"] = { certs = "x" } } })
  return cases
end

local FOR_A_SERVER = "that is a server's: with server = true; a client's are client_cert and client_key"

--- The cases of `start_tls`.
function tls.upgrades()
  local client, server = tls.client(""), tls.server("")
  client.handshake_timeout, server.handshake_timeout = seconds(), seconds()
  client.server, server.server = of_types("number string table function userdata thread", "boolean"), {}
  local function with_server(options)
    options.server = true
    return options
  end
  local servers = in_options(server, { crts = "cert", Key = "key", handshake_timout = "handshake_timeout" })
  for _, it in ipairs(servers) do
    with_server(it[1])
  end
  return join(
    at(1, of_types("boolean number string function userdata thread", "table (TLS options)")),
    in_options(client, {
      verfy = "verify", ca_bundel = "ca_bundle", Sni = "sni", handshaketimeout = "handshake_timeout",
    }),
    servers,
    tls.client_together("", function(options) return options end),
    tls.server_together("", with_server),
    {
      case("option 'cert'", FOR_A_SERVER, { cert = "x" }),
      case("option 'key'", FOR_A_SERVER, { key = "x", server = false }),
      case("option 'tls'", "TLS options stand in this table itself", { tls = true }),
      case("argument #1", "cert is missing: the path of a certificate, or PEM text", { server = true }),
      case("argument #1", "key is missing: the path of the certificate's key, or PEM text",
        { server = true, cert = "x" }),
    }
  )
end

return tls
