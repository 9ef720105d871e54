-- A session that is resumed rests on a check of certificates that was made earlier: what has run out since then must
-- not be believed for as long as there are tickets, each of which brings the next.

local certificates = require("support.certificates")
local servers = require("support.servers")
local sessions = require("support.sessions")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local certificate, file, fresh, meet = transports.certificate, certificates.file, sessions.fresh, sessions.meet

local CONFIG = [[
[ca]
default_ca = test
[test]
database = %s
new_certs_dir = %s
default_md = sha256
rand_serial = yes
crlnumber = %s
crl_extensions = list
policy = any
unique_subject = no
[list]
authorityKeyIdentifier = keyid
[any]
commonName = supplied
]]

-- Seconds for which what is made is good.
local GOOD = 5

local function authority(words)
  local path = file("ca.cnf", CONFIG:format(file("index", ""), certificates.folder(), file("number", "01")))
  local command = ("openssl ca -batch -notext -config %s -cert %s -keyfile %s %s"):format(path, certificate("ca"),
    certificate("ca", "key"), words)
  assert.is_true(support.succeeds(command), command)
end

--- A certificate of localhost that soon expires, and its key.
local function soon_expired()
  local key, request = certificates.openssl("ecparam -name prime256v1 -genkey -noout", "soon.key"), file("soon.csr")
  assert.is_true(support.succeeds(("openssl req -new -subj /CN=localhost -key %s -out %s"):format(key, request)))
  local ending = os.date("!%Y%m%d%H%M%SZ", os.time() + GOOD)
  local names = file("extensions", "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
  authority(("-in %s -extfile %s -startdate 20200101000000Z -enddate %s -out %s"):format(request, names, ending,
    file("soon.pem")))
  return certificates.contents(file("soon.pem")), certificates.contents(key)
end

local function soon_due()
  authority(("-gencrl -crlsec %d -out %s"):format(GOOD, file("soon.crl")))
  return certificates.contents(file("soon.crl"))
end

--- Begins sessions by both versions, and resumes them; gives their options.
local function begin(listener, more)
  local all = {}
  for i, protocol in ipairs(sessions.VERSIONS) do
    all[i] = fresh(sessions.copy({ protocols = { protocol } }, more))
    sessions.begins(listener, all[i])
  end
  return all
end

--- Asserts that connects fail on `side` (2: the client's, 3: the listener's) because of `reason`.
local function ends(listener, all, side, reason)
  for _, tls in ipairs(all) do
    local results = { meet(listener, tls) }
    assert.is_nil(results[1], tls.protocols[1] .. ": " .. reason)
    assert.equal("certificate", results[side].kind)
    assert.matches(reason, results[side].message)
  end
  listener:close()
end

if not servers.find("openssl") then
  describe("a session whose dates are over", function()
    pending("openssl is not installed: apt-get install openssl")
  end)
  return
end

describe("a session is not resumed", function()
  after_each(certificates.remove_files)

  -- All at once: it takes time.
  it("once the server's certificate, the client's, or the revocation list is past its date", function()
    local cert, key = soon_expired()
    local server = sessions.listen { cert = cert, key = key }
    local revoking = sessions.listen()
    local asking = sessions.listen { client_ca = certificate("ca"), client_auth = "required" }
    local with_server = begin(server)
    local with_list = begin(revoking, { crl = soon_due() })
    local with_client = begin(asking, { client_cert = cert, client_key = key })
    tcp.sleep(GOOD + 1.1)
    ends(server, with_server, 2, "expired on")
    ends(revoking, with_list, 2, "revocation list")
    ends(asking, with_client, 3, "expired on")
  end)
end)
