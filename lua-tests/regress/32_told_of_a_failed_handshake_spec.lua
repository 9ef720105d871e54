-- handshake and start_tls that waited while another step met the handshake's failure were told that all was well.

local support = require("support")
local tasks = require("support.tasks")
local tcp = require("tcp.core")
local transports = require("support.transports")
local upgrades = require("support.upgrades")
local waits = require("support.waits")

local certificate = transports.certificate

describe("a handshake that has failed is told as that", function()
  it("to who waits for it beside a reader", function()
    local listener = tcp.listen("127.0.0.1", 0, { tls = {
      cert = certificate("server"), key = certificate("server", "key"),
      client_ca = certificate("stranger-ca"), client_auth = "required",
    } })
    local client = tcp.spawn(tcp.try_connect, "127.0.0.1", listener:local_port(), { tls = {
      ca_bundle = certificate("ca"), client_cert = certificate("client"), client_key = certificate("client", "key"),
      protocols = { "TLSv1.2" },
    } })
    local conn = listener:accept(5)
    listener:close()
    local reading = tasks.trying(conn, "read_line")
    local shaking = tasks.trying(conn, "handshake")
    local writing = tasks.trying(conn, "write", "")
    tasks.fails("certificate", reading)
    tasks.fails("certificate", shaking)
    tasks.fails("certificate", writing)
    support.fails("tls", client:join(5))
    conn:close()
    waits.see_off()
  end)

  it("to start_tls, where another task shuts the receiving side down", function()
    local near, far = upgrades.tcp.pair()
    local upgrading = tasks.trying(near, "start_tls", { ca_bundle = certificate("stranger-ca"), sni = "localhost" })
    tcp.sleep(0)
    local serving = tasks.trying(far, "start_tls", upgrades.SERVER)
    tcp.sleep(0)
    near:try_shutdown("recv")
    assert.is_not_nil(upgrading:join(5).err)
    assert.is_true(near:is_closed())
    serving:join(5)
    far:close()
    waits.see_off()
  end)
end)
