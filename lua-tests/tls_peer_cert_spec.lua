-- What peer_cert() says, compared with what openssl says of the same file.

local certificates = require("support.certificates")
local matrix = require("support.matrix")
local tcp = require("tcp.core")
local transports = require("support.transports")
local waits = require("support.waits")

local file, showing = matrix.file, matrix.showing
local PATIENCE = 10

after_each(certificates.remove_files)

--- A test that leaves nothing behind before its descriptors are counted.
local function test(name, body)
  it(name, waits.cleanly(body))
end

local function openssl(name, words)
  local process = assert(io.popen("openssl x509 -in " .. file(name) .. " " .. words, "r"))
  local output = process:read("*a")
  process:close()
  return output
end

local EPOCH = 2440588

--- Unix seconds of `2026-11-20 14:00:19Z`, by the Julian day.
local function unix(moment)
  local year, month, day, hour, minute, second = moment:match("^(%d+)-(%d+)-(%d+) (%d+):(%d+):(%d+)Z$")
  local shift = math.floor((14 - month) / 12)
  local y, m = year + 4800 - shift, month + 12 * shift - 3
  local julian = day + math.floor((153 * m + 2) / 5) + 365 * y + math.floor(y / 4) - math.floor(y / 100)
    + math.floor(y / 400) - 32045
  return ((julian - EPOCH) * 24 + hour) * 3600 + minute * 60 + second
end

-- What openssl has short names for, and RFC 4514 (section 3) has not.
local UNNAMED = {
  ["emailAddress=a@b.example"] = "1.2.840.113549.1.9.1=#160b6140622e6578616d706c65",
  ["serialNumber=5"] = "2.5.4.5=#130135", ["SN=Sur"] = "2.5.4.4=#0c03537572", ["GN=Given"] = "2.5.4.42=#0c05476976656e",
  ["title=Dr"] = "2.5.4.12=#0c024472",
}

--- A name as openssl writes it, as this module does: hex digits are lower-case everywhere.
local function rfc_4514(name)
  for theirs, ours in pairs(UNNAMED) do
    name = name:gsub("%f[%w]" .. theirs .. "%f[%W]", ours)
  end
  return (name:gsub("\\%x%x", string.lower):gsub("=#%x+", string.lower))
end

--- What openssl says, in the words of peer_cert(). Names are left to the specs.
local function described(name)
  local text = openssl(name, "-noout -subject -issuer -serial -dates -dateopt iso_8601 -fingerprint -sha256 "
    .. "-nameopt RFC2253,-esc_msb")
  local function field(label)
    return text:match("%f[%w]" .. label .. "=([^\n]*)")
  end
  return {
    subject = rfc_4514(field("subject")),
    issuer = rfc_4514(field("issuer")),
    serial = field("serial"):lower(),
    valid_from = unix(field("notBefore")),
    valid_until = unix(field("notAfter")),
    fingerprint = field("[sS][hH][aA]256 Fingerprint"):gsub(":", ""):lower(),
    der = openssl(name, "-outform der"),
  }
end

--- What a client sees of a server with this certificate.
local function seen(name, tls, by)
  if by == "openssl" then
    local server = matrix.s_server(name, "-cipher", "DEFAULT@SECLEVEL=0")
    local conn = tcp.connect("127.0.0.1", server.port, { tls = tls })
    local cert = conn:peer_cert()
    conn:close()
    server:stop()
    return cert
  end
  local server = matrix.serve(name)
  local conn = waits.opens(tcp.connect("127.0.0.1", server.port, { tls = tls }))
  local cert = conn:peer_cert()
  assert.same(cert, conn:peer_cert())
  conn:close()
  assert.is_nil(conn:peer_cert())
  server.stop()
  return cert
end

local HERE = { "localhost", "127.0.0.1", "::1" }

-- The names that each covers; an empty list if it covers none.
local NAMES = {
  server = HERE, rsa = HERE, chain = HERE, expired = HERE, future = HERE, nameless = {}, stranger = HERE,
  ["self-signed"] = HERE, ["self-end"] = HERE, ["other-name"] = { "other.example", "*.wild.example", "192.0.2.7" },
  rsa3072 = HERE, p384 = HERE, p521 = HERE, ed25519 = HERE, endless = HERE, old = HERE, sha1 = HERE,
  sans = { "one.example", "*.two.example", "192.0.2.1", "2001:db8::a:0:1", "LOUD.example" },
}
for _, name in ipairs { "special", "ends", "world", "control", "unheard", "empty", "bmp", "serial-small", "serial-high",
  "serial-zeroes" } do
  NAMES["odd-" .. name] = { "localhost" }
end

-- What this module's listener does not show.
local BY_OPENSSL = { v1 = {}, rsa1024 = HERE, critical = HERE }

local function is_described(name, names, cert)
  local expected = described(name)
  expected.sans = names
  for key, value in pairs(expected) do
    if type(value) == "table" then
      assert.same(value, cert[key])
    else
      assert(value == cert[key], ("%s of %s: %q expected, got %q"):format(key, name, value, tostring(cert[key])))
    end
  end
  for key in pairs(cert) do
    assert(expected[key] ~= nil, key .. " is not on the page")
  end
  for _, key in ipairs { "valid_from", "valid_until" } do
    assert.equal(math.type and "integer", math.type and math.type(cert[key]))
  end
end

describe("peer_cert says what openssl says", function()
  for name, names in pairs(NAMES) do
    test("of " .. name, function()
      is_described(name, names, seen(name, { verify = false }))
    end)
  end

  for name, names in pairs(BY_OPENSSL) do
    test("of " .. name, function()
      is_described(name, names, seen(name, { verify = false }, "openssl"))
    end)
  end

  test("of what was verified, by each protocol", function()
    for _, protocol in ipairs(matrix.PROTOCOLS) do
      for _ = 1, 3 do
        local tls = { ca_bundle = file("ca"), sni = "localhost", protocols = { protocol } }
        is_described("chain", HERE, seen("chain", tls))
      end
    end
  end)

  test("of the parts of a name, of which some are one", function()
    local cert = seen("odd-parts", { verify = false })
    local function parts(name)
      local all = {}
      -- The order within one is nobody's (RFC 4514, section 2.2).
      for part in name:gmatch("[^,+]+") do
        all[#all + 1] = part
      end
      table.sort(all)
      return all
    end
    local expected = described("odd-parts").subject
    assert.same(parts(expected), parts(cert.subject))
    assert.matches("^[^+]*,[^,+]+%+[^,+]+%+[^,+]+,O=Multi,DC=example,DC=com$", cert.subject)
  end)
end)

describe("peer_cert", function()
  --- Both ends of a connection over TLS, before its handshake; a task completes it for the accepted one.
  local function pair(server_options, client_options)
    local listener = waits.opens(tcp.listen("127.0.0.1", 0, { tls = showing("server", server_options) }))
    local far
    local task = tcp.spawn(function()
      far = waits.opens(listener:accept(PATIENCE))
      assert(far:peer_cert() == nil, "a certificate before the handshake")
      far:handshake()
    end)
    local tls = { ca_bundle = file("ca"), sni = "localhost" }
    for key, value in pairs(client_options or {}) do
      tls[key] = value
    end
    local near = waits.opens(tcp.connect("127.0.0.1", listener:local_port(), { tls = tls }))
    task:join(PATIENCE)
    return near, far
  end

  test("of the client is what the server sees", function()
    for _, name in ipairs { "client", "rsa", "client-chain" } do
      local near, far = pair({ client_ca = file("ca"), client_auth = "required" },
        { client_cert = file(name), client_key = file(name, "key") })
      is_described(name, name == "client-chain" and {} or HERE, far:peer_cert())
      is_described("server", HERE, near:peer_cert())
    end
  end)

  test("is nil on a server whose client has shown none", function()
    for _, options in ipairs { {}, { client_ca = file("ca"), client_auth = "optional" } } do
      local near, far = pair(options)
      assert.is_nil(far:peer_cert())
      assert.equal("CN=localhost", near:peer_cert().subject)
    end
  end)

  test("is nil on a server that has not asked its client", function()
    local _, far = pair({}, { client_cert = file("client"), client_key = file("client", "key") })
    assert.is_nil(far:peer_cert())
  end)

  test("is nil without TLS, and there from start_tls on", function()
    local near, far = waits.pair(transports.plain)
    assert.is_nil(near:peer_cert())
    assert.is_nil(far:peer_cert())
    local options = showing("server")
    options.server = true
    local task = tcp.spawn(far.start_tls, far, options)
    near:start_tls { ca_bundle = file("ca"), sni = "localhost" }
    task:join(PATIENCE)
    is_described("server", HERE, near:peer_cert())
    assert.is_nil(far:peer_cert())
  end)

  test("is nil on an accepted connection before its handshake, and after one that failed", function()
    local conn, client, listener = transports.plain_client()
    assert.is_nil(conn:peer_cert())
    client:write("no TLS\r\n\r\n")
    assert.is_nil((conn:try_handshake()))
    assert.is_nil(conn:peer_cert())
    transports.close_all(conn, client, listener)
  end)

  test("stays when the peer has left, and goes with close", function()
    local near, far = pair()
    far:close()
    assert.is_nil(near:recv(1, { timeout = PATIENCE }))
    is_described("server", HERE, near:peer_cert())
    near:shutdown("both")
    near:close()
    assert.is_nil(near:peer_cert())
  end)

  test("is a table of one's own, each time", function()
    local near = pair()
    local cert = near:peer_cert()
    cert.subject, cert.sans[1] = "changed", "changed"
    is_described("server", HERE, near:peer_cert())
  end)
end)
