-- Certificates as the world shows them: which are believed, and how the others are called.

local matrix = require("support.matrix")
local certificates = require("support.certificates")

local file, text = matrix.file, matrix.text

after_each(certificates.remove_files)

-- `shows` the certificate, `trusts` what is in ca_bundle (ca, if nothing is said), `asks` for a name (localhost).
local ACCEPTED = {
  { "a good chain", shows = "server" },
  { "its address", shows = "server", asks = "127.0.0.1" },
  { "its IPv6 address", shows = "server", asks = "::1" },
  { "a wildcard for one label", shows = "other-name", asks = "www.wild.example" },
  { "an address among other names", shows = "other-name", asks = "192.0.2.7" },
  { "a chain with an intermediate", shows = "chain" },
  { "RSA 2048", shows = "rsa2048", trusts = "rsa2048-ca" },
  { "RSA 3072", shows = "rsa3072", trusts = "rsa3072-ca" },
  { "RSA of an authority with another kind of key", shows = "rsa" },
  { "P-384", shows = "p384", trusts = "p384-ca" },
  { "P-521", shows = "p521", trusts = "p521-ca" },
  { "Ed25519", shows = "ed25519", trusts = "ed25519-ca" },
  { "a self-signed authority that is in the bundle itself", shows = "self-signed", trusts = "self-signed" },
  { "a self-signed CA:FALSE that is in the bundle itself", shows = "self-end", trusts = "self-end" },
  { "no end (RFC 5280, 4.1.2.5)", shows = "endless" },
  { "a use for clients, too", shows = "both-uses" },
  { "what its authority is limited to", shows = "narrow-good", asks = "www.good.example" },
  { "the address that its authority is limited to", shows = "narrow-good", asks = "10.1.2.3" },
  { "an authority of X.509 version 1", shows = "of-v1", trusts = "v1-ca" },
  { "an authority that others have forbidden names", shows = "server", trusts = "excluding-ca", with = "ca" },
}

local EXPIRED = { "expired on 2020%-01%-02 03:04:05 UTC", "the clock here says %d%d%d%d%-" }

-- `says` patterns of the message.
local REFUSED = {
  { "expired", shows = "expired", says = EXPIRED },
  { "not yet valid", shows = "future", says = { "not valid before 2090%-01%-01 00:00:00 UTC", "the clock here says" } },
  { "of the wrong name", shows = "other-name",
    says = { "not for localhost", "other%.example, %*%.wild%.example, 192%.0%.2%.7" } },
  { "of the wrong address", shows = "server", asks = "127.0.0.2",
    says = { "not for 127%.0%.0%.2", "localhost, 127%.0%.0%.1, ::1" } },
  { "of the wrong IPv6 address", shows = "server", asks = "::2",
    says = { "not for ::2", "localhost, 127%.0%.0%.1, ::1" } },
  { "named in its subject only", shows = "nameless", says = { "not for localhost", "covers no name" } },
  { "of a wildcard over two labels", shows = "other-name", asks = "a.b.wild.example",
    says = { "not for a%.b%.wild%.example", "%*%.wild%.example" } },
  { "of a wildcard over no label", shows = "other-name", asks = "wild.example",
    says = { "not for wild%.example", "%*%.wild%.example" } },
  { "self-signed and not in the bundle", shows = "self-signed", says = { "self%-signed" } },
  { "self-signed, CA:FALSE and not in the bundle", shows = "self-end", says = { "self%-signed" } },
  { "self-signed and in the bundle, of another name", shows = "self-other", trusts = "self-other",
    says = { "not for localhost", "other%.example" } },
  { "self-signed and in the bundle, but expired", shows = "self-expired", trusts = "self-expired", says = EXPIRED },
  { "in the bundle, but expired", shows = "expired", trusts = "expired", says = EXPIRED },
  { "in the bundle, but not yet valid", shows = "future", trusts = "future", says = { "not valid before 2090" } },
  { "in the bundle without a name", shows = "nameless", trusts = "nameless", says = { "covers no name" } },
  { "of an unknown issuer", shows = "stranger", says = { "issuer", "Strange Authority", "not trusted" } },
  { "without its intermediate", shows = "leaf", says = { "issuer", "Intermediate Authority", "not trusted" } },
  { "issued by a CA:FALSE", shows = "by-end", says = { "issuer", "CA:FALSE" } },
  { "an authority's own", shows = "intermediate", says = { "authority's own", "CA:TRUE" } },
  { "issued deeper than an authority may", shows = "deep", says = { "chain is longer" } },
  { "issued by an authority for clients", shows = "of-clients", says = { "not meant for servers" } },
  { "out of the name constraints", shows = "narrow-dns", says = { "name constraints" } },
  { "out of the name constraints by its address", shows = "narrow-ip", asks = "127.0.0.1",
    says = { "name constraints" } },
  { "excluded by the name constraints", shows = "excluded", says = { "name constraints" } },
  { "out of the name constraints of the bundle", shows = "narrow-dns", trusts = "narrow-ca",
    says = { "name constraints" } },
  { "for clients", shows = "client", says = { "not meant for servers" } },
  { "for the signing of code", shows = "signing", says = { "not meant for servers" } },
  { "with something critical that nobody knows", shows = "critical", by = "openssl", says = { "critical" } },
  { "signed by SHA-1", shows = "sha1", says = { "SHA%-?1" } },
  { "issued by an authority that is signed by SHA-1", shows = "of-sha1", says = { "SHA%-?1" } },
  { "of RSA 1024", shows = "rsa1024", by = "openssl", says = { "RSA key", "2048 bits" } },
  { "issued by RSA 1024", shows = "of-rsa1024", says = { "RSA key", "2048 bits" } },
  { "issued by RSA 1024 that is in the bundle", shows = "of-rsa1024", trusts = "rsa1024-ca",
    says = { "RSA key", "2048 bits" } },
  { "of X.509 version 1", shows = "v1", by = "openssl", says = { "version" } },
}

local function start(row)
  if row.by == "openssl" then
    return matrix.s_server(row.shows, "-cipher", "DEFAULT@SECLEVEL=0")
  end
  return matrix.serve(row.shows)
end

--- Calls `check(server, tls, protocol)` for each protocol, with what a row says.
local function each_protocol(row, check)
  local server = start(row)
  local bundle = file(row.trusts or "ca")
  if row.with then
    bundle = text("pem", row.trusts, row.with)
  end
  local ok, err = pcall(function()
    for _, protocol in ipairs(matrix.PROTOCOLS) do
      check(server, { ca_bundle = bundle, sni = row.asks }, protocol)
    end
  end)
  server:stop()
  if not ok then
    error(err, 0)
  end
end

describe("a server's certificate is believed: it has", function()
  for _, row in ipairs(ACCEPTED) do
    it(row[1], function()
      each_protocol(row, matrix.accepts)
    end)
  end
end)

describe("a server's certificate is refused: it is", function()
  for _, row in ipairs(REFUSED) do
    it(row[1], function()
      each_protocol(row, function(server, tls, protocol)
        local message = matrix.refuses(server, tls, protocol)
        matrix.says(message, row.says)
        -- People's words, not a program's insides.
        local words = message:gsub("subjectAltName", "")
        assert.is_true(#words < 250 and not words:find("[{%[]") and not words:find("%u%l+%u%l+"), message)
      end)
    end)
  end
end)

describe("a server's certificate, whatever it is, passes with verify = false: it is", function()
  for _, row in ipairs(REFUSED) do
    it(row[1], function()
      each_protocol(row, function(server, tls, protocol)
        tls.verify = false
        matrix.accepts(server, tls, protocol)
        matrix.accepts(server, { verify = false, sni = "elsewhere.example" }, protocol)
      end)
    end)
  end
end)
