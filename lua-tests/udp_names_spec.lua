-- Where datagrams go: names, both families on one socket, and those who do not listen.

local tcp = require("tcp.core")
local peers = require("support.peers")
local support = require("support")
local tasks = require("support.tasks")
local udp = require("support.udp")
local waits = require("support.waits")

local fails, raises = support.fails, support.raises
local opens, cleanly = waits.opens, waits.cleanly
local PATIENCE, MOMENT = udp.PATIENCE, udp.MOMENT

-- A label of more than 63 bytes: the resolver refuses it without asking anybody.
local UNKNOWN = ("x"):rep(64)

describe("send_to", function()
  it("takes names, literals and brackets", cleanly(function()
    local server = udp.listen("*")
    local client = opens(tcp.udp())
    for _, host in ipairs { "localhost", "LocalHost", "127.0.0.1", "::1", "[::1]", "::ffff:127.0.0.1" } do
      assert.equal(#host, client:send_to(host, host, server:local_port()))
      assert.equal(host, server:recv())
      assert.equal(2, (client:try_send_to("ok", host, tostring(server:local_port()))))
      assert.equal("ok", server:recv())
    end
  end))

  it("reaches both families from one socket, and hears both, addresses unmapped", cleanly(function()
    local servers = { ["127.0.0.1"] = udp.listen("127.0.0.1"), ["::1"] = udp.listen("::1") }
    for _, socket in ipairs { opens(tcp.udp()), udp.listen("*"), udp.listen("::") } do
      for _ = 1, 2 do
        for host, server in pairs(servers) do
          socket:send_to("ask", host, server:local_port())
          local data, from, port = server:recv_from()
          assert.same({ "ask", host, socket:local_port() }, { data, from, port })
          server:send_to("answer", from, port)
          data, from, port = socket:recv_from(10, PATIENCE)
          assert.same({ "answer", host, server:local_port() }, { data, from, port })
        end
      end
    end
  end))

  it("to a family that its socket does not speak fails, and says so", cleanly(function()
    for host, other in pairs { ["127.0.0.1"] = "::1", ["::1"] = "127.0.0.1" } do
      local socket = udp.listen(host, { ipv6_only = host == "::1" })
      local value, err = socket:try_send_to("x", other, 9)
      assert.is_nil(value)
      assert.is_true(err.kind == "unreachable" or err.kind == "resolve", tostring(err))
      assert.equal("send_to", err.op)
      assert.equal(other == "::1" and "[::1]:9" or "127.0.0.1:9", err.peer)
      assert.equal(err.kind, raises(err.kind, socket.send_to, socket, "x", other, 9).kind)
    end
  end))

  it("to an unknown name fails with resolve, and the socket goes on", cleanly(function()
    local server = udp.listen()
    local socket = udp.listen()
    local err = fails("resolve", socket:try_send_to("x", UNKNOWN, 53))
    assert.same({ "send_to", UNKNOWN .. ":53", "resolve" }, { err.op, err.peer, err.stage })
    assert.equal("send_to", raises("resolve", socket.send_to, socket, "x", UNKNOWN, 53).op)
    socket:send_to("known", "127.0.0.1", server:local_port())
    assert.equal("known", server:recv())
  end))

  it("by name leaves no descriptor behind, nor anything for the loop", cleanly(function()
    local server, socket = udp.listen(), udp.listen()
    socket:send_to("x", "localhost", server:local_port())
    local before = peers.descriptors()
    for _ = 1, 20 do
      socket:send_to("x", "localhost", server:local_port())
      fails("resolve", socket:try_send_to("x", UNKNOWN, 53))
    end
    assert.equal(before, peers.descriptors())
    tcp.run(function()
      for _ = 1, 20 do
        socket:send_to("x", "localhost", server:local_port())
        fails("resolve", socket:try_send_to("x", UNKNOWN, 53))
      end
    end)
    assert.equal(before, peers.descriptors())
  end))

  it("by name from several tasks reaches them all", cleanly(function()
    local server, socket = udp.listen(), udp.listen()
    local all = {}
    for i = 1, 20 do
      all[i] = tcp.spawn(socket.send_to, socket, tostring(i), "localhost", server:local_port())
    end
    local sum = 0
    for _ = 1, 20 do
      sum = sum + server:recv()
    end
    assert.equal(210, sum)
    for i = 1, 20 do
      assert.equal(#tostring(i), all[i]:join(PATIENCE))
    end
  end))
end)

describe("a UDP socket made with a name", function()
  it("has the first address that works as its peer", cleanly(function()
    local server = udp.listen("*")
    local client = udp.connect(server, "localhost")
    client:send("hello")
    local data, host, port = server:recv_from()
    assert.same({ "hello", client:local_host(), client:local_port() }, { data, host, port })
    server:send_to("and back", host, port)
    assert.equal("and back", client:recv())
  end))

  it("that listens is on the IPv4 address first", cleanly(function()
    assert.matches("^127%.0%.0%.1:%d+$", udp.listen("localhost"):local_addr())
  end))
end)

-- Names that only the hosts file of the script knows, and its addresses.
local HOSTS = "127.0.0.1 localhost four.example both.example\n2001:db8::5 six.example both.example\n"
local NETWORK = "ip link set lo up && ip -6 addr add 2001:db8::5/128 dev lo nodad"

describe("names of one family", function()
  it("are reached by a socket that speaks both, and told apart by one that does not", function()
    if not (support.succeeds("unshare -rmn true") and udp.network(NETWORK)) then
      return pending("a hosts file and a network of its own need namespaces, and ip")
    end
    support.with_files({ ["/etc/hosts"] = HOSTS }, function(prefix)
      assert.equal([[
127.0.0.1	four.example
2001:db8::5	six.example
2001:db8::5	connected
127.0.0.1	both by IPv4
2001:db8::5	both by IPv6
nil	send_to six.example:9	true
nil	send_to four.example:9	true
2001:db8::5
127.0.0.1
]], support.child([[
        local tcp = require("tcp.core")
        local server = tcp.udp_listen("*", 0)
        local port = server:local_port()
        local function got()
          local data, host = server:recv_from(100, 10)
          print(host, data)
        end
        local both = tcp.udp()
        both:send_to("four.example", "four.example", port)
        got()
        both:send_to("six.example", "six.example", port)
        got()
        tcp.udp("six.example", port):send("connected")
        got()
        local four, six = tcp.udp_listen("127.0.0.1", 0), tcp.udp_listen("::", 0, { ipv6_only = true })
        four:send_to("both by IPv4", "both.example", port)
        got()
        six:send_to("both by IPv6", "both.example", port)
        got()
        local function tell(value, err)
          print(value, err.op .. " " .. err.peer, err.kind == "resolve" or err.kind == "unreachable")
        end
        tell(four:try_send_to("x", "six.example", 9))
        tell(six:try_send_to("x", "four.example", 9))
        print(tcp.udp_listen("six.example", 0):local_host())
        print(tcp.udp_listen("both.example", 0):local_host())
      ]], prefix))
    end, NETWORK)
  end)

  it("that cannot be reached are unreachable", function()
    local prefix = udp.network("true")
    if not prefix then
      return pending("a network without routes needs a network namespace of its own")
    end
    -- In a network namespace of its own even the loopback interface is down.
    assert.equal("unreachable\tsend_to\t127.0.0.1:53\t101\nunreachable\tudp\t192.0.2.1:53\t101\n", support.child([[
      local tcp = require("tcp.core")
      local _, err = tcp.udp():try_send_to("x", "127.0.0.1", 53)
      print(err.kind, err.op, err.peer, err.errno)
      _, err = tcp.try_udp("192.0.2.1", 53)
      print(err.kind, err.op, err.peer, err.errno)
    ]], prefix))
  end)
end)

-- Every name is slow: its name server never answers.
local SLOW = {
  ["ends with the socket's time, and with the task's"] = { "timeout\tsend_to\tresolve\tslow.example:53\n"
    .. "timeout\tsend_to\tresolve\tslow.example:53\ncancelled\tsend_to\tresolve\tslow.example:53\n"
    .. "cancelled\tsend_to\tresolve\tslow.example:53\n", [[
    socket:set_timeout(0.1)
    tell(socket:try_send_to("x", "slow.example", 53))
    tcp.run(function() tell(socket:try_send_to("x", "slow.example", 53)) end)
    socket:set_timeout(nil)
    tcp.try_with_timeout(0.1, function() tell(socket:try_send_to("x", "slow.example", 53)) end)
    local task = tcp.spawn(function() tell(socket:try_send_to("x", "slow.example", 53)) end)
    tcp.sleep(0.05)
    task:cancel()
    tcp.run()
  ]] },
  ["blocks no task, and no other use of its socket"] = { "20\ncancelled\tsend_to\tresolve\tslow.example:53\n", [[
    socket:set_timeout(60)
    local slow = tcp.spawn(function() tell(socket:try_send_to("x", "slow.example", 53)) end)
    tcp.sleep(0)
    local server = tcp.udp_listen("127.0.0.1", 0)
    local trips = 0
    for i = 1, 20 do
      socket:send_to("ask " .. i, "127.0.0.1", server:local_port())
      local data, host, port = server:recv_from(100, 10)
      server:send_to(data, host, port)
      if socket:recv(100, 10) == "ask " .. i then trips = trips + 1 end
    end
    print(trips)
    slow:cancel()
    tcp.run()
  ]] },
  ["ends with closed when its socket is closed"] = { "closed\tsend_to\nclosed\n", [[
    local slow = tcp.spawn(function()
      local _, err = socket:try_send_to("x", "slow.example", 53)
      print(err.kind, err.op)
    end)
    tcp.sleep(0.05)
    socket:close()
    slow:join(10)
    print(select(2, socket:try_recv()).kind)
  ]] },
  ["of the peer may be cancelled"] = { "cancelled\tudp\tresolve\tslow.example:53\n"
    .. "cancelled\tudp_listen\tresolve\tslow.example:0\n", [[
    for _, case in ipairs { { name = "try_udp", port = 53 }, { name = "try_udp_listen", port = 0 } } do
      local task = tcp.spawn(function() tell(tcp[case.name]("slow.example", case.port)) end)
      tcp.sleep(0.05)
      task:cancel()
      tcp.run()
    end
  ]] },
}

describe("a slow look-up", function()
  for claim, case in pairs(SLOW) do
    it(claim, function()
      if not support.succeeds("unshare -m true") then
        return pending("a resolver that never answers needs a mount namespace of its own (root)")
      end
      local address = "127.99.98.1"
      peers.start("--silent-dns", address)
      support.with_nameserver(address, function(prefix)
        assert.equal(case[1], support.child([[
          local tcp = require("tcp.core")
          local socket = tcp.udp()
          local function tell(value, err)
            print(err.kind, err.op, err.stage, err.peer)
          end
        ]] .. case[2], prefix))
      end)
    end)
  end
end)

describe("a peer that does not listen", function()
  after_each(tasks.finish_all)

  it("is one on port 0, too, whoever it is that says so", cleanly(function()
    for _, host in ipairs { "127.0.0.1", "::1", "localhost" } do
      local err = fails("refused", tcp.try_udp(host, 0))
      assert.matches("^udp .*:0: nobody can listen on port 0$", tostring(err))
      for _, socket in ipairs { udp.listen("*"), (select(2, udp.pair("::1"))) } do
        err = fails("refused", socket:try_send_to("x", host, 0))
        assert.matches("^send_to .*:0: nobody can listen on port 0$", tostring(err))
      end
    end
  end))

  it("refuses: the next receive is told, once", cleanly(function()
    local port = udp.dead_port("127.0.0.72")
    local client = opens(tcp.udp("127.0.0.72", port))
    for round = 1, 3 do
      client:send("anybody there?")
      local err = fails("refused", client:try_recv(nil, PATIENCE))
      assert.same({ "recv", "127.0.0.72:" .. port, 111 }, { err.op, err.peer, err.errno }, round)
      fails("timeout", client:try_recv(nil, MOMENT))
    end
  end))

  it("refuses: the next send is told, and the one after it is sent", cleanly(function()
    local host = "127.0.0.73"
    local port = udp.dead_port(host)
    local client = opens(tcp.udp(host, port))
    local err
    local deadline = tcp.now() + PATIENCE
    repeat
      local sent
      sent, err = client:try_send("anybody there?")
      assert.is_true(sent == nil or sent == 14)
      tcp.sleep(0)
    until err or tcp.now() > deadline
    assert.same({ "refused", "send", host .. ":" .. port, 111 }, { err.kind, err.op, err.peer, err.errno })
    local server = opens(tcp.udp_listen(host, port))
    repeat
      local sent = client:try_send("now?")
    until sent
    assert.equal("now?", server:recv(nil, PATIENCE))
  end))

  it("is told to a task that waits already", cleanly(function()
    local port = udp.dead_port("127.0.0.74")
    local client = opens(tcp.udp("127.0.0.74", port))
    local waiting = tasks.trying(client, "recv_from")
    tcp.sleep(0)
    client:send("anybody there?")
    assert.equal("recv_from", tasks.fails("refused", waiting).op)
  end))

  it("disturbs no socket that serves others, too", cleanly(function()
    local port = udp.dead_port("127.0.0.75")
    local server = udp.listen("*")
    local client = opens(tcp.udp("127.0.0.1", server:local_port()))
    for i = 1, 5 do
      client:send(i)
      for _ = 1, 3 do
        assert.equal(4, server:send_to("gone", "127.0.0.75", port))
      end
      local data, from, its_port = server:recv_from()
      assert.equal(tostring(i), data)
      server:send_to("answer", from, its_port)
      assert.equal("answer", client:recv(nil, PATIENCE))
    end
    fails("timeout", server:try_recv(nil, MOMENT))
  end))
end)
