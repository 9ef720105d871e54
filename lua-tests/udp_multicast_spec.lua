-- Groups, on the loopback interface of a network namespace of its own: there nobody else is a member, and nothing
-- leaves the machine.

local support = require("support")
local udp = require("support.udp")

-- Where it is tried. IPv4 needs no network of its own.
local FAMILIES = {
  IPv4 = { any = "0.0.0.0", here = "127.0.0.1", group = "239.192.7.1", other = "239.192.7.2",
    interface = '"127.0.0.1"' },
  IPv6 = { any = "::", here = "::1", group = "ff05::7:1", other = "ff05::7:2", interface = '"lo"' },
  ["IPv4, interfaces by their name"] = { any = "0.0.0.0", here = "127.0.0.1", group = "239.192.7.1",
    other = "239.192.7.2", interface = '"lo"' },
  ["IPv4, interfaces by their index"] = { any = "0.0.0.0", here = "127.0.0.1", group = "239.192.7.1",
    other = "239.192.7.2", interface = "1" },
  ["IPv4 on a socket for both families, interfaces by their name"] = { any = "*", here = "127.0.0.1",
    group = "239.192.7.1", other = "239.192.7.2", interface = '"lo"' },
  ["IPv6, interfaces by their index"] = { any = "::", here = "::1", group = "ff05::7:1", other = "ff05::7:2",
    interface = "1" },
  ["IPv4 on a socket for both families"] = { any = "*", here = "127.0.0.1", group = "239.192.7.1",
    other = "239.192.7.2", interface = '"127.0.0.1"' },
  ["IPv6 on a socket for both families"] = { any = "*", here = "::1", group = "ff05::7:1", other = "ff05::7:2",
    interface = '"lo"' },
}

-- `says` asserts what the next datagram is: whatever should not have come would be there before it.
local COMMON = [[
  local tcp = require("tcp.core")
  local any, here, group, other, interface = %q, %q, %q, %q, %s
  local function open(options, port)
    local socket = tcp.udp_listen(any, port or 0, options)
    socket:set_timeout(10)
    return socket
  end
  local function says(socket, expected)
    local data = socket:recv()
    if data ~= expected then
      error(("%%q instead of %%q"):format(data, expected), 2)
    end
  end
  local sender = open({ multicast_interface = interface })
  local function send(data, to, socket)
    sender:send_to(data, to, socket:local_port())
  end
  %s
  print("done")
]]

local SCRIPTS = {
  ["gets what is sent to a group that it has joined, until it leaves"] = [[
    local member = open()
    send("before", group, member)
    assert(select("#", member:join(group, interface)) == 0)
    send("one", group, member)
    says(member, "one")
    send("to others", other, member)
    send("", group, member)
    local data, host, port = member:recv_from()
    assert(data == "" and host == here and port == sender:local_port(), host)
    member:send_to("answer", host, port)
    says(sender, "answer")
    assert(select("#", member:leave(group, interface)) == 0)
    send("after", group, member)
    send("directly", here, member)
    says(member, "directly")
  ]],
  ["joins again, and more than one"] = [[
    local member = open()
    for round = 1, 3 do
      assert(member:try_join(group, interface) == true)
      assert(member:try_join(other, interface) == true)
      send("one", group, member)
      says(member, "one")
      send("two", other, member)
      says(member, "two")
      assert(member:try_leave(group, interface) == true)
      send("missed", group, member)
      send("two again", other, member)
      says(member, "two again")
      member:leave(other, interface)
    end
  ]],
  ["shares a port with others, each of whom gets all"] = [[
    local first = open({ reuse_port = true })
    local members = { first }
    for i = 2, 4 do members[i] = open({ reuse_port = true }, first:local_port()) end
    for _, member in ipairs(members) do member:join(group, interface) end
    local tasks = {}
    for i, member in ipairs(members) do tasks[i] = tcp.spawn(member.recv, member) end
    tcp.sleep(0)
    send("to all", group, first)
    for _, task in ipairs(tasks) do assert(task:join() == "to all") end
    members[4]:leave(group, interface)
    members[3]:close()
    send("to all who are left", group, first)
    for i = 1, 2 do says(members[i], "to all who are left") end
  ]],
  ["gets what it sends itself"] = [[
    sender:join(group, interface)
    send("to myself", group, sender)
    local data, host, port = sender:recv_from()
    assert(data == "to myself" and host == here and port == sender:local_port())
  ]],
  ["tells what cannot be done, and goes on"] = [[
    local member = open()
    member:join(group, interface)
    local says_so = {
      join = "already a member of " .. group, leave = ("not a member of %s on that interface"):format(other),
    }
    for name, its_group in pairs({ join = group, leave = other }) do
      local value, err = member["try_" .. name](member, its_group, interface)
      assert(value == nil and err.op == name and err.errno and err.kind == "system", tostring(err))
      assert(err.message == says_so[name], err.message)
      local ok, raised = pcall(member[name], member, its_group, interface)
      assert(not ok and raised.kind == err.kind)
    end
    local _, err = member:try_leave(other)
    assert(err.message == "not a member of " .. other, err.message)
    for name, message in pairs({
      nosuch0 = "there is no interface 'nosuch0'", [4711] = "there is no interface number 4711",
      ["192.0.2.77"] = "no interface has the address 192.0.2.77",
    }) do
      if name ~= "192.0.2.77" or not group:find(":") then
        _, err = member:try_join(other, name)
        assert(err.kind == "system" and err.op == "join" and err.errno == 19, tostring(err))
        assert(err.message == message, err.message)
      end
      _, err = member:try_set_option("multicast_interface", name)
      assert(err.kind == "system" and err.message == message, tostring(err))
    end
    send("still there", group, member)
    says(member, "still there")
  ]],
  ["chooses by its option where it sends to"] = [[
    local member, late = open(), open()
    member:join(group, interface)
    late:set_option("multicast_interface", interface)
    late:send_to("by set_option", group, member:local_port())
    says(member, "by set_option")
    assert(late:get_option("multicast_interface") == interface)
    assert(sender:get_option("multicast_interface") == interface)
    assert(open():get_option("multicast_interface") == nil)
  ]],
  ["stays in its group while many come and go"] = [[
    local member = open()
    member:join(group, interface)
    for i = 1, 30 do
      local other_member = open()
      other_member:join(group, interface)
      if i % 2 == 0 then other_member:leave(group, interface) end
      other_member:close()
    end
    send("still a member", group, member)
    says(member, "still a member")
  ]],
}

for family, it_is in pairs(FAMILIES) do
  describe("a member of a group of " .. family, function()
    for claim, script in pairs(SCRIPTS) do
      it(claim, function()
        local prefix = udp.network(udp.LOOPBACK)
        if it_is.here == "::1" and not prefix then
          return pending("multicast of IPv6 needs a network namespace of its own, and ip")
        end
        local text = COMMON:format(it_is.any, it_is.here, it_is.group, it_is.other, it_is.interface, script)
        assert.equal("done\n", support.child(text, prefix or nil))
      end)
    end
  end)
end

describe("a group that cannot be reached", function()
  it("is told with the way out", function()
    local prefix = udp.network("true")
    if not prefix then
      return pending("a network without routes needs a network namespace of its own")
    end
    assert.equal([[
system	no route leads to the group: name an interface
unreachable	network is unreachable; a group without a route needs set_option("multicast_interface", …)
unreachable	network is unreachable; a group without a route needs set_option("multicast_interface", …) on a socket ]]
      .. [[without a peer
unreachable	the socket is of IPv4 only
]], support.child([[
      local tcp = require("tcp.core")
      local function tell(_, err) print(err.kind, err.message) end
      tell(tcp.udp():try_join("239.192.7.1"))
      tell(tcp.udp():try_send_to("x", "239.192.7.1", 9))
      tell(tcp.try_udp("239.192.7.1", 9))
      tell(tcp.udp_listen("0.0.0.0", 0):try_join("ff02::7:1"))
    ]], prefix))
  end)
end)

-- The end of a cable, where the other end does not send back what was heard.
local CABLES = {
  IPv4 = { any = "0.0.0.0", here = "10.99.0.1", group = "239.192.7.1", other = "239.192.7.2", interface = '"10.99.0.1"',
    far = '"10.99.1.1"' },
  IPv6 = { any = "::", here = "fe80::1", group = "ff02::7:1", other = "ff02::7:2", interface = '"v0"', far = '"v1"' },
}

local CABLE_SCRIPTS = {
  ["multicast_loop says whether one's own machine hears it"] = { "IPv4 IPv6", [[
    local member = open()
    member:join(group, interface)
    send("heard", group, member)
    says(member, "heard")
    for _, deaf in ipairs { sender, open({ multicast_interface = interface, multicast_loop = false }) } do
      deaf:set_option("multicast_loop", false)
      deaf:send_to("not heard", group, member:local_port())
      deaf:set_option("multicast_loop", true)
      deaf:send_to("heard again", group, member:local_port())
      says(member, "heard again")
    end
  ]] },
  ["multicast_ttl of 0 keeps it on the machine"] = { "IPv4", [[
    local member, neighbour = open(), open()
    member:join(group, far)
    -- Without a member at this end, Linux does not look at the number.
    neighbour:join(group, interface)
    sender:set_option("multicast_loop", false)
    -- A cable takes a while to carry anything.
    repeat send("awake?", group, member) until member:try_recv(nil, 0.01)
    sender:set_option("multicast_ttl", 0)
    send("too far", group, member)
    sender:set_option("multicast_ttl", 1)
    send("just reached", group, member)
    local data
    repeat data = member:recv() until data ~= "awake?"
    assert(data == "just reached", data)
  ]] },
  ["the system's choice of an interface will do"] = { "IPv6", [[
    local member = open()
    member:join(group)
    sender = open()
    send("anywhere", group, member)
    says(member, "anywhere")
    member:leave(group)
    send("missed", group, member)
    member:join(group)
    send("back", group, member)
    says(member, "back")
  ]] },
  ["an answer goes back to a link-local address, as recv_from names it"] = { "IPv6", [[
    local member = open()
    member:join(group, interface)
    send("question", group, member)
    local data, host, port = member:recv_from()
    assert(data == "question" and host:match("^fe80::1%%"), host)
    member:send_to("answer", host, port)
    says(sender, "answer")
    local client = tcp.udp(host, member:local_port())
    client:send("with a peer")
    says(member, "with a peer")
  ]] },
}

describe("on a cable", function()
  for claim, case in pairs(CABLE_SCRIPTS) do
    for family in case[1]:gmatch("%S+") do
      it(claim .. ", " .. family, function()
        local prefix = udp.network(udp.CABLE)
        if not prefix then
          return pending("a cable needs a network namespace of its own, ip, and veth")
        end
        local at = CABLES[family]
        local script = ("local far = %s\n%s"):format(at.far, case[2])
        local text = COMMON:format(at.any, at.here, at.group, at.other, at.interface, script)
        assert.equal("done\n", support.child(text, prefix))
      end)
    end
  end
end)
