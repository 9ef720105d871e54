-- The client option crl: lists of certificates that their authorities have taken back.

local lfs = require("lfs")
local support = require("support")
local certificates = require("support.certificates")
local matrix = require("support.matrix")
local tcp = require("tcp.core")

local fails = support.fails
local fill, temporary = certificates.fill, certificates.file
local file, text = matrix.file, matrix.text
local connect, accepts, refuses, says = matrix.connect, matrix.accepts, matrix.refuses, matrix.says
local CA = file("ca")
local unpack = table.unpack or unpack

local server

local function start(name)
  server = matrix.serve(name)
end

local function trusting(crl, bundle)
  return { ca_bundle = bundle or CA, crl = crl }
end

--- A test that ends its server before its descriptors are counted.
local function test(name, body)
  it(name, function()
    local ok, err = pcall(body)
    if server then
      server:stop()
      server = nil
    end
    if not ok then
      error(err, 0)
    end
  end)
end

after_each(certificates.remove_files)

local REVOKED = { "revocation list" }
local OLD = { "revocation list", "2020%-01%-02 03:04:05 UTC" }

-- `shows` the certificate and is given these lists as the text of one.
local PASSED = {
  { "on no list", shows = "server", "ca" },
  { "on a list that is not given", shows = "revoked", "none" },
  { "of an authority without a list", shows = "chain", "stranger" },
  { "of an authority without a list, and its authority on none", shows = "chain", "ca" },
  { "on none of several lists", shows = "chain", "stranger", "ca", "stranger" },
}

-- The message `says` these patterns.
local REFUSED = {
  { "on the list", shows = "revoked", "ca", says = REVOKED },
  { "on the first of several lists", shows = "revoked", "ca", "stranger", "intermediate", says = REVOKED },
  { "on the last of several lists", shows = "revoked", "intermediate", "stranger", "ca", says = REVOKED },
  { "on the second of two lists of its authority", shows = "revoked", "none", "ca", says = REVOKED },
  { "on the list of its intermediate authority", shows = "chain", "intermediate", says = REVOKED },
  { "on one list of two that cover its chain", shows = "chain", "ca", "intermediate", says = REVOKED },
  { "of an authority on the list", shows = "of-revoked", "ca", says = REVOKED },
  { "on no list but an expired one", shows = "server", "expired", says = OLD },
  { "on no list, but one of two has expired", shows = "server", "none", "expired", says = OLD },
  { "on an expired list", shows = "revoked", "expired", says = OLD },
  { "on a list that its authority did not sign", shows = "server", "impostor", says = { "list" } },
}

describe("with tls.crl a certificate passes that is", function()
  for _, case in ipairs(PASSED) do
    test(case[1], function()
      start(case.shows)
      for _, protocol in ipairs(matrix.PROTOCOLS) do
        accepts(server, trusting(text("crl", unpack(case, 2))), protocol)
      end
    end)
  end
end)

describe("with tls.crl a certificate is refused that is", function()
  for _, case in ipairs(REFUSED) do
    test(case[1], function()
      start(case.shows)
      local lists = text("crl", unpack(case, 2))
      for _, protocol in ipairs(matrix.PROTOCOLS) do
        local message = refuses(server, trusting(lists), protocol)
        says(message, case.says)
        assert.is_true(#message < 250 and not message:find("%u%l+%u%l+"), message)
        accepts(server, { verify = false, crl = lists }, protocol)
      end
    end)
  end

  test("in the bundle itself, and on the list of an authority in there", function()
    start("revoked")
    says(refuses(server, trusting(file("ca", "crl"), text("pem", "revoked", "ca"))), REVOKED)
    accepts(server, trusting(file("none", "crl"), text("pem", "revoked", "ca")))
  end)
end)

describe("tls.crl", function()
  test("is a path, or the text of PEM, as people keep it", function()
    start("revoked")
    local list = text("crl", "ca")
    for _, crl in ipairs {
      file("ca", "crl"), list, (list:gsub("\n", "\r\n")), "\239\187\191" .. list, "# a list\n\n" .. list .. "\nend\n",
      text("pem", "ca") .. list, temporary("several.crl", "One:\n" .. text("crl", "stranger") .. "\nTwo:\n" .. list),
    } do
      says(refuses(server, trusting(crl)), REVOKED)
    end
  end)

  test("is the system's authorities' affair, too", function()
    -- A process of its own: the system's authorities are read once.
    local peer = certificates.serve("server")
    local output = support.child(([[
      local tcp = require("tcp")
      for _, crl in ipairs { "%s", "%s" } do
        local conn, err = tcp.try_connect("127.0.0.1", %d, { tls = { sni = "localhost", crl = crl } })
        print(conn and "passed" or err.kind)
        if conn then
          conn:close()
        end
      end
    ]]):format(file("ca", "crl"), file("expired", "crl"), peer.port), "env -u SSL_CERT_DIR SSL_CERT_FILE=" .. CA
      .. " timeout 10")
    assert.equal("passed\ncertificate\n", output)
  end)

  test("is read again by the next connect when the file has changed, and no session goes on from before", function()
    start("revoked")
    local path = temporary("list.crl")
    for _, protocol in ipairs(matrix.PROTOCOLS) do
      fill(path, text("crl", "none"))
      accepts(server, trusting(path), protocol)
      accepts(server, trusting(path), protocol)
      fill(path, text("crl", "ca"))
      says(refuses(server, trusting(path), protocol), REVOKED)
      says(refuses(server, trusting(path), protocol), REVOKED)
      fill(path .. ".new", text("crl", "none"))
      assert(os.rename(path .. ".new", path))
      accepts(server, trusting(path), protocol)
      os.remove(path)
      assert.equal(2, fails("system", connect(server, trusting(path), protocol)).errno)
    end
  end)

  test("is read again although the new content is as long and as old", function()
    start("revoked")
    local before, after = text("crl", "none"), text("crl", "ca")
    local length = math.max(#before, #after)
    local path = temporary("list.crl", before .. ("\n"):rep(length - #before))
    lfs.touch(path, 1e9, 1e9)
    accepts(server, trusting(path))
    fill(path, after .. ("\n"):rep(length - #after))
    lfs.touch(path, 1e9, 1e9)
    says(refuses(server, trusting(path)), REVOKED)
  end)

  test("keeps the sessions of connects with it and without it apart", function()
    start("revoked")
    for _, protocol in ipairs(matrix.PROTOCOLS) do
      for _ = 1, 2 do
        accepts(server, trusting(), protocol)
        says(refuses(server, trusting(file("ca", "crl")), protocol), REVOKED)
        accepts(server, trusting(file("none", "crl")), protocol)
      end
    end
  end)

  test("of version 1 is told to be of no use, in words", function()
    local path = file("version-1", "crl")
    if not support.succeeds("openssl crl -noout -text -in " .. path .. " | grep 'Version 1 '") then
      return pending("this openssl makes no lists of version 1")
    end
    start("server")
    local err = fails("tls", connect(server, trusting(path)))
    says(err.message, { "^crl '" .. path:gsub("%p", "%%%0") .. "'", "version" })
    assert.is_nil(err.message:find("%u%l+%u%l+"), err.message)
  end)

  test("is asked by start_tls, too", function()
    start("revoked")
    local conn = tcp.connect("127.0.0.1", server.port)
    local err = fails("certificate", conn:try_start_tls { ca_bundle = CA, crl = file("ca", "crl"), sni = "localhost" })
    says(err.message, REVOKED)
    conn:close()
  end)
end)
