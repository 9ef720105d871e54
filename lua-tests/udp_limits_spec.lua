-- The sizes of datagrams, and what a socket can be set to.

local tcp = require("tcp.core")
local support = require("support")
local udp = require("support.udp")
local waits = require("support.waits")

local fails, raises = support.fails, support.raises
local opens, cleanly = waits.opens, waits.cleanly
local PATIENCE, MOMENT = udp.PATIENCE, udp.MOMENT

-- The longest that the protocol can carry: 65,535 less the headers (RFC 768, RFC 791, RFC 8200).
local LONGEST = { ["127.0.0.1"] = 65507, ["::1"] = 65527 }

--- `length` bytes, no two thousand of which are alike.
local function text(length)
  local words = {}
  for i = 1, math.ceil(length / 8) do
    words[i] = ("%08d"):format(i)
  end
  return table.concat(words):sub(1, length)
end

describe("a datagram", function()
  for host, longest in pairs(LONGEST) do
    it("of every size up to the longest goes both ways on " .. host, cleanly(function()
      local server, client = udp.pair(host)
      for _, length in ipairs { 0, 1, 2, 511, 512, 1472, 1473, 8192, 8193, 65000, longest - 1, longest } do
        local data = text(length)
        assert.equal(length, client:send(data))
        local got, from, port = server:recv_from()
        assert.is_true(data == got, "of " .. length)
        assert.equal(length, server:send_to(got, from, port))
        assert.is_true(data == client:recv(), "of " .. length)
      end
    end))

    it("longer than the longest is too_large on " .. host .. ", and nothing of it is sent", cleanly(function()
      local server, client = udp.pair(host)
      for _, length in ipairs { longest + 1, 65536, 100000, 5000000 } do
        local data = ("x"):rep(length)
        local err = fails("too_large", client:try_send(data))
        assert.same({ "send", server:local_addr() }, { err.op, err.peer })
        assert.is_nil(err.data)
        err = fails("too_large", server:try_send_to(data, host, client:local_port()))
        assert.same({ "send_to", client:local_addr() }, { err.op, err.peer })
        assert.equal("send", raises("too_large", client.send, client, data).op)
      end
      client:send("after it")
      assert.equal("after it", server:recv())
      fails("timeout", client:try_recv(nil, 0))
    end))
  end

  it("that is empty is no end: others follow", cleanly(function()
    local server, client = udp.pair()
    for _, max in ipairs { 1, 65535, 1e9 } do
      client:send("")
      server:send_to("", "127.0.0.1", client:local_port())
      client:send("x")
      assert.equal("", server:recv(max))
      assert.equal("", client:recv(max))
      assert.equal("x", server:recv(max))
    end
  end))

  it("up to max is given, and a longer one is consumed, with its first bytes in the error", cleanly(function()
    local server, client = udp.pair()
    local waiting = tcp.spawn(tcp.sleep, 60)
    for _, length in ipairs { 1, 2, 100, 8192, 65506 } do
      local data = text(length + 1)
      for _, name in ipairs { "recv", "recv_from" } do
        client:send(data:sub(1, length))
        client:send(data)
        client:send("next")
        assert.is_true(data:sub(1, length) == server[name](server, length))
        local err = fails("too_large", server["try_" .. name](server, length))
        assert.equal(name, err.op)
        assert.is_true(data:sub(1, length) == err.data, "of " .. length)
        assert.equal("next", server[name](server))
        client:send(data)
        err = raises("too_large", server[name], server, tostring(length), PATIENCE)
        assert.is_true(data:sub(1, length) == err.data, "of " .. length)
        fails("timeout", server:try_recv(length, 0))
      end
    end
    waiting:cancel()
  end))

  it("that is too long is told to a task, too, which may go on", cleanly(function()
    local server, client = udp.pair()
    local task = tcp.spawn(function()
      local _, err = server:try_recv(3)
      return err.kind, err.data, server:recv(3)
    end)
    tcp.sleep(0)
    client:send("long")
    client:send("yes")
    assert.same({ "too_large", "lon", "yes" }, { task:join(PATIENCE) })
  end))

  it("too long for a receiver is told to that one only", cleanly(function()
    local server, client = udp.pair()
    local first = tcp.spawn(server.try_recv, server, 1)
    local second = tcp.spawn(server.try_recv, server, 10)
    tcp.sleep(0)
    client:send("long")
    client:send("long")
    fails("too_large", first:join(PATIENCE))
    assert.equal("long", (second:join(PATIENCE)))
  end))
end)

describe("a thousand datagrams", function()
  it("arrive in order where there is room", cleanly(function()
    local server, client = udp.pair()
    server:set_option("recv_buffer", 4 * 1024 * 1024)
    if server:get_option("recv_buffer") < 400000 then
      return pending("the system allows small receive buffers only")
    end
    -- The system counts at least 768 bytes for each.
    local count = math.min(1000, math.floor(server:get_option("recv_buffer") / 1600))
    for i = 1, count do
      client:send("number " .. i)
    end
    for i = 1, count do
      assert.equal("number " .. i, server:recv())
    end
  end))
end)

-- Values that are set, and what is then told.
local OPTIONS = {
  broadcast = { true, false }, multicast_loop = { false, true }, multicast_ttl = { 0, 1, 32, 255 },
  ttl = { 1, 64, 255 },
}

describe("an option", function()
  for name, values in pairs(OPTIONS) do
    it(name .. " is told as it was set, on sockets of every sort", cleanly(function()
      local sockets = { udp.listen(), udp.listen("::1"), udp.listen("*"), opens(tcp.udp()), (select(2, udp.pair())) }
      for _, socket in ipairs(sockets) do
        for _, value in ipairs(values) do
          assert.is_nil(socket:set_option(name, value))
          assert.equal(value, socket:get_option(name))
          assert.is_true(socket:try_set_option(name, value))
          assert.equal(value, (socket:try_get_option(name)))
        end
      end
      for _, host in ipairs { "127.0.0.1", "::1", "*" } do
        for _, value in ipairs(values) do
          assert.equal(value, udp.listen(host, { [name] = value }):get_option(name))
        end
      end
    end))
  end

  it("has a default that harms nobody", cleanly(function()
    for _, socket in ipairs { udp.listen(), udp.listen("::1"), udp.listen("*"), opens(tcp.udp()) } do
      assert.is_false(socket:get_option("broadcast"))
      assert.is_true(socket:get_option("multicast_loop"))
      assert.equal(1, socket:get_option("multicast_ttl"))
      assert.is_true(socket:get_option("ttl") >= 32)
    end
  end))

  for _, name in ipairs { "recv_buffer", "send_buffer" } do
    it(name .. " is at least what was asked for, as far as the system goes", cleanly(function()
      local asked = udp.listen(nil, { [name] = 20000 })
      local usual = udp.listen():get_option(name)
      assert.is_true(asked:get_option(name) >= 20000 and asked:get_option(name) ~= usual)
      asked:set_option(name, 30000)
      assert.is_true(asked:get_option(name) >= 30000 and asked:get_option(name) ~= usual)
      -- Beyond what the system allows it is what the system allows.
      asked:set_option(name, 2 ^ 31 - 1)
      assert.is_true(asked:get_option(name) >= 30000)
    end))
  end

  it("recv_buffer is how much waits: what does not fit is dropped, and the rest is whole", cleanly(function()
    local server, client = udp.pair()
    server:set_option("recv_buffer", 1)
    for i = 1, 200 do
      client:send(("%04d"):format(i):rep(250))
    end
    local got = server:try_recv(nil, MOMENT)
    local count = 0
    while got do
      count = count + 1
      assert.equal(got:sub(1, 4):rep(250), got)
      got = server:try_recv(nil, 0)
    end
    assert.is_true(count >= 1 and count < 200, count .. " arrived")
    client:send("there is room again")
    assert.equal("there is room again", server:recv())
  end))

  it("broadcast is needed for a broadcast", cleanly(function()
    local server, client = udp.listen("0.0.0.0"), udp.listen("0.0.0.0")
    local err = fails("system", client:try_send_to("x", "127.255.255.255", server:local_port()))
    assert.same({ "send_to", "127.255.255.255:" .. server:local_port(), 13 }, { err.op, err.peer, err.errno })
    local hint = 'permission denied; a broadcast address needs set_option("broadcast", true)'
    assert.equal(hint, err.message)
    err = fails("system", tcp.try_udp("127.255.255.255", server:local_port()))
    assert.equal(hint .. " on a socket without a peer", err.message)
    client:set_option("broadcast", true)
    client:send_to("to all", "127.255.255.255", server:local_port())
    local data, host, port = server:recv_from()
    assert.same({ "to all", "127.0.0.1", client:local_port() }, { data, host, port })
    udp.listen("127.0.0.1", { broadcast = true }):send_to("again", "127.255.255.255", server:local_port())
    assert.equal("again", server:recv())
  end))
end)

-- A cable over which a datagram of a thousand bytes takes 20 ms.
local NARROW = udp.CABLE .. " && tc qdisc add dev v0 root tbf rate 400kbit burst 3kb latency 50s"

local NARROW_SCRIPT = [[
  local tcp = require("tcp.core")
  local host, data = "239.192.7.1", ("x"):rep(1000)
  local function open()
    return tcp.udp_listen("10.99.0.1", 0, { multicast_interface = "10.99.0.1", send_buffer = 4096 })
  end
  local socket = open()
  local function fill()
    socket:set_timeout(0)
    local sent, err
    for _ = 1, 1000 do
      sent, err = socket:try_send_to(data, host, 9)
      if err then break end
      assert(sent == 1000)
    end
    socket:set_timeout(60)
    return err
  end
  local function tell(sent, err)
    print(sent, err.kind, err.op, err.peer, err.written)
  end
  %s
]]

local NARROW_CASES = {
  ["fails with timeout where there is no time, and goes on"] = {
    "nil\ttimeout\tsend_to\t239.192.7.1:9\tnil\nnil\ttimeout\tsend_to\t239.192.7.1:9\tnil\n1000\n", [[
    tell(nil, fill())
    socket:set_timeout(0.001)
    local sent, err
    repeat sent, err = socket:try_send_to(data, host, 9) until err
    tell(sent, err)
    socket:set_timeout(60)
    print(socket:send_to(data, host, 9))
  ]] },
  ["waits for room, while others run and receive from the same socket"] = { "true\ttrue\ntruth\n", [[
    fill()
    local reader = tcp.spawn(socket.recv, socket, 10)
    local ended = 0
    for _ = 1, 3 do
      tcp.spawn(function()
        for _ = 1, 3 do assert(socket:send_to(data, host, 9) == 1000) end
        ended = ended + 1
      end)
    end
    local ticks = 0
    while ended < 3 do
      tcp.sleep(0.001)
      ticks = ticks + 1
    end
    print(ticks > 3 or ticks, reader:status() == "waiting")
    tcp.udp():send_to("truth", "10.99.0.1", socket:local_port())
    print(reader:join(10))
  ]] },
  ["outside tasks lets them run, too"] = { "true\n", [[
    fill()
    local ticks, is_over = 0, false
    tcp.spawn(function()
      while not is_over do
        tcp.sleep(0.001)
        ticks = ticks + 1
      end
    end)
    for _ = 1, 5 do socket:send_to(data, host, 9) end
    is_over = true
    print(ticks > 3 or ticks)
  ]] },
  ["ends when its task is cancelled, and when the socket is closed"] = {
    "nil\tcancelled\tsend_to\t239.192.7.1:9\tnil\nnil\tclosed\tsend_to\t239.192.7.1:9\tnil\n", [[
    for _, way in ipairs { "cancel", "close" } do
      local sent, err
      -- While this process does not run, there may be room again.
      repeat
        fill()
        local task = tcp.spawn(function() sent, err = socket:try_send_to(data, host, 9) end)
        tcp.sleep(0)
        if way == "cancel" then
          task:cancel()
        elseif task:status() == "waiting" then
          socket:close()
        end
        tcp.run()
      until err
      tell(sent, err)
    end
  ]] },
}

describe("a send over a way that is narrow", function()
  for claim, case in pairs(NARROW_CASES) do
    it(claim, function()
      local prefix = udp.network(NARROW)
      if not prefix then
        return pending("a narrow cable needs a network namespace of its own, ip, tc, and veth")
      end
      assert.equal(case[1], support.child(NARROW_SCRIPT:format(case[2]), prefix))
    end)
  end
end)
