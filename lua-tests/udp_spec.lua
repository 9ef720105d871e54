local tcp = require("tcp.core")
local peers = require("support.peers")
local support = require("support")
local udp = require("support.udp")
local waits = require("support.waits")

local fails, raises = support.fails, support.raises
local opens, cleanly = waits.opens, waits.cleanly
local HOSTS, MOMENT = udp.HOSTS, udp.MOMENT

-- The operations that need an open socket, with arguments.
local OPERATIONS = {
  { "send", "x" }, { "send_to", "x", "127.0.0.1", 9 }, { "recv" }, { "recv", 1, 0 }, { "recv_from" },
  { "set_option", "broadcast", true }, { "get_option", "broadcast" }, { "join", "239.1.2.3" },
  { "leave", "239.1.2.3" },
}
local unpack = table.unpack or unpack

describe("a datagram", function()
  for host in pairs(HOSTS) do
    it("goes there and back between sockets of " .. host .. ", in every form", cleanly(function()
      local server, client = udp.pair(host)
      assert.equal(4, client:send("ping"))
      local data, from, port = server:recv_from()
      assert.same({ "ping", host, client:local_port() }, { data, from, port })
      assert.equal(5, server:send_to("pong!", from, port))
      assert.equal("pong!", client:recv())
      assert.equal(2, client:try_send("hi"))
      assert.same({ "hi", host, client:local_port() }, { server:try_recv_from() })
      assert.equal(3, (server:try_send_to("you", from, port)))
      assert.same({ "you" }, { client:try_recv() })
      client:send("who?")
      assert.same({ "who?" }, { server:recv() })
      server:send_to("me", host, tostring(port))
      assert.same({ "me", host, server:local_port() }, { client:recv_from() })
    end))
  end

  it("keeps to itself and in order, and an empty one is one", cleanly(function()
    local server, client = udp.pair()
    for i = 0, 99 do
      assert.equal(i, client:send(("x"):rep(i)))
    end
    assert.equal(0, client:try_send(""))
    client:send("end")
    for i = 0, 99 do
      assert.equal(i, #server:recv())
    end
    assert.same({ "", "127.0.0.1", client:local_port() }, { server:recv_from() })
    assert.equal("end", server:recv())
    fails("timeout", server:try_recv(nil, 0))
  end))

  it("may be any bytes, and a number", cleanly(function()
    local server, client = udp.pair()
    local bytes = {}
    for i = 0, 255 do
      bytes[i + 1] = string.char(i)
    end
    local all = table.concat(bytes)
    assert.equal(256, client:send(all))
    assert.equal(all, server:recv())
    assert.equal(4, client:send(12.5))
    assert.equal("12.5", server:recv())
    assert.equal(2, client:send_to(42, "127.0.0.1", server:local_port()))
    assert.equal("42", server:recv())
  end))

  it("from somebody else does not reach a socket with a peer", cleanly(function()
    local server, client = udp.pair()
    udp.listen():send_to("from a stranger", "127.0.0.1", client:local_port())
    server:send_to("from the peer", "127.0.0.1", client:local_port())
    assert.equal("from the peer", client:recv())
    fails("timeout", client:try_recv(nil, 0))
  end))

  it("may go elsewhere although there is a peer", cleanly(function()
    local server, client = udp.pair()
    local other = udp.listen()
    client:send_to("elsewhere", "127.0.0.1", other:local_port())
    client:send("to the peer")
    assert.equal("elsewhere", other:recv())
    assert.equal("to the peer", server:recv())
    fails("timeout", server:try_recv(nil, 0))
  end))

  it("goes to a socket that has only sent so far", cleanly(function()
    local server, client = udp.listen(), opens(tcp.udp())
    client:send_to("first", "127.0.0.1", server:local_port())
    local _, host, port = server:recv_from()
    assert.equal(port, client:local_port())
    server:send_to("second", host, port)
    assert.equal("second", client:recv(nil, udp.PATIENCE))
  end))

  it("of another program arrives", cleanly(function()
    local server = udp.listen()
    local command = ("printf hello > /dev/udp/127.0.0.1/%d"):format(server:local_port())
    if not support.succeeds(('bash -c "%s"'):format(command)) then
      return pending("a bash with /dev/udp is missing")
    end
    assert.equal("hello", server:recv())
  end))
end)

describe("a UDP socket", function()
  for host, begins in pairs(HOSTS) do
    it("knows its ends on " .. host .. ", also when it is closed", cleanly(function()
      local server, client = udp.pair(host)
      for _, it in ipairs { server, client } do
        assert.is_true(it:local_port() > 0)
        assert.equal(host, it:local_host())
        assert.equal(begins .. it:local_port(), it:local_addr())
      end
      local names = {
        [server] = server:local_addr(), [client] = client:local_addr() .. " -> " .. server:local_addr(),
      }
      for it, name in pairs(names) do
        assert.equal(("UdpSocket (%s)"):format(name), tostring(it))
        assert.is_false(it:is_closed())
        assert.is_number(it:pollfd())
        local addr, port = it:local_addr(), it:local_port()
        it:close()
        it:close()
        assert.equal(("UdpSocket (%s, closed)"):format(name), tostring(it))
        assert.is_true(it:is_closed())
        assert.is_nil(it:pollfd())
        assert.same({ addr, host, port }, { it:local_addr(), it:local_host(), it:local_port() })
      end
    end))
  end

  it("that is closed fails with closed, whatever it is asked", cleanly(function()
    local server, client = udp.pair()
    client:send("unread")
    server:close()
    client:close()
    for _, it in ipairs(OPERATIONS) do
      local self = it[1] == "send" and client or server
      local err = fails("closed", self["try_" .. it[1]](self, unpack(it, 2)))
      assert.equal(it[1], err.op)
      assert.matches("the socket is closed$", tostring(err))
      err = raises("closed", self[it[1]], self, unpack(it, 2))
      assert.equal(it[1], err.op)
    end
    server:set_timeout(1)
  end))

  it("is closed by garbage collection", function()
    local port = tcp.udp_listen("127.0.0.1", 0):local_port()
    collectgarbage()
    collectgarbage()
    tcp.udp_listen("127.0.0.1", port):close()
  end)

  if _VERSION >= "Lua 5.4" then
    it("ends with its block", function()
      local socket = assert(load([[
        local socket <close> = ...
        return socket
      ]]))(tcp.udp())
      assert.is_true(socket:is_closed())
    end)
  end

  it("is not inherited by other programs", cleanly(function()
    local server = udp.listen()
    local process = io.popen("echo up; exec sleep 0.3")
    -- Until it runs, the descriptors of this process are its own, too.
    assert.equal("up", process:read("*l"))
    server:close()
    tcp.udp_listen("127.0.0.1", server:local_port()):close()
    process:close()
  end))

  it("has the port that it asks for to itself", cleanly(function()
    local first = udp.listen()
    local port = first:local_port()
    for _, options in pairs { {}, { reuse_port = true } } do
      local err = fails("address_in_use", tcp.try_udp_listen("127.0.0.1", port, options))
      assert.equal(("udp_listen 127.0.0.1:%d: address already in use"):format(port), tostring(err))
      assert.is_number(err.errno)
    end
  end))

  it("shares a port with those who all ask for it", cleanly(function()
    local first = udp.listen(nil, { reuse_port = true })
    local second = opens(tcp.udp_listen("127.0.0.1", first:local_port(), { reuse_port = true }))
    fails("address_in_use", tcp.try_udp_listen("127.0.0.1", first:local_port()))
    for i = 1, 40 do
      udp.connect(first):send(i)
    end
    local got = 0
    for _, socket in ipairs { first, second } do
      while socket:try_recv(nil, 0) do
        got = got + 1
      end
    end
    assert.equal(40, got)
  end))

  it("with ipv6_only leaves IPv4 to others, and otherwise does not", cleanly(function()
    for _, host in ipairs { "*", "::" } do
      local ipv6 = udp.listen(host, { ipv6_only = true })
      opens(tcp.udp_listen("0.0.0.0", ipv6:local_port()))
      local both = udp.listen(host)
      fails("address_in_use", tcp.try_udp_listen("0.0.0.0", both:local_port()))
    end
  end))

  it("can be read again and again without a leak of memory", cleanly(function()
    local server, client = udp.pair()
    local data = ("x"):rep(10000)
    local function exchange()
      for _ = 1, 500 do
        client:send(data)
        assert(#server:recv() == 10000)
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    local before = exchange()
    assert.is_true(exchange() < before + 100, "memory grows")
  end))
end)

describe("a receive", function()
  it("waits no longer than its time, which is the argument or else the socket's", cleanly(function()
    local server, client = udp.pair()
    local function takes(seconds, ...)
      local began = tcp.now()
      local err = fails("timeout", server:try_recv(...))
      local taken = tcp.now() - began
      assert.is_true(taken >= seconds and taken < seconds + 2, "took " .. taken)
      assert.equal("recv", err.op)
      assert.matches(": timed out$", tostring(err))
    end
    local function all_times()
      takes(0, nil, 0)
      takes(0, 10, "0")
      takes(MOMENT, nil, MOMENT)
      takes(0, { timeout = 0 })
      takes(MOMENT, 10, { timeout = MOMENT })
      server:set_timeout(MOMENT)
      takes(MOMENT)
      takes(MOMENT, 5)
      takes(MOMENT, 5, {})
      takes(2 * MOMENT, 5, 2 * MOMENT)
      server:set_timeout(0)
      takes(0)
      takes(MOMENT, nil, MOMENT)
      for _, name in ipairs { "recv", "recv_from" } do
        assert.equal(name, fails("timeout", server["try_" .. name](server)).op)
        client:send("there")
        assert.equal("there", server[name](server, { timeout = 5 }))
        client:send("there")
        assert.equal("there", server[name](server, 5, { timeout = math.huge }))
      end
      for _, time in ipairs { 0, 5, math.huge } do
        client:send("there")
        assert.equal("there", server:recv(nil, time))
      end
      client:send("there")
      assert.equal("there", server:recv())
      server:set_timeout(nil)
    end
    all_times()
    tcp.run(all_times)
    local other = tcp.spawn(tcp.sleep, 60)
    all_times()
    other:cancel()
  end))

  it("without a time waits for as long as it takes", cleanly(function()
    for _, time in ipairs { "none", math.huge } do
      local server, client = udp.pair()
      server:set_timeout(time ~= "none" and time or nil)
      local task = tcp.spawn(server.recv, server)
      fails("timeout", task:try_join(MOMENT))
      client:send("at last")
      assert.equal("at last", task:join(udp.PATIENCE))
    end
  end))

  it("that fails names the peer, if there is one", cleanly(function()
    local server, client = udp.pair()
    assert.equal(server:local_addr(), fails("timeout", client:try_recv(nil, 0)).peer)
    assert.equal(server:local_addr(), fails("timeout", client:try_recv_from(nil, MOMENT)).peer)
    server:send_to("long", "127.0.0.1", client:local_port())
    assert.equal(server:local_addr(), fails("too_large", client:try_recv(1)).peer)
    client:close()
    assert.equal(server:local_addr(), fails("closed", client:try_recv()).peer)
    assert.equal(server:local_addr(), fails("closed", client:try_send("x")).peer)
    assert.equal("127.0.0.1:9", fails("closed", client:try_send_to("x", "127.0.0.1", 9)).peer)
  end))

  it("raises with the place of the call", cleanly(function()
    local server = udp.listen()
    local line = debug.getinfo(1, "l").currentline + 1
    local ok, err = pcall(function() server:recv(nil, 0) end)
    assert.is_false(ok)
    assert.matches("udp_spec%.lua:" .. line .. ": recv[^\n]*: timed out$", tostring(err))
  end))
end)

describe("making a UDP socket", function()
  it("fails with what is wrong, and leaves no descriptor", function()
    local UNKNOWN = ("x"):rep(64)
    local cases = {
      { "resolve", "udp", UNKNOWN, 53, stage = "resolve" },
      { "resolve", "udp_listen", UNKNOWN, 53, stage = "resolve" },
      { "system", "udp_listen", "192.0.2.77", 0, errno = 99 },
      { "system", "udp_listen", "2001:db8::77", 0, errno = 99 },
    }
    collectgarbage("stop")
    finally(function() collectgarbage("restart") end)
    local before = peers.descriptors()
    for _, case in ipairs(cases) do
      local kind, name, host, port = unpack(case)
      local err = fails(kind, tcp["try_" .. name](host, port))
      assert.equal(name, err.op)
      local peer = host:find(":") and ("[%s]:%d"):format(host, port) or ("%s:%d"):format(host, port)
      assert.equal(peer, err.peer)
      assert.equal(case.stage, err.stage)
      assert.equal(case.errno, err.errno)
      assert.equal(name, raises(kind, tcp[name], host, port).op)
      assert.equal(before, peers.descriptors())
    end
  end)

  it("fails with system when descriptors run out, and works again when there are some", function()
    assert.equal("system\tudp\t24\nsystem\tudp_listen\t24\ntrue\n", support.child([[
      local tcp = require("tcp")
      local held, err = {}
      repeat
        held[#held + 1], err = tcp.try_udp()
      until err
      print(err.kind, err.op, err.errno)
      _, err = tcp.try_udp_listen("127.0.0.1", 0)
      print(err.kind, err.op, err.errno)
      table.remove(held):close()
      print(tcp.udp_listen("127.0.0.1", 0):local_port() > 0)
    ]], "ulimit -n 30;"))
  end)

  it("needs no descriptor that garbage holds", function()
    assert.equal("100\n", support.child([[
      local tcp = require("tcp")
      collectgarbage("stop")
      for i = 1, 100 do tcp.udp() end
      print(100)
    ]], "ulimit -n 30;"))
  end)
end)
