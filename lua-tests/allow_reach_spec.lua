-- What tcp.allow is about: each operation that reaches somebody or listens, and none else.

local policy = require("support.policy")
local transports = require("support.transports")

local prints, text = policy.prints, policy.text
local TLS = { client = text(transports.CLIENT), server = text(transports.SERVER) }

describe("net", function()
  it("covers whatever connects", function()
    prints({ "denied", "denied", "denied", "denied", "denied", "denied", "denied", "denied", "alone" }, [[
      local listener, port = listen()
      require("tcp")
      tcp.allow { net = { "127.0.0.9" } }
      local function raises(fn, ...)
        local ok, err = pcall(fn, ...)
        return not ok and tcp.is_error(err) and err.kind
      end
      print(reach("connect", "127.0.0.1", port))
      print(reach("connect_tls", "127.0.0.1", port))
      print(reach("connect", "127.0.0.1", port, { tls = true }))
      print(raises(tcp.connect, "127.0.0.1", port))
      print(raises(tcp.connect_tls, "127.0.0.1", port))
      print(raises(connect, "127.0.0.1", port))
      print(raises(connect_tls, "127.0.0.1", port))
      print(reach("connect", "127.0.0.1", port, { timeout = 0 }))
      print((listener:try_accept(0)) and "met" or "alone")
    ]])
  end)

  it("covers UDP: sockets with a peer, and send_to", function()
    prints({ "denied\tudp", "denied\tsend_to", "denied\tsend_to", "denied\tsend_to", "1\tnil", "x", "timeout" }, [[
      local forbidden, allowed = tcp.udp_listen("127.0.0.1", 0), tcp.udp_listen("127.0.0.9", 0)
      local port = forbidden:local_port()
      tcp.allow { net = { "127.0.0.9" } }
      local function tell(value, err)
        print(err and err.kind or value, err and err.op)
      end
      local socket, listening = tcp.udp(), tcp.udp_listen("*", 0)
      tell(tcp.try_udp("127.0.0.1", port))
      tell(socket:try_send_to("forbidden", "127.0.0.1", port))
      tell(socket:try_send_to("forbidden", "localhost", port))
      tell(listening:try_send_to("forbidden", "::ffff:127.0.0.1", port))
      tell(socket:try_send_to("x", "127.0.0.9", allowed:local_port()))
      print((allowed:recv(10, 60)))
      print(select(2, forbidden:try_recv(10, 0)).kind)
    ]])
  end)

  it("covers answers to datagrams, whoever sent them", function()
    prints({ "question", "denied" }, [[
      local server = tcp.udp_listen("127.0.0.1", 0)
      local client = tcp.udp("127.0.0.1", server:local_port())
      client:send("question")
      tcp.allow { net = {} }
      local data, host, port = server:recv_from(100, 60)
      print(data)
      local _, err = server:try_send_to("answer", host, port)
      print(err.kind)
    ]])
  end)

  it("covers names and literals that are only resolved, without their ports", function()
    prints({ "127.0.0.1", "127.0.0.9", "denied", "denied", "denied", "denied", "denied" }, [[
      tcp.allow { net = { "localhost:1", "127.0.0.9:2" } }
      print(tcp.resolve("localhost", { family = "ipv4" }))
      print(table.concat(tcp.resolve_all("127.0.0.9"), " "))
      for _, host in ipairs { "127.0.0.1", "::1", "host.example", "127.1" } do
        print(reach("resolve", host))
      end
      print(reach("resolve_all", "[::1]"))
    ]])
  end)

  it("covers what is resolved also where a port of an address is denied, but not for that", function()
    prints({ "127.0.0.9", "denied", "127.0.0.9" }, [[
      tcp.allow { deny = { "127.0.0.9:1", ":2" } }
      print(tcp.resolve("127.0.0.9"))
      print(reach("connect", "127.0.0.9", 1))
      tcp.allow { deny = { "127.0.0.8" } }
      print(tcp.resolve("127.0.0.9"))
    ]])
  end)

  it("is not about what is listened on or accepted", function()
    prints({ "reached", "reached", "reached", "hello" }, [[
      local listener, port = listen()
      local client = tcp.connect("127.0.0.1", port)
      client:write("hello")
      tcp.allow { net = {} }
      print(reach("listen", "127.0.0.1", 0))
      print(reach("serve", "127.0.0.1", 0, function() end))
      print(reach("udp_listen", "127.0.0.1", 0))
      print(listener:accept():read(5))
    ]])
  end)

  it("is not about the address that a connection is bound to", function()
    prints({ "127.0.0.7", "127.0.0.7" }, [[
      local _, port = listen()
      tcp.allow { net = { "127.0.0.1" }, listen = {} }
      for _, bind in ipairs { "127.0.0.7", "127.0.0.7:0" } do
        local conn = tcp.connect("127.0.0.1", port, { bind = bind })
        print(conn:local_host())
      end
    ]])
  end)

  it("lets a bound address be denied as little", function()
    prints({ "127.0.0.7" }, [[
      local _, port = listen()
      tcp.allow { deny = { "127.0.0.7" } }
      print(tcp.connect("127.0.0.1", port, { bind = "127.0.0.7" }):local_host())
    ]])
  end)

  it("is not about sockets that nobody is reached by, which hear whoever finds them", function()
    prints({ "hello", "denied" }, [[
      tcp.allow { listen = {} }
      local socket = tcp.udp()
      tcp.udp("127.0.0.1", socket:local_port()):send("hello")
      tcp.allow { net = {} }
      local data, host, port = socket:recv_from(100, 60)
      print(data)
      print(select(2, socket:try_send_to("answer", host, port)).kind)
    ]])
  end)

  it("is not about TLS on a connection that is there, nor about the name asked for", function()
    prints({ "TLSv1.3", "TLSv1.3" }, ([[
      local SERVER, CLIENT = %s, %s
      local listener, port = listen()
      local near, far = tcp.connect("127.0.0.1", port), listener:accept()
      tcp.allow { net = { "127.0.0.1" } }
      local function upgrade(near, far)
        tcp.spawn(function()
          SERVER.server = true
          far:start_tls(SERVER)
        end)
        CLIENT.sni = "localhost"
        near:start_tls(CLIENT)
        print(near:protocol())
      end
      upgrade(near, far)
      upgrade(tcp.connect("127.0.0.1", port), listener:accept())
    ]]):format(TLS.server, TLS.client))
  end)
end)

describe("listen", function()
  it("covers whatever listens", function()
    prints({ "denied\tlisten", "denied\tlisten", "denied\tserve", "denied\tudp_listen", "denied\tlisten" }, [[
      tcp.allow { listen = { "127.0.0.9" } }
      local function tell(value, err)
        print(err and err.kind .. "\t" .. err.op or value)
      end
      tell(tcp.try_listen("127.0.0.1", 0))
      tell(tcp.try_listen("localhost", 0))
      tell(tcp.try_serve("127.0.0.1", 0, function() end))
      tell(tcp.try_udp_listen("127.0.0.1", 0))
      tell(tcp.try_listen("127.0.0.1", 0, { reuse_port = true }))
    ]])
  end)

  it("is not about who is reached", function()
    prints({ "reached", "reached" }, [[
      local _, port = listen()
      tcp.allow { listen = {} }
      print(reach("connect", "127.0.0.1", port))
      print(reach("udp", "127.0.0.1", port))
    ]])
  end)

  it("accepts whoever comes", function()
    prints({ "hello" }, [[
      tcp.allow { listen = { "127.0.0.1" }, net = { "127.0.0.1" } }
      local listener, port = listen()
      tcp.connect("127.0.0.1", port, { bind = "127.0.0.77" }):write("hello")
      print(listener:accept():read(5))
    ]])
  end)

  it("needs an entry without a port for port 0", function()
    prints({ "denied", "reached", "reached", "denied" }, [[
      local spare, port = listen()
      spare:close()
      tcp.allow { listen = { "127.0.0.1:" .. port, "127.0.0.9" } }
      print(reach("listen", "127.0.0.1", 0))
      print(reach("listen", "127.0.0.9", 0))
      print(reach("listen", "127.0.0.1", port))
      print(reach("udp_listen", "127.0.0.1", 0))
    ]])
  end)

  local CASES = {
    { { "127.0.0.1" }, { "127.0.0.1 0", "127.0.0.1 4321", "::ffff:127.0.0.1 0" },
      { "127.0.0.2 0", "0.0.0.0 0", ":: 0", "* 0", "::1 0", "localhost 0" } },
    { { "127.0.0.0/30:4321" }, { "127.0.0.1 4321", "127.0.0.3 4321" }, { "127.0.0.4 4321", "127.0.0.1 0" } },
    { { "localhost" }, { "localhost 0", "LOCALHOST. 0" }, { "127.0.0.1 0", "* 0" } },
    { { "*" }, { "* 0", "0.0.0.0 0", "127.0.0.1 1", ":: 0", "localhost 0" }, { "unix:/nowhere/x" } },
    { { ":4321" }, { "127.0.0.1 4321", "::1 4321", "0.0.0.0 4321", "* 4321" }, { "127.0.0.1 4322", "* 0" } },
    { { "[::1]:4321" }, { "::1 4321", "[::1] 4321" }, { ":: 4321", "* 4321", "127.0.0.1 4321" } },
    { { "unix:/nowhere/*" }, { "unix:/nowhere/x" }, { "unix:/nowhere/x/y", "127.0.0.1 0", "* 0" } },
    { {}, {}, { "127.0.0.1 0", "* 0", "unix:/nowhere/x", "localhost 0", ":: 1" } },
  }
  for _, case in ipairs(CASES) do
    for _, operation in ipairs { "listen", "udp_listen" } do
      it("= { " .. table.concat(case[1], ", ") .. " }, for " .. operation, function()
        if not policy.NOWHERE then
          return pending(policy.NO_NETWORK)
        end
        local targets = { {}, {} }
        for i = 1, 2 do
          for _, target in ipairs(case[i + 1]) do
            if operation == "listen" or not target:find("^unix:") then
              targets[i][#targets[i] + 1] = target
            end
          end
        end
        policy.decides({ { listen = case[1] } }, targets[1], targets[2], operation)
      end)
    end
  end

  -- `::` takes IPv4 as well, unless it is told not to. "both" does not tell it. "0" is a name, of 0.0.0.0.
  local WILDCARDS = {
    { { listen = { "::" } }, { "::", "*" } },
    { { listen = { "[::]/0" } }, { "::", "*" } },
    { { listen = { "0.0.0.0" } }, { "0.0.0.0", "::ffff:0.0.0.0" } },
    { { listen = { "0.0.0.0", "::" } }, { "0.0.0.0", "::ffff:0.0.0.0", "::", "*", "both ::", "both *" } },
    { { listen = { "127.0.0.1", "::1" } }, {} },
    { { deny = { "10.0.0.0/8" } }, { "::", "*" } },
    { { deny = { "[::ffff:10.0.0.0]/104" } }, { "::", "*" } },
    { { deny = { "8.8.8.8" } }, { "::", "*" } },
    { { deny = { "fd00::1" } }, { "0.0.0.0", "::ffff:0.0.0.0", "0" } },
    { { deny = { "10.0.0.0/8:1", "[fd00::]/8:1", ":1" } },
      { "0.0.0.0", "::ffff:0.0.0.0", "0", "::", "*", "both ::", "both *" } },
    { { deny = { "unix:/x" } }, { "0.0.0.0", "::ffff:0.0.0.0", "0", "::", "*", "both ::", "both *" } },
    { { deny = { "10.0.0.0/8:4321" } }, { "::", "*" } },
    { { deny = { ":4321" } }, {} },
    { { deny = { "private" } }, {} },
  }
  for _, operation in ipairs { "listen", "udp_listen", "serve" } do
    it("counts all that a wildcard takes, for " .. operation, function()
      if not policy.NOWHERE then
        return pending(policy.NO_NETWORK)
      end
      for _, case in ipairs(WILDCARDS) do
        table.sort(case[2])
        prints({ table.concat(case[2], ", ") }, ([[
          tcp.allow(%s)
          local passed = {}
          for _, target in ipairs { "*", "0", "0.0.0.0", "::", "::ffff:0.0.0.0", "both *", "both ::" } do
            local host = target:match("%%S+$")
            local options = { ipv6_only = target == host and host:find("^[*:]") ~= nil and not host:find("ffff") }
            local kind = %q == "serve" and reach("serve", host, 4321, function() end, options)
              or reach(%q, host, 4321, options)
            if kind ~= "denied" then
              passed[#passed + 1] = target
            end
          end
          print(table.concat(passed, ", "))
        ]]):format(text(case[1]), operation, operation), policy.NOWHERE)
      end
    end)
  end

  it("looks at the port that the system has picked", function()
    if not policy.NOWHERE then
      return pending(policy.NO_NETWORK)
    end
    prints({ "denied", "denied", "reached" }, [[
      local range = assert(io.open("/proc/sys/net/ipv4/ip_local_port_range", "w"))
      range:write("40000 40001")
      range:close()
      tcp.allow { deny = { "0.0.0.0:40000", "0.0.0.0:40001" } }
      print(reach("listen", "0.0.0.0", 0))
      print(reach("udp_listen", "0.0.0.0", 0))
      print(reach("listen", "::", 0, { ipv6_only = true }))
    ]], policy.NOWHERE)
  end)

  it("has denied addresses, too", function()
    if not policy.NOWHERE then
      return pending(policy.NO_NETWORK)
    end
    policy.decides({ { listen = { "*" }, deny = { "127.0.0.0/8", "[::1]:1" } } }, { "10.0.0.1 1", "::1 2" },
      { "127.0.0.1 0", "::1 1", "localhost 0", "127.1 0", "::ffff:127.0.0.1 0" }, "listen")
    -- Every address of the machine is none of the public ones.
    policy.decides({ { listen = { "*" }, deny = { "private" } } }, { "8.8.8.8 1" },
      { "127.0.0.1 0", "10.0.0.1 1", "* 0", "0.0.0.0 80", ":: 80" }, "listen")
  end)
end)
