local tcp = require("tcp.core")
local peers = require("support.peers")
local support = require("support")

local fails = support.fails

-- A label of more than 63 bytes: the resolver refuses it without asking anybody.
local UNKNOWN = ("x"):rep(64)

--- A port of 127.0.0.1 where nobody listens.
local function refusing_port()
  local peer = peers.start("accept")
  peer:finish()
  return peer.port
end

local function echoes(conn)
  conn:write("ping")
  assert.equal("ping", conn:read(4))
  conn:close()
end

describe("connect", function()
  it("takes names, literals and brackets", function()
    for _, host in ipairs { "localhost", "127.0.0.1" } do
      echoes(tcp.connect(host, peers.start("accept", "echo").port))
    end
    for _, host in ipairs { "::1", "[::1]" } do
      local peer = peers.start("--ipv6", "accept", "echo")
      local conn = tcp.connect(host, peer.port)
      assert.equal("[::1]:" .. peer.port, conn:remote_addr())
      assert.equal(host, conn:host())
      echoes(conn)
    end
  end)

  it("takes the port as Lua's functions take numbers", function()
    local peer = peers.start("accept", "echo")
    echoes(tcp.connect("127.0.0.1", tostring(peer.port)))
    peer = peers.start("accept", "echo")
    echoes(tcp.connect("127.0.0.1", peer.port + 0.0, "5"))
  end)

  it("takes unix sockets, which have no port", function()
    local path = os.tmpname()
    os.remove(path)
    peers.start("--unix", path, "accept", "echo")
    local conn = tcp.connect("unix:" .. path)
    assert.equal("unix:" .. path, conn:host())
    assert.equal("unix:" .. path, conn:remote_addr())
    assert.equal("unix:", conn:local_addr())
    assert.is_nil(conn:port())
    assert.is_nil(conn:local_port())
    assert.equal("Connection (unix:" .. path .. ")", tostring(conn))
    echoes(conn)
    os.remove(path)
  end)

  it("to a unix path where nobody listens is refused", function()
    local err = fails("refused", tcp.try_connect("unix:/no/such/socket"))
    assert.equal("connect unix:/no/such/socket: no such file or directory", tostring(err))
  end)

  it("is refused where nobody listens", function()
    local port = refusing_port()
    local err = fails("refused", tcp.try_connect("127.0.0.1", port))
    assert.equal("connect", err.op)
    assert.equal("127.0.0.1:" .. port, err.peer)
    assert.equal("connect", err.stage)
    assert.equal("connection refused", err.message)
    assert.is_number(err.errno)
    err = fails("refused", tcp.try_connect("localhost", port))
    assert.equal("localhost:" .. port, err.peer)
  end)

  it("fails with resolve for an unknown name", function()
    local err = fails("resolve", tcp.try_connect(UNKNOWN, 80))
    assert.equal("resolve", err.stage)
    assert.equal(UNKNOWN .. ":80", err.peer)
    assert.matches("^the name cannot be resolved %(", err.message)
  end)

  it("times out where nobody answers, within its time, and says at which stage", function()
    local peer = peers.start("--silent")
    for _, third in ipairs { 0.3, { timeout = 0.3 } } do
      local began = tcp.now()
      local err = fails("timeout", tcp.try_connect(peer.host, peer.port, third))
      local taken = tcp.now() - began
      assert.is_true(taken >= 0.3 and taken < 1.5, "took " .. taken)
      assert.equal("connect", err.stage)
      assert.equal("timed out while connecting", err.message)
    end
  end)

  it("counts resolving into its time", function()
    if not support.succeeds("unshare -m true") then
      return pending("a resolver that never answers needs a mount namespace of its own (root)")
    end
    local address = "127.99.99.99"
    peers.start("--silent-dns", address)
    local output = support.with_nameserver(address, function(prefix)
      return support.child([[
        local tcp = require("tcp.core")
        local began = tcp.now()
        local _, err = tcp.try_connect("slow.example", 80, 0.3)
        local taken = tcp.now() - began
        print(err.kind, err.stage, err, taken >= 0.3 and taken < 2)
      ]], prefix)
    end)
    assert.equal("timeout\tresolve\tconnect slow.example:80: timed out while resolving the name\ttrue\n", output)
  end)

  it("fails with unreachable where there is no route", function()
    if not support.succeeds("unshare -n true") then
      return pending("a network without routes needs a network namespace of its own (root)")
    end
    -- In a network namespace of its own even the loopback interface is down.
    assert.equal("unreachable\tconnect\tconnect 127.0.0.1:80: network is unreachable\n", support.child([[
      local _, err = require("tcp").try_connect("127.0.0.1", 80)
      print(err.kind, err.stage, err)
    ]], "unshare -n"))
  end)

  it("fails with system when descriptors run out, and works again when there are some", function()
    local peer = peers.start("accept", "again")
    assert.equal("system\ttoo many open files\nsystem\tresolve\nconnected\n", support.child(([[
      local tcp = require("tcp")
      local held = {}
      while true do
        local conn, err = tcp.try_connect("127.0.0.1", %d)
        held[#held + 1] = conn
        if err then
          print(err.kind, err.message)
          break
        end
      end
      local _, err = tcp.try_connect("localhost", %d)
      print(err.kind, err.stage)
      table.remove(held):close()
      table.remove(held):close()
      if tcp.connect("127.0.0.1", %d) then
        print("connected")
      end
    ]]):format(peer.port, peer.port, peer.port), "ulimit -n 30;"))
  end)

  it("can be bound to a local address, with or without a port", function()
    local conn = tcp.connect("127.0.0.1", peers.start("accept", "echo").port, { bind = "127.0.0.9" })
    assert.equal("127.0.0.9", conn:local_host())
    echoes(conn)
    conn = tcp.connect("localhost", peers.start("accept", "echo").port, { bind = "127.0.0.8:0" })
    assert.equal("127.0.0.8", conn:local_host())
    echoes(conn)
    local err = fails("resolve", tcp.try_connect("127.0.0.1", 80, { bind = "::1" }))
    assert.equal("the host has no address of the family of 'bind'", err.message)
    fails("system", tcp.try_connect("127.0.0.1", 80, { bind = "192.0.2.1" }))
  end)

  it("keeps to the family asked for", function()
    fails("resolve", tcp.try_connect("127.0.0.1", 80, { family = "ipv6" }))
    local conn = tcp.connect("localhost", peers.start("accept", "echo").port, { family = "ipv4" })
    assert.equal("127.0.0.1", conn:remote_addr():match("^[^:]+"))
    echoes(conn)
  end)

  it("with no time at all succeeds, or is refused, where no wait is needed", function()
    local peer = peers.start("accept", "stall")
    tcp.connect("127.0.0.1", peer.port, 0):close()
    fails("refused", tcp.try_connect("127.0.0.1", refusing_port(), 0))
    local silent = peers.start("--silent")
    fails("timeout", tcp.try_connect(silent.host, silent.port, 0))
  end)

  it("waits for its caller in a coroutine, too", function()
    local peer = peers.start("accept", { "sleep", 20 }, { "send", "hello\n" }, "close")
    local line = coroutine.wrap(function()
      local conn = tcp.connect("localhost", peer.port)
      local line = conn:read_line()
      conn:close()
      return line
    end)()
    assert.equal("hello", line)
  end)

  it("tries a unix socket again while its backlog is full", function()
    local path = os.tmpname()
    os.remove(path)
    peers.start("--unix", path, { "sleep", 200 }, "accept", "echo")
    echoes(tcp.connect("unix:" .. path))
    os.remove(path)
  end)

  it("leaves no descriptor behind when it fails, not even until garbage is collected", function()
    local silent, port = peers.start("--silent"), refusing_port()
    local before = peers.descriptors()
    collectgarbage("stop")
    finally(function()
      collectgarbage("restart")
    end)
    for _ = 1, 20 do
      fails("refused", tcp.try_connect("127.0.0.1", port))
      fails("timeout", tcp.try_connect(silent.host, silent.port, 0.001))
      fails("resolve", tcp.try_connect(UNKNOWN, 1))
      assert.equal(before, peers.descriptors())
    end
  end)
end)
