-- A client offered sessions to every server of the same name, at whatever address. One that wants another group and
-- another hash than theirs sends a HelloRetryRequest, and rustls's then broke off (missing_extension), because the
-- second hello had no session any more.

local lfs = require("lfs")
local servers = require("support.servers")
local tcp = require("tcp.core")
local transports = require("support.transports")

local certificate = transports.certificate
local HERE = lfs.currentdir() .. "/"

it("a server's sessions are offered to no other server of its name", function()
  local openssl = servers.start("openssl", function(it)
    return { "s_server", "-quiet", "-rev", "-accept", it.host .. ":" .. it.port, "-cert", HERE .. certificate("server"),
      "-key", HERE .. certificate("server", "key"), "-groups", "P-384", "-ciphersuites", "TLS_AES_256_GCM_SHA384" }
  end)
  local options = { tls = { ca_bundle = certificate("ca"), sni = "localhost", alpn = { "regress-31" } } }
  local function ask(port, host)
    local conn = tcp.connect(host or "127.0.0.1", port, options)
    conn:write_line("abc")
    local line, resumed = conn:read_line({ timeout = 5 }), conn:resumed()
    conn:close()
    return line, resumed
  end
  ask(openssl.port)
  local line, resumed = ask(openssl.port)
  openssl:stop()
  assert.equal("cba", line)
  assert.is_true(resumed)

  local listener = tcp.listen("127.0.0.2", openssl.port, {
    tls = { cert = certificate("server"), key = certificate("server", "key") },
  })
  local task = tcp.spawn(function()
    local conn = listener:accept(5)
    local got = conn:read_line({ timeout = 5 })
    conn:write_line(got .. "!")
    conn:close()
  end)
  line, resumed = ask(openssl.port, "127.0.0.2")
  task:join(5)
  listener:close()
  assert.equal("abc!", line)
  assert.is_false(resumed)
end)
