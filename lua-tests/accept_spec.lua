local tcp = require("tcp.core")
local support = require("support")
local transports = require("support.transports")

local fails = support.fails
local unpack = table.unpack or unpack

local function close_all(...)
  for _, it in ipairs { ... } do
    it:close()
  end
end

--- The seconds that it took.
local function timed(fn)
  local began = tcp.now()
  fn()
  return tcp.now() - began
end

--- No task of a test outlives it.
local function nothing_is_left()
  tcp.run()
  assert.is_false(tcp.step(0))
end

for _, over in ipairs(transports.all) do
  describe("accept" .. over.suffix, function()
    local function listen(options)
      return over.tcp.listen("127.0.0.1", 0, options)
    end

    --- A client that says nothing: accepting waits for no handshake.
    local function connect(listener)
      return tcp.connect("127.0.0.1", listener:local_port())
    end

    --- Both ends of a new connection.
    local function pair(listener)
      local client = connect(listener)
      return client, listener:accept(5)
    end

    --- A client that is going to speak: somebody has to serve it.
    local function speak(listener, data)
      local client = over.tcp.connect("127.0.0.1", listener:local_port())
      client:write(data)
      return client
    end

    after_each(nothing_is_left)

    it("gives connections that know both their ends", function()
      for _, host in ipairs { "127.0.0.1", "::1" } do
        local listener = over.tcp.listen(host, 0)
        local client = tcp.connect(host, listener:local_port())
        local conn = listener:accept()
        assert.equal(client:local_addr(), conn:remote_addr())
        assert.equal(client:remote_addr(), conn:local_addr())
        assert.equal(host, conn:host())
        assert.equal(client:local_port(), conn:port())
        assert.equal(listener:local_port(), conn:local_port())
        local tls = over.is_tls and ", TLS" or ""
        local name = ("Connection (%s -> %s%s)"):format(conn:local_addr(), conn:remote_addr(), tls)
        assert.equal(name, tostring(conn))
        assert.equal(over.is_tls, conn:is_tls())
        close_all(client, conn, listener)
      end
    end)

    it("hands down the listener's options", function()
      local options = {
        newline = "\n", max_line = 11, max_packet = 12, max_json = 13, packet_endian = "little", nodelay = false,
        keepalive = 77,
      }
      local times = { read_timeout = 1.5, write_timeout = 2.5 }
      local all = { read_timeout = 1.5, write_timeout = 2.5 }
      for name, value in pairs(options) do
        all[name] = value
      end
      local listener = listen(all)
      all.newline = "changed later"
      local client, conn = pair(listener)
      for name, value in pairs(options) do
        assert.equal(value, conn:get_option(name), name)
      end
      for name, value in pairs(times) do
        assert.equal(value, conn[name](conn), name)
      end
      conn:set_option("max_line", 99)
      local other_client, other = pair(listener)
      assert.equal(11, other:get_option("max_line"))
      close_all(client, conn, other_client, other, listener)
      listener = listen()
      client, conn = pair(listener)
      assert.is_true(conn:get_option("nodelay"))
      assert.equal("\r\n", conn:get_option("newline"))
      assert.is_nil(conn:read_timeout())
      close_all(client, conn, listener)
    end)

    it("waits no longer than its time, alone and beside tasks", function()
      local listener = listen()
      local function try_all()
        fails("timeout", listener:try_accept(0))
        local taken = timed(function()
          local err = fails("timeout", listener:try_accept(0.1))
          assert.equal(("accept %s: timed out"):format(listener:addr()), tostring(err))
        end)
        assert.is_true(taken >= 0.1 and taken < 1, "took " .. taken)
        local client = connect(listener)
        for _, timeout in ipairs { 0, 5, math.huge } do
          local conn = listener:accept(timeout)
          close_all(conn, client)
          client = connect(listener)
        end
        close_all(client, listener:accept("5"))
      end
      try_all()
      tcp.run(try_all)
      local other = tcp.spawn(tcp.sleep, 30)
      try_all()
      other:cancel()
      listener:close()
    end)

    it("gives each connection to exactly one of those who wait", function()
      local listener = listen()
      local served, tasks = {}, {}
      for i = 1, 5 do
        tasks[i] = tcp.spawn(function()
          local conn, err = listener:try_accept()
          while conn do
            local name = conn:read_line()
            served[#served + 1] = name
            conn:write_line("hello " .. name)
            conn:close()
            conn, err = listener:try_accept()
          end
          return err.kind
        end)
      end
      local clients = {}
      for i = 1, 40 do
        clients[i] = tcp.spawn(function()
          local client = speak(listener, i .. "\r\n")
          local answer = client:read_line()
          client:close()
          return answer
        end)
      end
      for i = 1, 40 do
        assert.equal("hello " .. i, clients[i]:join(5))
      end
      assert.equal(40, #served)
      tasks[1]:cancel()
      fails("cancelled", tasks[1]:try_join(5))
      local client = speak(listener, "last\r\n")
      assert.equal("hello last", client:read_line({ timeout = 5 }))
      listener:close()
      for i = 2, 5 do
        assert.equal("closed", tasks[i]:join(5))
      end
      client:close()
    end)

    it("shares with code outside tasks", function()
      local listener = listen()
      local mine, theirs = 0, 0
      local task = tcp.spawn(function()
        local conn = listener:try_accept()
        while conn do
          theirs = theirs + 1
          conn:close()
          conn = listener:try_accept()
        end
      end)
      tcp.spawn(function()
        for _ = 1, 20 do
          connect(listener):close()
          tcp.sleep(0)
        end
        tcp.sleep(0.02)
        listener:close()
      end)
      local conn, err = listener:try_accept()
      while conn do
        mine = mine + 1
        conn:close()
        conn, err = listener:try_accept()
      end
      assert.equal("closed", err.kind)
      task:join(5)
      assert.equal(20, mine + theirs)
    end)

    it("is ended by close, once and for all", function()
      local listener = listen()
      local addr = listener:addr()
      local task = tcp.spawn(listener.try_accept, listener)
      tcp.step(0)
      listener:close()
      listener:close()
      local err = fails("closed", task:try_join(5))
      assert.equal(("accept %s: the listener is closed"):format(addr), tostring(err))
      fails("closed", listener:try_accept())
      fails("closed", listener:try_accept(0))
      assert.is_true(listener:is_closed())
      assert.equal(addr, listener:addr())
      assert.is_nil(listener:pollfd())
      assert.equal("Listener (" .. addr .. (over.is_tls and ", TLS" or "") .. ", closed)", tostring(listener))
    end)

    it("as an iterator ends when the listener is closed", function()
      local listener = listen()
      local clients = { connect(listener), connect(listener), connect(listener) }
      local count = 0
      for conn in listener:connections() do
        count = count + 1
        conn:close()
        if count == 3 then
          listener:close()
        end
      end
      assert.equal(3, count)
      close_all(unpack(clients))
      for _ in listener:connections() do
        error("a closed listener gives nothing")
      end
    end)

    it("as an iterator waits in a task, except on plain Lua 5.1, which says what to do", function()
      local listener = listen()
      local count = 0
      local task = tcp.spawn(function()
        for conn in listener:connections() do
          count = count + 1
          conn:close()
        end
      end)
      local clients = tcp.spawn(function()
        for _ = 1, 20 do
          connect(listener):close()
          tcp.sleep(0)
        end
        tcp.sleep(0.02)
        listener:close()
      end)
      local ok, err = pcall(task.join, task, 5)
      clients:join(5)
      if _VERSION == "Lua 5.1" and not jit then
        assert.is_false(ok)
        assert.matches("cannot wait in a for loop on Lua 5.1: use while and try_accept$", err)
      else
        assert.is_true(ok, tostring(err))
        assert.equal(20, count)
      end
    end)

    it("waits in coroutines: outside tasks in any, in a task in those of tcp.wrap", function()
      local listener = listen()
      local function accept()
        return listener:try_accept(0.02)
      end
      fails("timeout", coroutine.wrap(accept)())
      tcp.run(function()
        local wrapped = tcp.wrap(accept)
        fails("timeout", wrapped())
        local ok, err = tcp.pcall(coroutine.wrap(accept))
        assert.is_false(ok)
        assert.matches("cannot wait in a coroutine of the script's own inside a task: make it with tcp.wrap$", err)
      end)
      local client = connect(listener)
      accept():close()
      client:close()
      fails("timeout", tcp.try_with_timeout(0.02, listener.accept, listener))
      listener:close()
    end)

    it("waits in a task in a function that has no name", function()
      local listener = listen()
      local function make()
        return function()
          return listener:try_accept(0.02)
        end
      end
      tcp.run(function()
        fails("timeout", make()())
        fails("timeout", (function()
          return listener:try_accept(0.02)
        end)())
        fails("timeout", tcp.wrap(make())())
      end)
      listener:close()
    end)

    it("outlives clients that reset before: the first read tells", function()
      local listener = listen()
      for _ = 1, 3 do
        local client = connect(listener)
        client:set_option("linger", 0)
        client:close()
      end
      local alive = tcp.spawn(speak, listener, "x")
      tcp.sleep(0)
      local conn, got
      repeat
        if conn then
          conn:close()
        end
        conn = listener:accept(5)
        got = conn:try_read(1, { timeout = 5 })
      until got
      assert.equal("x", got)
      close_all(conn, alive:join(5))
      tcp.run()
      fails("timeout", listener:try_accept(0))
      listener:close()
    end)

    it("serves a burst of 500", function()
      local listener = listen()
      local served, clients = 0, {}
      tcp.spawn(function()
        while served < 500 do
          tcp.spawn(function(conn)
            conn:write(conn:read(3))
            conn:close()
          end, listener:accept(5))
          served = served + 1
        end
      end)
      for i = 1, 500 do
        clients[i] = speak(listener, ("%03d"):format(i % 1000))
      end
      for i = 1, 500 do
        assert.equal(("%03d"):format(i % 1000), clients[i]:read_str({ timeout = 5 }))
        clients[i]:close()
      end
      tcp.run()
      assert.equal(500, served)
      listener:close()
    end)

    if _VERSION >= "Lua 5.4" then
      it("ends with the block of its listener", function()
        local listener = assert(load([[
          local listener <close> = ...
          return listener
        ]]))(listen())
        assert.is_true(listener:is_closed())
      end)
    end
  end)
end
