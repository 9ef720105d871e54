-- The scripts of the original description, as written apart from host names and ports.

local peers = require("support.peers")
local support = require("support")
local transports = require("support.transports")

--- Runs a script against a peer: HOST and PORT in it are the peer's.
local function run_against(peer, script, prefix)
  script = script:gsub("HOST", '"' .. peer.host .. '"'):gsub("PORT", tostring(peer.port))
  return support.child(script, prefix), peer
end

local function run(script, ...)
  return run_against(peers.start(...), script)
end

-- Has the tests' authority for the system's store.
local TRUSTING = "SSL_CERT_FILE=" .. transports.CLIENT.ca_bundle

--- The same against a server that speaks TLS and is verified.
local function run_over_tls(script, ...)
  return run_against(transports.tls.start(...), script, TRUSTING)
end

--- Asserts that the peer of the script that updates got its packet.
local function assert_update(peer)
  local got = peer:got()
  assert.equal(#got - 4, got:byte(4))
  local sent = require("tcp.core").json.decode(got:sub(5))
  assert.equal("update", sent.command)
  assert.same({ 10, 20, 30 }, { sent.values[1], sent.values[2], sent.values[3] })
end

describe("the description's script", function()
  it("connects without and with a timeout", function()
    assert.equal("connected\nconnected\n", (run([[
      local tcp = require("tcp")
      local conn = tcp.connect(HOST, PORT)
      print("connected")
      conn:close()
      conn = tcp.connect(HOST, PORT, 10)
      print("connected")
      conn:close()
    ]], "accept", "accept", "drain")))
  end)

  it("uses the global send and recv after connect", function()
    local output, peer = run([[
      require("tcp")
      connect(HOST, PORT)
      send("Hello, server!")
      print(recv())
    ]], "accept", { "read", 14 }, { "send", "Hello, client!" }, "drain")
    assert.equal("Hello, client!\n", output)
    assert.equal("Hello, server!", peer:got())
  end)

  it("reads everything with read_str", function()
    assert.equal("one two three\n", (run([[
      local tcp = require("tcp")
      local conn = tcp.connect(HOST, PORT)
      print(conn:read_str())
      conn:close()
    ]], "accept", { "send", "one two " }, { "sleep", 20 }, { "send", "three" }, "close")))
  end)

  it("reads JSON with read_json", function()
    assert.equal("ok\t3\n", (run([[
      local tcp = require("tcp")
      local conn = tcp.connect(HOST, PORT)
      local data = conn:read_json()
      print(data.status, #data.values)
      conn:close()
    ]], "accept", { "send", '{"status": "ok", "values": [1, 2, 3]}' }, "close")))
  end)

  it("exchanges JSON packets", function()
    local output, peer = run([[
      local tcp = require("tcp")
      local conn = tcp.connect(HOST, PORT)
      conn:write_json_packet({ command = "update", values = { 10, 20, 30 } })
      local response = conn:read_json_packet()
      print(response.status)
      conn:close()
    ]], "accept", { "send", '\0\0\0\15{"status":"ok"}' }, "drain")
    assert.equal("ok\n", output)
    assert_update(peer)
  end)

  it("exchanges JSON packets over TLS with a verified server", function()
    local output, peer = run_over_tls([[
      local tcp = require("tcp")
      local conn = tcp.connect_tls(HOST, PORT, 10)
      conn:write_json_packet({ command = "update", values = { 10, 20, 30 } })
      local response = conn:read_json_packet()
      print(response.status)
      conn:close()
    ]], "accept", { "send", '\0\0\0\15{"status":"ok"}' }, "drain")
    assert.equal("ok\n", output)
    assert_update(peer)
  end)

  it("uses the global send and recv after connect_tls", function()
    local output, peer = run_over_tls([[
      require("tcp")
      connect_tls("localhost", PORT, 10)
      send("Hello, server!")
      print(recv())
    ]], "accept", { "read", 14 }, { "send", "Hello, client!" }, "drain")
    assert.equal("Hello, client!\n", output)
    assert.equal("Hello, server!", peer:got())
  end)

  it("sends nothing to a server that cannot be verified", function()
    local peer = peers.start({ "--tls", "stranger" }, "accept", "drain")
    local output = run_against(peer, [[
      local tcp = require("tcp")
      local conn, err = tcp.try_connect_tls(HOST, PORT, 10)
      print(conn, err.kind, err.stage)
    ]], TRUSTING)
    assert.equal("nil\tcertificate\thandshake\n", output)
    assert.equal("", peer:got())
  end)

  it("asks a web server and matches the answer", function()
    assert.equal("Status: 200\n", (run([[
      require("tcp")
      connect(HOST, PORT)
      send("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
      local response = recv()
      local status = response:match("HTTP/%d%.%d (%d+)")
      print("Status: " .. status)
    ]], "accept", { "send", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }, "drain")))
  end)

  it("catches an error that can be printed and concatenated", function()
    local output = support.child([[
      require("tcp")
      local ok, err = pcall(connect, "127.0.0.1", 1, 5)
      print(ok, err)
      print("Connection failed: " .. err)
    ]])
    assert.matches("^false\t[^\n]*:2: connect 127.0.0.1:1: connection refused\n"
      .. "Connection failed: [^\n]*:2: connect 127.0.0.1:1: connection refused\n$", output)
  end)
end)
