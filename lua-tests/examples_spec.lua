-- Each example is run as its users run it. One without a spec makes the last test fail.

local lfs = require("lfs")
local examples = require("support.examples")
local peers = require("support.peers")
local servers = require("support.servers")
local support = require("support")
local transports = require("support.transports")
local tcp = require("tcp.core")

local unpack = table.unpack or unpack

local seen = {}

-- Those that other specs run.
local SERVERS, CLIENTS = "lua-tests/examples_servers_spec.lua", "lua-tests/examples_clients_spec.lua"
local DATAGRAMS = "lua-tests/examples_udp_spec.lua"
local ELSEWHERE = {
  ["chat_tls.lua"] = SERVERS,
  ["json_rpc.lua"] = SERVERS,
  ["proxy.lua"] = SERVERS,
  ["reuse_port.lua"] = SERVERS,
  ["dns_query.lua"] = DATAGRAMS,
  ["download.lua"] = CLIENTS,
  ["fallback.lua"] = CLIENTS,
  ["game_ping.lua"] = DATAGRAMS,
  ["mysql_greeting.lua"] = CLIENTS,
  ["postgresql_query.lua"] = "lua-tests/servers/postgresql_spec.lua",
  ["smtp_send.lua"] = "lua-tests/servers/smtp_spec.lua",
}

--- Runs an example with arguments and gives what it printed.
local function run(name, ...)
  seen[name] = true
  return examples.run(name, { ... })
end

--- Calls `use` with the port of an example that listens on a port of its own until it is ended.
local function with_server(name, words, use)
  seen[name] = true
  examples.serving(name, { "127.0.0.1", 0, unpack(words) }, use)
end

--- Starts an example whose input is what a command of the shell prints; gives its output as a file.
local function run_with_input(command, name, ...)
  seen[name] = true
  return io.popen(("{ %s; } | %s examples/%s %s 2>&1"):format(command, support.LUA, name,
    table.concat({ ... }, " ")), "r")
end

describe("the example", function()
  it("demo shows the main job", function()
    local output = run("demo.lua")
    assert.matches("all is as it should be\n$", output)
    assert.matches("write and read JSON packets +{", output)
    assert.matches("a hundred clients at the same time +100 answers\n", output)
  end)

  it("http_get asks for a page with the legacy globals", function()
    local request = "GET /index HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    local answer = "HTTP/1.0 200 All fine\r\nA: b\r\n\r\n<p>hello</p>"
    local peer = peers.start("accept", { "read", #request }, { "send", answer }, "close")
    assert.equal("HTTP 1.0, status 200 (All fine), 12 bytes\n", run("http_get.lua", peer.host, peer.port, "/index"))
    assert.equal(request, peer:got())
  end)

  it("https_get asks for a page over TLS, and says whom it does not trust", function()
    local ca, answer = "build/certificates/ca.pem", "HTTP/1.0 200 Fine\r\nA: b\r\n\r\n<p>hello</p>"
    local request = "GET /index HTTP/1.0\r\nHost: localhost\r\n\r\n"
    local peer = peers.start({ "--tls", "server" }, "accept", { "read", #request }, { "send", answer }, "close")
    local output = run("https_get.lua", "localhost", peer.port, "/index", ca)
    assert.equal("200 Fine, 23 bytes of headers, 12 bytes of body\n", output)
    assert.equal(request, peer:got())

    peer = peers.start({ "--tls", "expired" }, "accept", "stall")
    output = run("https_get.lua", "localhost", peer.port, "/", ca)
    assert.matches("^do not trust it: connect_tls localhost:%d+: the certificate expired on 2020%-01%-02 03:04:05 UTC",
      output)

    peer = peers.start({ "--tls", "server" }, "accept", { "skip", #request }, { "send", answer }, "cut")
    assert.matches("read_str localhost:%d+: the stream ended without TLS's closing alert",
      run("https_get.lua", "localhost", peer.port, "/index", ca))
  end)

  it("check_tls asks many at the same time", function()
    local targets, expected = {}, {}
    for i, name in ipairs { "server", "expired", "stranger" } do
      targets[i] = "localhost:" .. peers.start({ "--tls", name }, "accept", "drain").port
      local verdicts = { "ok", "certificate: the certificate expired", "certificate: the certificate's issuer" }
      expected[i] = { targets[i], verdicts[i] }
    end
    local output = run("check_tls.lua", "--ca", "build/certificates/ca.pem", unpack(targets))
    local lines = output:gmatch("([^\n]*)\n")
    for _, line in ipairs(expected) do
      assert.equal(("%-30s %s"):format(line[1], line[2]), lines():sub(1, 31 + #line[2]))
    end
    assert.equal("exit 1", lines())
  end)

  it("http_get says so when the answer is not HTTP", function()
    local peer = peers.start("accept", { "send", "SSH-2.0\r\n" }, "shutdown", "drain")
    assert.equal("that is not an HTTP answer\nexit 1\n", run("http_get.lua", peer.host, peer.port))
  end)

  it("json_request sends a packet and prints the answer", function()
    local peer = peers.start("accept", { "send", '\0\0\0\11{"ok":true}' }, "drain")
    assert.equal('{\n  "ok": true\n}\n', run("json_request.lua", peer.host, peer.port, "stop"))
    assert.matches('"command":"stop"', peer:got())
  end)

  it("json_request says why there is no answer", function()
    local peer = peers.start("accept", "shutdown", "drain")
    assert.matches("^no answer: read_json_packet 127.0.0.1:%d+: closed by the peer\nexit 1\n$",
      run("json_request.lua", peer.host, peer.port))
  end)

  it("redis_client prints every kind of reply", function()
    local replies = {
      ["+OK\r\n"] = "OK\n", [":42\r\n"] = "42\n", ["-ERR no\r\n"] = "error: ERR no\n", ["$-1\r\n"] = "(nil)\n",
      ["$3\r\na\nb\r\n"] = "a\nb\n", ["*2\r\n$1\r\na\r\n:1\r\n"] = "a\n1\n",
    }
    for reply, printed in pairs(replies) do
      local peer = peers.start("accept", { "send", reply }, "drain")
      assert.equal(printed, run("redis_client.lua", peer.host, peer.port, "GET", "key"))
      assert.equal("*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", peer:got())
    end
  end)

  it("echo_server speaks TLS if it has a certificate", function()
    local over = transports.tls
    with_server("echo_server.lua", { transports.SERVER.cert, transports.SERVER.key }, function(port)
      local conn = over.tcp.connect("127.0.0.1", port)
      conn:write_line("hello")
      assert.equal("hello", conn:read_line())
      conn:close()
    end)
  end)

  it("echo_server echoes lines to everybody who comes", function()
    with_server("echo_server.lua", {}, function(port)
      local conns = {}
      for i = 1, 5 do
        conns[i] = tcp.connect("127.0.0.1", port)
        conns[i]:write_line("hello " .. i)
      end
      for i = 5, 1, -1 do
        assert.equal("hello " .. i, conns[i]:read_line({ timeout = 5 }))
        conns[i]:close()
      end
    end)
  end)

  it("chat_client and chat_server carry what is typed to all the others", function()
    with_server("chat_server.lua", {}, function(port)
      local ann = tcp.connect("127.0.0.1", port, { read_timeout = 5 })
      ann:write_json_packet({ name = "ann" })
      -- The keyboard of the client is a pipe that stays open until both have spoken.
      local bob = run_with_input("printf 'hello\\nall\\n'; sleep 1", "chat_client.lua", "bob", "127.0.0.1", port)
      assert.same({ name = "bob", text = "has come" }, ann:read_json_packet())
      ann:write_json_packet({ text = "hello bob" })
      assert.same({ name = "bob", text = "hello" }, ann:read_json_packet())
      assert.same({ name = "bob", text = "all" }, ann:read_json_packet())
      assert.equal("ann: hello bob\n", bob:read("*a"))
      bob:close()
      assert.same({ name = "bob", text = "has gone" }, ann:read_json_packet())
      ann:close()
    end)
  end)

  it("chat_server outlives clients that talk nonsense", function()
    with_server("chat_server.lua", {}, function(port)
      for _, nonsense in ipairs { "", "\0\0\0\3abc", "\255\255\255\255", "\0\0\0\2{}", "\0\0\0\4null" } do
        local conn = tcp.connect("127.0.0.1", port)
        conn:write(nonsense)
        conn:shutdown("send")
        assert.equal("", conn:read_str({ timeout = 5 }))
        conn:close()
      end
    end)
  end)

  it("chat_server lets nobody say what does not fit in the packets of the others", function()
    with_server("chat_server.lua", {}, function(port)
      local function join(name)
        local conn = tcp.connect("127.0.0.1", port, { read_timeout = 10 })
        conn:write_json_packet({ name = name })
        return conn
      end
      local ann = join("ann")
      local bob = join("bob")
      assert.same({ name = "bob", text = "has come" }, ann:read_json_packet())

      local long = join(("x"):rep(4080))
      assert.equal("", long:read_str())
      bob:write_json_packet({ text = ("\1"):rep(600) })
      assert.same({ name = "bob", text = ("\1"):rep(600) }, ann:read_json_packet())
      bob:write_json_packet({ text = ("x"):rep(4080) })
      assert.equal("", bob:read_str())
      assert.same({ name = "bob", text = "has gone" }, ann:read_json_packet())

      local evil = join(("\1"):rep(20))
      assert.same({ name = ("\1"):rep(20), text = "has come" }, ann:read_json_packet())
      evil:write_json_packet({ text = ("\1"):rep(600) })
      assert.same({ name = ("\1"):rep(20), text = ("\1"):rep(600) }, ann:read_json_packet())
      for _, conn in ipairs { ann, bob, long, evil } do
        conn:close()
      end
    end)
  end)

  it("check_ports tries 200 ports at the same time", function()
    local listener = tcp.listen("127.0.0.1", 0)
    local first = math.min(listener:local_port(), 65535 - 199)
    local began = tcp.now()
    local output = run("check_ports.lua", "127.0.0.1", first, first + 199)
    assert.is_true(tcp.now() - began < 5)
    assert.matches("127%.0%.0%.1:" .. listener:local_port() .. " is open\n", output)
    local total = 0
    for count in output:gmatch("\n?(%d+) %l+\n") do
      total = total + tonumber(count)
    end
    assert.equal(200, total, output)
    listener:close()
  end)

  it("redis_tasks asks from a hundred tasks over one connection", function()
    if not servers.find("redis-server") then
      return pending("redis-server is not installed: apt-get install redis-server")
    end
    local server = servers.start("redis-server", function(it)
      return { "--port", it.port, "--bind", it.host, "--save", "", "--dir", it.dir }
    end)
    local output = run("redis_tasks.lua", server.host, server.port, 100)
    server:stop()
    assert.equal("100 tasks over one connection, sum of their squares: 338350\n", output)
  end)

  it("check_port tells what is wrong", function()
    local peer = peers.start("accept", "stall")
    assert.matches("^127.0.0.1:%d+ answers after [%d.]+ ms\n$", run("check_port.lua", peer.host, peer.port))
    peer:finish()
    assert.matches("^nobody listens there: connect .*: connection refused\nexit 1\n$",
      run("check_port.lua", peer.host, peer.port))
    local silent = peers.start("--silent")
    assert.matches("^no answer at stage connect: .*\nexit 2\n$", run("check_port.lua", silent.host, silent.port, 0.2))
    assert.matches("^resolve: .*\nexit 3\n$", run("check_port.lua", ("x"):rep(64), 80))
  end)
end)

describe("an example that fails of what it did not expect", function()
  for name, words in pairs {
    ["chat_client.lua"] = { "ann" }, ["http_get.lua"] = {}, ["json_request.lua"] = {}, ["redis_client.lua"] = {},
    ["redis_tasks.lua"] = {},
  } do
    it("says of what, and exits with 1: " .. name, function()
      local listener = tcp.listen("127.0.0.1", 0)
      local port = listener:local_port()
      listener:close()
      words[#words + 1], words[#words + 2] = "127.0.0.1", port
      local output = examples.run(name, words)
      assert.matches("connect 127%.0%.0%.1:%d+: connection refused\nstack traceback:\n.*\nexit 1\n$", output)
    end)
  end

  it("such as listening where it cannot", function()
    for _, name in ipairs { "chat_server.lua", "echo_server.lua" } do
      local output = examples.run(name, { "192.0.2.1", 7 })
      assert.matches("listen 192%.0%.2%.1:7: .*\nstack traceback:\n.*\nexit 1\n$", output)
    end
  end)
end)

describe("every example", function()
  it("has its spec", function()
    for name in lfs.dir("examples") do
      if name:match("%.lua$") then
        local elsewhere = ELSEWHERE[name]
        assert.is_true(seen[name] or elsewhere and examples.is_run_by(elsewhere, name), name .. " is not run")
      end
    end
  end)
end)
