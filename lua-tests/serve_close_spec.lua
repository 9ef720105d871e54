-- Server:close: whom it waits for, whom it cancels, and what is left then. In handlers: serve_close_handlers_spec.lua.

local lfs = require("lfs")
local serving = require("support.serving")
local support = require("support")
local tcp = require("tcp.core")

local cleanly, echo, is_served, wait_until = serving.cleanly, serving.echo, serving.is_served, serving.wait_until
local closing, hold, is_over, release, results =
  serving.closing, serving.hold, serving.is_over, serving.release, serving.results
local fails = support.fails
local PATIENCE = serving.PATIENCE

-- The default grace is 5 seconds, and so long this file takes: what shows it runs beside the other tests.
local child, script

setup(function()
  script = os.tmpname()
  local file = assert(io.open(script, "w"))
  file:write([[
    local tcp = require("tcp")
    local begun
    local server = tcp.serve("127.0.0.1", 0, function(conn)
      begun = tcp.now()
      conn:read_line()
    end)
    local client = tcp.connect("127.0.0.1", server:local_port())
    while not begun do tcp.sleep(0) end
    server:close()
    local taken = tcp.now() - begun
    print(taken >= 4.99 and taken < 9 or taken)
    client:close()
  ]])
  file:close()
  child = assert(io.popen(support.LUA .. " " .. script .. " 2>&1"))
end)

for _, over in ipairs(serving.all) do
  local serve, connect = over.serve, over.connect

  describe("close of a server" .. over.suffix, function()
    after_each(serving.clean)

    it("accepts nobody any more, and waits for the handlers that run", cleanly(function()
      local it = hold(over, 3)
      local task = closing(it, math.huge)
      assert.equal("waiting", task:status())
      fails("refused", tcp.try_connect(it.server:local_host(), it.server:local_port()))
      release(it, 2)
      wait_until(function() return it.ended == 2 end)
      tcp.sleep(0)
      assert.equal("waiting", task:status())
      assert.equal(1, it.server:connections())
      release(it, 1)
      assert.same({ 0, 3, 0, 0 }, results(task))
      for i = 1, 3 do
        assert.equal("done\r\n", it.clients[i]:read_str())
      end
      is_over(it.server)
    end))

    it("cancels those that run after its grace, and returns when they have ended", cleanly(function()
      for _, grace in ipairs { 0.05, "0.05", 0 } do
        local it = hold(over, 3)
        release(it, 1)
        wait_until(function() return it.server:connections() == 2 end)
        local began = tcp.now()
        assert.same({ 0, 1, 2, 0 }, results(closing(it, grace)))
        local taken = tcp.now() - began
        -- Less than the 5 s without a grace.
        assert.is_true(taken >= tonumber(grace) and taken < 4, "it took " .. taken)
        fails("cancelled", nil, it.err)
        local answers = {}
        for i = 1, 3 do
          answers[i] = it.clients[i]:read_str()
        end
        table.sort(answers)
        assert.same({ "", "", "done\r\n" }, answers)
        is_over(it.server)
      end
    end))

    it("works outside tasks, while the tasks go on", cleanly(function()
      local it = hold(over, 2)
      local ticks = 0
      local ticker = tcp.spawn(function()
        for _ = 1, 10 do
          tcp.sleep(0)
          ticks = ticks + 1
        end
        release(it, 2)
      end)
      assert.equal(0, select("#", it.server:close()))
      assert.same({ 10, 2, 0 }, { ticks, it.ended, it.cut })
      ticker:join()
      is_over(it.server)
      assert.is_false(tcp.step(0))
    end))

    it("waits for handlers that take their time to heed it", cleanly(function()
      local ended, begun = 0, 0
      local server = serve(function()
        begun = begun + 1
        tcp.pcall(tcp.sleep, 60)
        for _ = 1, 5 do
          tcp.pcall(tcp.sleep, 60)
        end
        ended = ended + 1
      end)
      for _ = 1, 2 do
        connect(server)
      end
      wait_until(function() return begun == 2 end)
      server:close(0)
      assert.equal(2, ended)
      is_over(server)
    end))

    it("cuts every kind of wait of a handler", cleanly(function()
      local begun, kinds = 0, {}
      local listener = serving.opens(tcp.listen("127.0.0.1", 0))
      local other = tcp.spawn(tcp.sleep, 60)
      local full = tcp.queue(1)
      full:push(1)
      local ways = {
        sleep = function() tcp.sleep(60) end,
        read = function(conn) conn:read(10) end,
        recv = function(conn) conn:recv(10, { timeout = 60 }) end,
        write = function(conn)
          while true do
            conn:write(("x"):rep(100000))
          end
        end,
        accept = function() listener:accept() end,
        join = function() other:join() end,
        pop = function() tcp.queue():pop() end,
        push = function() full:push(2) end,
        limited = function() tcp.with_timeout(60, tcp.sleep, 60) end,
        wrapped = function() tcp.wrap(tcp.sleep)(60) end,
      }
      local count = 0
      local server = serve(function(conn)
        local name = conn:read_line()
        begun = begun + 1
        local _, err = tcp.pcall(ways[name], conn)
        kinds[name] = err.kind
      end)
      for name in pairs(ways) do
        connect(server):write_line(name)
        count = count + 1
      end
      wait_until(function() return begun == count end)
      server:close(0)
      for name in pairs(ways) do
        assert.equal("cancelled", kinds[name], name)
      end
      other:cancel()
      is_over(server)
    end))

    it("that is cancelled cancels the handlers that are left", cleanly(function()
      local it = hold(over, 3)
      local err
      local task = tcp.spawn(function()
        local _
        _, err = tcp.pcall(it.server.close, it.server, math.huge)
      end)
      wait_until(function() return it.server:is_closed() end)
      release(it, 1)
      wait_until(function() return it.ended == 1 end)
      assert.equal(0, it.cut)
      task:cancel()
      wait_until(function() return it.server:connections() == 0 end)
      assert.same({ 1, 2 }, { it.ended, it.cut })
      fails("cancelled", task:try_join(PATIENCE))
      fails("cancelled", nil, err)
      is_over(it.server)
    end))

    it("under a limit that strikes cancels the handlers that are left", cleanly(function()
      for _, run in ipairs { function(fn) return fn() end, tcp.run } do
        local it = hold(over, 2)
        run(function()
          fails("timeout", tcp.try_with_timeout(0.05, it.server.close, it.server, math.huge))
        end)
        wait_until(function() return it.cut == 2 end)
        fails("cancelled", nil, it.err)
        wait_until(function() return it.server:connections() == 0 end)
        is_over(it.server)
      end
    end))

    it("by others with less patience ends the wait of those with more", cleanly(function()
      local it = hold(over, 2)
      local patient, limited = closing(it, math.huge), closing(it, 60)
      assert.same({ 0, 0, 2, 0 }, results(closing(it, 0.01)))
      assert.same({ 0, 0, 2, 0 }, results(patient))
      assert.same({ 0, 0, 2, 0 }, results(limited))
    end))

    it("with more patience does not lengthen the wait of those with less", cleanly(function()
      local it = hold(over, 2)
      local hasty, patient = closing(it, 0.05), closing(it, math.huge)
      assert.same({ 0, 0, 2, 0 }, results(hasty))
      assert.same({ 0, 0, 2, 0 }, results(patient))
    end))

    it("may be called again and again, before anything has run, too", cleanly(function()
      local ran = false
      local server = serve(function() ran = true end)
      for _ = 1, 3 do
        server:close()
        server:close(0)
        tcp.run(function() server:close(math.huge) end)
      end
      is_over(server)
      assert.is_false(ran)
    end))

    it("frees the place, at once and for another server", cleanly(function()
      local it = hold(over, 2)
      local host, port = it.server:local_host(), it.server:local_port()
      local task = closing(it, math.huge)
      if over.is_unix then
        assert.is_nil(lfs.attributes((host:gsub("^unix:", ""))))
      end
      local next_server = serving.opens_server(tcp.serve(host, port, echo, { tls = over.server_tls }))
      is_served(connect(next_server))
      release(it, 2)
      assert.same({ 0, 2, 0, 0 }, results(task))
      is_served(connect(next_server))
    end))

    it("ends connections that were accepted and never handled, or not even accepted", cleanly(function()
      local it = hold(over, 1, { max_connections = 1 })
      local waiting = {}
      for i = 1, 3 do
        waiting[i] = over.connect_plainly(it.server)
      end
      tcp.sleep(0)
      it.server:close(0)
      for i = 1, 3 do
        serving.is_ended(waiting[i])
      end
      assert.equal(1, it.begun)
      is_over(it.server)
    end))

    it("ends a connection whose handler has not begun", cleanly(function()
      local begun, ended = 0, 0
      local server = serve(function(conn)
        begun = begun + 1
        conn:read_line()
        ended = ended + 1
      end)
      local client = over.connect_plainly(server)
      -- One round after the other, so that none comes between.
      while server:connections() == 0 do
        tcp.step(0)
      end
      server:close(0)
      serving.is_ended(client)
      assert.is_true(begun <= 1)
      assert.equal(0, ended)
      is_over(server)
    end))

    it("that waits for what cannot come says so, and can be called again", cleanly(function()
      local it = hold(over, 2)
      local ok, err = pcall(it.server.close, it.server, math.huge)
      assert.is_false(ok)
      assert.matches("'close' would wait for ever: 2 tasks wait .*pop at .*serving%.lua", tostring(err))
      it.server:close(0)
      assert.equal(2, it.cut)
      is_over(it.server)
    end))

    if _VERSION >= "Lua 5.4" then
      it("comes at the end of its block, in a task, too", cleanly(function()
        local block = assert(load([[
          local server <close>, use = ...
          use(server)
        ]]))
        for _, run in ipairs { function(fn) fn() end, tcp.run } do
          local it = hold(over, 2)
          run(function()
            block(it.server, function(server)
              assert.is_false(server:is_closed())
              release(it, 2)
            end)
            assert.same({ 2, 0 }, { it.ended, it.cut })
          end)
          is_over(it.server)
          it = hold(over, 1)
          run(function()
            local ok, err = tcp.pcall(block, it.server, function()
              release(it, 1)
              error("left", 0)
            end)
            assert.same({ false, "left", 1 }, { ok, err, it.ended })
          end)
          is_over(it.server)
        end
      end))
    end
  end)
end

describe("close of a server", function()
  after_each(serving.clean)

  it("ends handshakes that are under way, and tells nobody", cleanly(function()
    local server = serving.tls.serve(function() end)
    local silent, half = serving.tls.connect_plainly(server), serving.tls.connect_plainly(server)
    half:write("\22\3\1\2\0\1\0\1\252\3\3")
    wait_until(function() return server:connections() == 2 end)
    server:close(0.05)
    serving.is_ended(silent)
    serving.is_ended(half)
    is_over(server)
  end))

  it("waits for a handshake that is under way, and its handler", cleanly(function()
    local served
    local server = serving.tls.serve(function(conn)
      conn:write_line("hello")
      served = true
    end)
    local raw = serving.tls.connect_plainly(server)
    wait_until(function() return server:connections() == 1 end)
    local task = tcp.spawn(server.close, server, 60)
    wait_until(function() return server:is_closed() end)
    raw:start_tls { ca_bundle = "build/certificates/ca.pem", sni = "localhost" }
    assert.equal("hello\r\n", raw:read_str())
    task:join(PATIENCE)
    assert.is_true(served)
    is_over(server)
  end))

  for _, over in ipairs { serving.plain, serving.unix } do
    it("ends all connections of a burst in which it comes" .. over.suffix, cleanly(function()
      finally(function() collectgarbage("restart") end)
      -- Which would end what has been forgotten.
      collectgarbage("stop")
      local begun = 0
      local server
      server = over.serve(function(conn)
        begun = begun + 1
        if begun == 1 then
          server:close(0)
        else
          conn:try_read_str()
        end
      end)
      support.with_child(([[
        local tcp = require("tcp")
        local clients, left = {}, 0
        for i = 1, 40 do
          clients[i] = tcp.connect(%q, %s)
        end
        io.stderr:write("connected\n")
        for i = 1, 40 do
          local _, err = clients[i]:try_read_str({ timeout = 10 })
          left = left + (tcp.is_error(err, "timeout") and 1 or 0)
        end
        print(left)
      ]]):format(server:local_host(), tostring(server:local_port())), function(process)
        -- Nobody has been accepted yet, for this waits without the loop.
        assert.equal("connected", process:read("*l"))
        tcp.with_timeout(PATIENCE, tcp.run)
        assert.is_true(server:is_closed())
        assert.equal("0\n", process:read("*a"))
      end)
    end))
  end

  it("leaves nothing that holds the server or its handler", cleanly(function()
    local weak = setmetatable({}, { __mode = "k" })
    do
      local handler = function(conn) conn:write_line("hello") end
      local server = tcp.serve("127.0.0.1", 0, handler)
      weak[server], weak[handler] = true, true
      local client = serving.plain.connect(server)
      assert.equal("hello\r\n", client:read_str())
      server:close()
    end
    tcp.run()
    tcp.sleep(0)
    for _ = 1, 3 do
      collectgarbage()
    end
    assert.is_nil(next(weak))
  end))

  it("has 5 seconds of grace if it is not told otherwise", function()
    local output = child:read("*a")
    child:close()
    os.remove(script)
    assert.equal("true\n", output)
  end)
end)
