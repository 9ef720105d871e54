-- tcp.serve as it is meant to be used, and where it cannot listen.

local lfs = require("lfs")
local serving = require("support.serving")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local cleanly, echo, is_served, wait_until = serving.cleanly, serving.echo, serving.is_served, serving.wait_until
local fails = support.fails
local PATIENCE = serving.PATIENCE

-- A label of more than 63 bytes: the resolver refuses it without asking anybody.
local UNKNOWN = ("x"):rep(64)

local function collect_garbage()
  collectgarbage()
  collectgarbage()
end

for _, over in ipairs(serving.all) do
  local serve, connect = over.serve, over.connect

  describe("serve" .. over.suffix, function()
    after_each(serving.clean)

    it("gives each connection to the handler, and closes it when that returns", cleanly(function()
      local seen = {}
      local server = serve(function(...)
        local conn = ...
        seen[#seen + 1] = { count = select("#", ...), conn = conn, was_closed = conn:is_closed() }
        conn:write_line("hello")
        return "nobody", "asks"
      end)
      for i = 1, 3 do
        local client = connect(server)
        assert.equal("hello\r\n", client:read_str())
        assert.equal(i, #seen)
        assert.same({ 1, false, true }, { seen[i].count, seen[i].was_closed, seen[i].conn:is_closed() })
        if not over.is_unix then
          assert.equal(client:local_addr(), seen[i].conn:remote_addr())
        end
        client:close()
      end
    end))

    it("runs each handler in a task of its own: who says nothing holds up nobody", cleanly(function()
      local server = serve(echo)
      local clients = {}
      for i = 1, 20 do
        clients[i] = connect(server)
      end
      for i = 20, 2, -1 do
        is_served(clients[i])
      end
      for i = 1, 20 do
        is_served(clients[i])
      end
    end))

    it("takes whatever can be called", cleanly(function()
      local server = serve(setmetatable({ greeting = "hi" }, {
        __call = function(self, conn)
          conn:write(self.greeting)
        end,
      }))
      assert.equal("hi", connect(server):read_str())
    end))

    it("lets a handler close its connection itself", cleanly(function()
      local was_closed
      local server = serve(function(conn)
        conn:write("bye")
        conn:close()
        conn:close()
        was_closed = conn:is_closed()
      end)
      assert.equal("bye", connect(server):read_str())
      assert.is_true(was_closed)
      assert.equal("bye", connect(server):read_str())
    end))

    it("gives a Server that knows where it is, also when it is closed", cleanly(function()
      local server = serve(echo)
      local addr, host, port = server:addr(), server:local_host(), server:local_port()
      local tls = over.is_tls and ", TLS" or ""
      assert.equal("Server (" .. addr .. tls .. ")", tostring(server))
      assert.is_false(server:is_closed())
      if over.is_unix then
        assert.equal(host, addr)
        assert.matches("^unix:/", host)
        assert.is_nil(port)
      else
        assert.equal("127.0.0.1", host)
        assert.equal("127.0.0.1:" .. port, addr)
        assert.is_true(port > 0)
      end
      server:close()
      assert.is_true(server:is_closed())
      assert.same({ addr, host, port }, { server:addr(), server:local_host(), server:local_port() })
      assert.equal("Server (" .. addr .. tls .. ", closed)", tostring(server))
      assert.equal(0, server:connections())
    end))

    it("counts the connections that are being handled", cleanly(function()
      local server = serve(echo)
      assert.equal(0, server:connections())
      local clients = {}
      for i = 1, 5 do
        clients[i] = connect(server)
        is_served(clients[i])
        assert.equal(i, server:connections())
      end
      for i = 5, 1, -1 do
        clients[i]:close()
        wait_until(function() return server:connections() == i - 1 end)
      end
      tcp.run(function()
        is_served(connect(server))
        assert.equal(1, server:connections())
      end)
    end))

    it("hands its options down, as they were when it was called", cleanly(function()
      local options = {
        newline = "!", max_line = 11, max_packet = 12, max_json = 13, packet_endian = "little", nodelay = false,
        keepalive = 77,
      }
      local given = { read_timeout = 1.5, write_timeout = 2.5 }
      local expected = {}
      for name, value in pairs(options) do
        given[name] = value
        -- A unix socket has neither.
        if not over.is_unix or name ~= "nodelay" and name ~= "keepalive" then
          expected[name] = value
        end
      end
      given.on_error = function(_, _, traceback)
        error(traceback, 0)
      end
      given.tls = over.server_tls
      local found, times
      local host, port = over.place()
      local server = serving.opens_server(tcp.serve(host, port, function(conn)
        found, times = {}, { conn:read_timeout(), conn:write_timeout() }
        for name in pairs(expected) do
          found[name] = conn:get_option(name)
        end
        conn:set_option("max_line", 99)
        conn:write_line("seen")
      end, given))
      given.newline, given.read_timeout, given.max_line = "changed later", 9, 9
      for _ = 1, 2 do
        assert.equal("seen!", connect(server):read_str())
        assert.same(expected, found)
        assert.same({ 1.5, 2.5 }, times)
      end
    end))

    it("goes on though nobody holds the Server", cleanly(function()
      local host, port, leave
      do
        local server
        server = tcp.serve(over.is_unix and over.place() or "127.0.0.1", not over.is_unix and 0 or nil, function(conn)
          echo(conn)
          if leave then
            server:close()
          end
        end, { tls = over.server_tls })
        host, port = server:local_host(), server:local_port()
      end
      local place = { local_host = function() return host end, local_port = function() return port end }
      for _ = 1, 3 do
        collect_garbage()
        local client = connect(place)
        is_served(client)
        collect_garbage()
        is_served(client)
        client:close()
      end
      -- The last handler has not yet seen that its client went.
      leave = true
      tcp.with_timeout(PATIENCE, tcp.run)
    end))

    it("has run go on until it is closed and its handlers have ended", cleanly(function()
      local gate, ended = tcp.queue(), 0
      local server
      server = serve(function(conn)
        local line = conn:read_line()
        if line == "close" then
          tcp.spawn(server.close, server, math.huge)
        end
        gate:pop()
        ended = ended + 1
        conn:write_line("done")
      end)
      local clients = { connect(server), connect(server) }
      tcp.spawn(function()
        clients[1]:write_line("stay")
        clients[2]:write_line("close")
        wait_until(function() return server:is_closed() end)
        gate:push(1)
        gate:push(2)
      end)
      tcp.with_timeout(PATIENCE, tcp.run)
      assert.equal(2, ended)
      for i = 1, 2 do
        assert.equal("done", clients[i]:read_line())
      end
    end))

    it("outlives the task that called it, however that ended", cleanly(function()
      local server
      local function begin()
        server = serve(echo)
        tcp.sleep(60)
      end
      local ways = {
        returned = function() tcp.run(function() server = serve(echo) end) end,
        failed = function()
          tcp.spawn(function() server = serve(echo) error("left") end):try_join()
        end,
        cancelled = function()
          local task = tcp.spawn(begin)
          wait_until(function() return server end)
          task:cancel()
          task:try_join()
        end,
        ["timed out"] = function() fails("timeout", tcp.try_with_timeout(0.05, begin)) end,
        ["a coroutine"] = function() coroutine.wrap(function() server = serve(echo) end)() end,
      }
      for name, way in pairs(ways) do
        server = nil
        way()
        local client = connect(server)
        is_served(client)
        -- Neither may a handler be under the limit in which it was begun.
        assert.is_false(server:is_closed(), name)
        is_served(client)
      end
    end))

    it("is driven by step, too", cleanly(function()
      local answer
      local server = serve(echo)
      local task = tcp.spawn(function()
        local client = connect(server)
        client:write_line("hello")
        answer = client:read_line()
      end)
      local deadline = tcp.now() + PATIENCE
      while task:status() ~= "done" and tcp.now() < deadline do
        assert.is_true(tcp.step(0.01))
      end
      assert.equal("HELLO", answer)
      -- A server that waits for clients is a task that is left.
      assert.is_true(tcp.step(0))
    end))

    it("serves from inside a handler of another server", cleanly(function()
      local inner
      local outer = serve(function(conn)
        inner = serve(echo)
        conn:write_line("begun")
      end)
      assert.equal("begun", connect(outer):read_line())
      is_served(connect(inner))
    end))

    it("lets handlers use the tasks' whole range", cleanly(function()
      local queue = tcp.queue(1)
      local server = serve(function(conn)
        local spawned = tcp.spawn(function() return conn:read_line() end)
        local line = spawned:join()
        queue:push(line)
        local wrapped = tcp.wrap(function() return queue:pop() end)
        local again = wrapped()
        tcp.sleep(0)
        conn:write_line(again .. tostring(tcp.try_with_timeout(0, tcp.sleep, 60)))
      end)
      local client = connect(server)
      client:write_line("x")
      assert.equal("xnil", client:read_line())
    end))
  end)
end

describe("serve", function()
  after_each(serving.clean)

  it("takes literals, names, every address and numeric strings", cleanly(function()
    local cases = {
      { host = "127.0.0.1", addr = "127.0.0.1:", to = { "127.0.0.1" } },
      { host = "::1", addr = "[::1]:", to = { "::1" } },
      { host = "[::1]", addr = "[::1]:", to = { "::1" } },
      { host = "LocalHost", addr = "127.0.0.1:", to = { "127.0.0.1" } },
      { host = "*", addr = "[::]:", to = { "127.0.0.1", "::1" } },
    }
    for _, case in ipairs(cases) do
      local server = serving.opens_server(tcp.serve(case.host, "0", echo))
      assert.equal(case.addr .. server:local_port(), server:addr())
      for _, host in ipairs(case.to) do
        local client = serving.opens(tcp.connect(host, server:local_port(), { read_timeout = PATIENCE }))
        is_served(client)
      end
    end
  end))

  it("takes the options of listen", cleanly(function()
    local server, other
    -- Others may have the port that the system picks, for IPv4.
    wait_until(function()
      server = serving.opens_server(tcp.serve("*", 0, echo, { ipv6_only = true, backlog = 3 }))
      other = tcp.try_serve("0.0.0.0", server:local_port(), function(conn)
        conn:write_line("IPv4")
      end)
      return other
    end)
    serving.opens_server(other)
    local ipv6 = serving.opens(tcp.connect("::1", server:local_port(), { read_timeout = PATIENCE }))
    is_served(ipv6)
    local ipv4 = serving.opens(tcp.connect("127.0.0.1", other:local_port(), { read_timeout = PATIENCE }))
    assert.equal("IPv4", ipv4:read_line())
  end))

  it("answers its try_ form with a Server, too", cleanly(function()
    local server, none = tcp.try_serve("127.0.0.1", 0, echo)
    serving.opens_server(server)
    assert.is_nil(none)
    is_served(serving.plain.connect(server))
  end))

  it("has shaken hands before the handler runs", cleanly(function()
    local seen
    local server = serving.tls.serve(function(conn)
      seen = { conn:is_tls(), conn:protocol(), conn:cipher(), conn:server_name() }
    end, { tls = { cert = transports.SERVER.cert, key = transports.SERVER.key, protocols = { "TLSv1.2" } } })
    local client = serving.tls.connect(server, { tls = { ca_bundle = transports.CLIENT.ca_bundle, sni = "localhost" } })
    assert.equal("", client:read_str())
    assert.same({ true, "TLSv1.2", client:cipher(), "localhost" }, seen)
  end))

  it("lets a handler upgrade its connection to TLS", cleanly(function()
    local server = serving.plain.serve(function(conn)
      assert(conn:read_line() == "STARTTLS")
      conn:write_line("go ahead")
      conn:start_tls { server = true, cert = transports.SERVER.cert, key = transports.SERVER.key }
      echo(conn)
    end)
    local client = serving.plain.connect(server)
    client:write_line("STARTTLS")
    assert.equal("go ahead", client:read_line())
    client:start_tls { ca_bundle = transports.CLIENT.ca_bundle, sni = "localhost" }
    is_served(client)
  end))

  it("counts a connection from its acceptance on, handshake included", cleanly(function()
    local ran = 0
    local server = serving.tls.serve(function() ran = ran + 1 end, { on_error = function() end })
    local silent = serving.tls.connect_plainly(server)
    wait_until(function() return server:connections() == 1 end)
    assert.equal("", serving.tls.connect(server):read_str())
    assert.same({ 1, 1 }, { server:connections(), ran })
    silent:close()
    wait_until(function() return server:connections() == 0 end)
    assert.equal(1, ran)
  end))
end)

describe("serve that cannot listen", function()
  after_each(serving.clean)

  it("fails as listen does, naming the place, and leaves no task", cleanly(function()
    local taken = serving.plain.serve(echo)
    local path = serving.unix.serve(echo):local_host()
    local port = taken:local_port()
    local absent = path .. "/no/such/directory"
    local cases = {
      { "address_in_use", "127.0.0.1", port, ": address already in use" },
      { "address_in_use", "*", port },
      { "address_in_use", path, nil, ": address already in use" },
      { "system", "192.0.2.1", 0, ": cannot assign requested address" },
      { "system", "2001:db8::1", 0 },
      { "system", absent, nil },
      { "resolve", UNKNOWN, 80 },
    }
    for _, case in ipairs(cases) do
      local err = fails(case[1], tcp.try_serve(case[2], case[3], echo))
      assert.equal("serve", err.op)
      assert.is_truthy(err.peer:find(case[2], 1, true), err.peer)
      if case[4] then
        assert.equal("serve " .. err.peer .. case[4], tostring(err))
      end
      local raised = support.raises(case[1], tcp.serve, case[2], case[3], echo)
      assert.equal("serve", raised.op)
    end
    is_served(serving.plain.connect(taken))
    taken:close(0)
    is_served(serving.plain.connect(serving.opens_server(tcp.serve("127.0.0.1", port, echo))))
  end))

  it("says where it was called, in a task, too", cleanly(function()
    local port = serving.plain.serve(echo):local_port()
    local at = debug.getinfo(1, "l").currentline + 2
    local task = tcp.spawn(function()
      local server = tcp.serve("127.0.0.1", port, echo)
      return server
    end)
    local err = fails("address_in_use", task:try_join())
    assert.matches("serve_spec%.lua:" .. at .. "$", err.where)
  end))

  it("takes no address if its certificate cannot be used", cleanly(function()
    local server = serving.plain.serve(echo)
    local port = server:local_port()
    server:close()
    local tls = { cert = transports.certificate("server"), key = transports.certificate("rsa", "key") }
    fails("tls", tcp.try_serve("127.0.0.1", port, echo, { tls = tls }))
    local path = serving.new_path()
    fails("tls", tcp.try_serve("unix:" .. path, nil, echo, { tls = tls }))
    assert.is_nil(lfs.attributes(path))
    tcp.listen("127.0.0.1", port):close()
  end))

  it("needs permission for low ports", function()
    local prefix = "setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all"
    local limit = assert(io.open("/proc/sys/net/ipv4/ip_unprivileged_port_start"))
    local first_free = limit:read("*n")
    limit:close()
    if not support.succeeds(prefix .. " true") or first_free < 81 then
      return pending("a plain user needs root, setpriv, and ports that are privileged")
    end
    -- The plain user cannot read a temporary file of root's: the script comes on the standard input.
    local output = support.child([[
      local _, err = require("tcp").try_serve("127.0.0.1", 80, print)
      print(err.kind, err.errno, err)
    ]], ("sh -c 'exec %s \"$1\" - <\"$2\"' sh"):format(prefix))
    if output:find("not found") then
      return pending("a plain user cannot read this directory: " .. output:match("[^\n]*"))
    end
    assert.equal("system\t13\tserve 127.0.0.1:80: permission denied\n", output)
  end)
end)
