-- Names under tcp.allow, with a name server of the spec's own, which tells what it was asked.

local dns = require("support.policy_dns")
local peers = require("support.peers")

local HERE, ELSEWHERE = "127.0.0.1", "127.0.0.66"

--- Sends a name to every operation that takes one, after `listen` has made the port.
local OPERATIONS = [[
local socket = tcp.udp()
local function nothing() end
local function each_operation(name, port, use)
  use("connect", reach("connect", name, port))
  use("connect_tls", reach("connect_tls", name, port))
  use("udp", reach("udp", name, port))
  use("listen", reach("listen", name, 0))
  use("serve", reach("serve", name, 0, nothing))
  use("udp_listen", reach("udp_listen", name, 0))
  use("resolve", reach("resolve", name))
  use("resolve_all", reach("resolve_all", name))
  local bytes, err = socket:try_send_to("x", name, port)
  use("send_to", bytes and "reached" or err.kind)
end
]]

-- Listeners on both addresses, at the same port.
local BOTH = ([[
local here, port = listen()
local elsewhere = tcp.listen(%q, port)
local function connected_to(name, ...)
  local conn, err = tcp.try_connect(name, port, ...)
  if not conn then
    return err.kind
  end
  local address = conn:remote_addr():gsub(":%%d+$", "")
  conn:close()
  return address
end
local function has_been_met(listener)
  local conn, err = listener:try_accept(0)
  return conn and "met" or err.kind == "timeout" and "alone"
end
]]):format(ELSEWHERE)

--- A test with a name server that gives these answers.
local function asking(claim, answers, body)
  it(claim, function()
    if not dns.is_possible() then
      return pending(dns.CANNOT)
    end
    dns.with_server(answers, body)
  end)
end

local function prints(run, lines, script)
  assert.equal(table.concat(lines, "\n") .. "\n", run(script))
end

describe("a denied name", function()
  local ANSWERS = { ["allowed.example"] = { { HERE } } }
  -- Counted: an address of each family is asked for.
  local ASKED_ONCE = { "allowed.example", "allowed.example" }

  asking("is not looked up by any operation", ANSWERS, function(run, asked)
    prints(run, { "done", HERE }, OPERATIONS .. [[
      tcp.allow { net = { "allowed.example", "0.0.0.0/0" }, listen = { "allowed.example", "0.0.0.0/0" } }
      for _, name in ipairs { "denied.example", "DENIED.example.", "x.allowed.example", "example", "127.1",
        "allowed.example.denied", "allowed.example.." } do
        each_operation(name, 80, function(operation, how)
          if how ~= "denied" then
            print(operation, name, how)
          end
        end)
      end
      print("done")
      print(tcp.resolve("allowed.example"))
    ]])
    assert.same(ASKED_ONCE, asked())
  end)

  asking("is not looked up by tasks, with options, or by another port of its host", ANSWERS, function(run, asked)
    prints(run, { "denied", "denied", "denied", "denied", HERE }, [[
      tcp.allow { net = { "allowed.example:1" } }
      print(tcp.spawn(function()
        local how = reach("connect", "denied.example", 80)
        return how
      end):join())
      print(reach("connect", "denied.example", 1, { family = "ipv4", timeout = 60, bind = "127.0.0.1" }))
      print(reach("resolve", "denied.example", { family = "ipv6" }))
      print(reach("connect", "allowed.example", 2))
      print(tcp.resolve("allowed.example"))
    ]])
    assert.same(ASKED_ONCE, asked())
  end)

  asking("is not looked up where nothing is allowed", ANSWERS, function(run, asked)
    prints(run, { "done" }, OPERATIONS .. [[
      tcp.allow { net = {}, listen = {} }
      for _, name in ipairs { "allowed.example", "localhost" } do
        each_operation(name, 80, function(operation, how)
          if how ~= "denied" then
            print(operation, name, how)
          end
        end)
      end
      print("done")
    ]])
    assert.same({}, asked())
  end)

  asking("may have the address of an allowed one, which is not allowed itself", ANSWERS, function(run)
    prints(run, { "127.0.0.1", "denied", "denied" }, BOTH .. [[
      tcp.allow { net = { "allowed.example" } }
      print(connected_to("allowed.example"))
      print(connected_to("127.0.0.1"))
      print(connected_to("localhost"))
    ]])
  end)

  asking("is told with its stage", ANSWERS, function(run)
    prints(run, { "denied\tconnect\tdenied.example:80\tresolve", "denied\tresolve\tdenied.example\tresolve",
      "denied\tlisten\tdenied.example:0\tresolve" }, [[
      tcp.allow { net = { "allowed.example" }, listen = {} }
      local function tell(_, err)
        print(err.kind, err.op, err.peer, err.stage)
      end
      tell(tcp.try_connect("denied.example", 80))
      tell(tcp.try_resolve("denied.example"))
      tell(tcp.try_listen("denied.example", 0))
    ]])
  end)
end)

describe("the address that was checked is the one", function()
  -- A name for each operation: its first answer is allowed, every later one is not.
  local ANSWERS = {}
  for _, name in ipairs { "connect", "udp", "listen", "serve", "udp_listen", "send_to", "resolve", "resolve_all" } do
    ANSWERS[name .. ".example"] = { { HERE }, { ELSEWHERE } }
  end

  local function flipping(claim, name, script, receivers)
    asking(claim, ANSWERS, function(run, asked)
      prints(run, { HERE, "denied", "denied", "alone" }, BOTH .. (receivers or "") .. ([[
        local NAME = "%s.example"
        tcp.allow { net = { "*.example" }, listen = { "*.example" }, deny = { %q } }
      ]]):format(name, ELSEWHERE) .. script .. [[
        for _ = 1, 3 do
          local address, err = again()
          print(err and err.kind or address)
        end
        print(has_been_met(elsewhere))
      ]])
      local expected = {}
      for i = 1, 6 do
        expected[i] = name .. ".example"
      end
      assert.same(expected, asked())
    end)
  end

  local function local_host(call)
    return ([[
      local function again()
        local it, err = %s
        local host = it and it:local_host()
        if it then
          it:close()
        end
        return host, err
      end
    ]]):format(call)
  end

  flipping("connected to", "connect", "local function again() return connected_to(NAME) end")
  flipping("listened on", "listen", local_host("tcp.try_listen(NAME, 0)"))
  flipping("served on", "serve", local_host("tcp.try_serve(NAME, 0, function() end)"))
  flipping("that a UDP socket listens on", "udp_listen", local_host("tcp.try_udp_listen(NAME, 0)"))
  flipping("resolve gives", "resolve", "local function again() return tcp.try_resolve(NAME) end")
  flipping("resolve_all gives", "resolve_all", [[
    local function again()
      local all, err = tcp.try_resolve_all(NAME)
      return all and table.concat(all, " "), err
    end
  ]])
  local RECEIVERS = [[
    local receiver, other = tcp.udp_listen("127.0.0.1", port), tcp.udp_listen("127.0.0.66", port)
  ]]
  flipping("a UDP socket is connected to", "udp", [[
    local function again()
      local socket, err = tcp.try_udp(NAME, port)
      if not socket then
        return nil, err
      end
      socket:send("x")
      socket:close()
      receiver:recv(1, 60)
      return receiver:local_host()
    end
  ]], RECEIVERS)
  flipping("a datagram is sent to", "send_to", [[
    local socket = tcp.udp()
    local function again()
      local bytes, err = socket:try_send_to("x", NAME, port)
      if not bytes then
        assert(not other:try_recv(1, 0))
        return nil, err
      end
      receiver:recv(1, 60)
      return receiver:local_host()
    end
  ]], RECEIVERS)
end)

describe("every address of a name is checked:", function()
  local THREE = { ["three.example"] = { { HERE, ELSEWHERE, "127.0.0.67" } } }

  asking("denied ones are skipped, whichever is first", THREE, function(run)
    prints(run, { "127.0.0.1", "alone" }, BOTH .. [[
      tcp.allow { net = { "*" }, deny = { "127.0.0.66/31" } }
      print(connected_to("three.example"))
      print(has_been_met(elsewhere))
    ]])
    prints(run, { "127.0.0.66", "alone" }, BOTH .. [[
      tcp.allow { deny = { "127.0.0.1:" .. port, "127.0.0.67" } }
      print(connected_to("three.example"))
      print(has_been_met(here))
    ]])
  end)

  asking("none is left, and that is denied, not tried", THREE, function(run)
    prints(run, { "denied\tconnect\tresolve", "denied", "denied", "denied", "alone", "alone" }, BOTH .. [[
      tcp.allow { net = { "three.example" }, deny = { "127.0.0.0/8" } }
      local _, err = tcp.try_connect("three.example", port)
      print(err.kind, err.op, err.stage)
      print(reach("udp", "three.example", port))
      print(reach("resolve", "three.example"))
      print(reach("resolve_all", "three.example"))
      print(has_been_met(here))
      print(has_been_met(elsewhere))
    ]])
  end)

  asking("layers add up", THREE, function(run)
    prints(run, { "127.0.0.67", "denied" }, [[
      tcp.allow { deny = { "127.0.0.1" } }
      tcp.allow { deny = { "127.0.0.66" } }
      print(table.concat(tcp.resolve_all("three.example"), " "))
      tcp.allow { deny = { "127.0.0.67" } }
      print(reach("resolve_all", "three.example"))
    ]])
  end)

  asking("resolve_all gives those that are left, and resolve one of them", THREE, function(run)
    prints(run, { "127.0.0.1", "127.0.0.1" }, [[
      tcp.allow { deny = { "127.0.0.66", "127.0.0.67" } }
      print(table.concat(tcp.resolve_all("three.example"), " "))
      print(tcp.resolve("three.example"))
    ]])
  end)

  local MAPPED, NAT64 = "0000:0000:0000:0000:0000:ffff:7f00:0042", "0064:ff9b:0000:0000:0000:0000:7f00:0001"
  local SIX_TO_FOUR, UNSPECIFIED = "2002:7f00:0001:0000:0000:0000:0000:0001", "0000:0000:0000:0000:0000:0000:0000:0000"

  asking("also those that are IPv4 addresses in another form", {
    ["mapped.example"] = { { MAPPED } },
    ["nat64.example"] = { { NAT64 } },
    ["6to4.example"] = { { SIX_TO_FOUR } },
    ["zero.example"] = { { "0.0.0.0" } },
    ["zeros.example"] = { { UNSPECIFIED } },
  }, function(run)
    prints(run, { "denied", "denied", "denied" }, BOTH .. [[
      tcp.allow { deny = { "127.0.0.0/8", "[::1]" } }
      for _, name in ipairs { "mapped", "zero", "zeros" } do
        print(connected_to(name .. ".example"))
      end
    ]])
    prints(run, { "denied", "denied", "denied", "denied", "denied" }, BOTH .. [[
      tcp.allow { deny = { "private" } }
      for _, name in ipairs { "mapped", "zero", "zeros", "nat64", "6to4" } do
        print(connected_to(name .. ".example"))
      end
    ]])
  end)

  asking("none that is denied is raced against one that does not answer", THREE, function(run)
    local silent = peers.start("--silent")
    local script = ([[
      local port = %d
      local elsewhere = tcp.listen("127.0.0.66", port)
      tcp.allow { deny = %%s }
      local conn, err = tcp.try_connect("three.example", port, %%s)
      print(conn and conn:remote_addr():match("^[^:]+") or err.kind)
      local met = elsewhere:try_accept(0)
      print(met and "met" or "alone")
    ]]):format(silent.port)
    prints(run, { "127.0.0.66", "met" }, script:format('{ "127.0.0.67" }', 60))
    -- Attempts have a head start of 0.25 s.
    prints(run, { "timeout", "alone" }, script:format('{ "127.0.0.66", "127.0.0.67" }', 0.7))
  end)
end)

describe("a name that is being looked up", function()
  local LATE = { ["late.example"] = { { HERE } }, ["go.example"] = { { HERE } } }

  asking("has to pass what was forbidden meanwhile", LATE, function(run)
    prints(run, { "waiting", "waiting", HERE, "denied", "denied", "alone" }, BOTH .. [[
      local connecting = tcp.spawn(function()
        local address = connected_to("late.example", 60)
        return address
      end)
      local resolving = tcp.spawn(function()
        local how = reach("resolve", "late.example", { timeout = 60 })
        return how
      end)
      tcp.sleep(0)
      print(connecting:status())
      print(resolving:status())
      tcp.allow { net = { "go.example" } }
      -- The answers come now.
      print(tcp.resolve("go.example"))
      print(connecting:join())
      print(resolving:join())
      print(has_been_met(here))
    ]])
  end)
end)
