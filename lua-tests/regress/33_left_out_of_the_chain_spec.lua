-- An authority that a revocation list names was believed where it stands in ca_bundle and the server leaves it out of
-- its chain: webpki does not look at whom it trusts.

local certificates = require("support.certificates")
local matrix = require("support.matrix")

it("a revoked authority's certificates are refused although it is in the bundle and was not sent", function()
  local chain = certificates.contents(matrix.file("of-revoked"))
  local leaf = chain:match("^.-END CERTIFICATE%-%-%-%-%-\n")
  assert.is_true(#leaf < #chain)
  for _, cert in ipairs { chain, leaf } do
    local server = matrix.serve("of-revoked", { cert = cert })
    local bundle = matrix.text("pem", "ca", "revoked-ca")
    matrix.accepts(server, { ca_bundle = bundle })
    matrix.refuses(server, { ca_bundle = bundle, crl = matrix.text("crl", "ca") })
    server.stop()
  end
end)
