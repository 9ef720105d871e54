-- Server:close in handlers, which wait for each other's end in vain, and so do not wait for it.

local serving = require("support.serving")
local support = require("support")
local tcp = require("tcp.core")

local cleanly, is_over, results, wait_until = serving.cleanly, serving.is_over, serving.results, serving.wait_until
local fails = support.fails

for _, over in ipairs(serving.all) do
  local serve, connect = over.serve, over.connect

  describe("close of a server" .. over.suffix, function()
    after_each(serving.clean)

    it("in a handler waits for the others, and the handler goes on then", cleanly(function()
      local others, gate = 0, tcp.queue()
      local server
      server = serve(function(conn)
        if conn:read_line() == "close" then
          server:close(math.huge)
          conn:write_line(("%d others, %d left"):format(others, server:connections()))
          conn:write_line("and " .. conn:read_line())
        else
          gate:pop()
          others = others + 1
        end
      end)
      local clients = {}
      for i = 1, 4 do
        clients[i] = connect(server)
      end
      wait_until(function() return server:connections() == 4 end)
      for i = 1, 4 do
        clients[i]:write_line(i == 1 and "close" or "wait")
      end
      wait_until(function() return server:is_closed() end)
      assert.equal(0, others)
      for i = 1, 3 do
        gate:push(i)
      end
      assert.equal("3 others, 1 left", clients[1]:read_line())
      clients[1]:write_line("more")
      assert.equal("and more\r\n", clients[1]:read_str())
      wait_until(function() return server:connections() == 0 end)
      is_over(server)
    end))

    it("in a handler cancels the others after its grace, but not itself nor those that close", cleanly(function()
      for _, grace in ipairs { 0, 0.05 } do
        local cut, closed
        local begun = 0
        local server
        server = serve(function(conn)
          local line = conn:read_line()
          begun = begun + 1
          if line == "wait" then
            local _, err = tcp.pcall(tcp.sleep, 60)
            cut = err.kind
          else
            server:close(line == "close" and grace or math.huge)
            closed = (closed or 0) + 1
            conn:write_line("closed")
            conn:write_line("and " .. conn:read_line())
          end
        end)
        local clients = {}
        for i = 1, 3 do
          clients[i] = connect(server)
          wait_until(function() return server:connections() == i end)
        end
        for i, line in ipairs { "wait", "be patient", "close" } do
          clients[i]:write_line(line)
          wait_until(function() return begun == i end)
        end
        for i = 2, 3 do
          assert.equal("closed", clients[i]:read_line())
        end
        assert.same({ "cancelled", 2 }, { cut, closed })
        for i = 2, 3 do
          clients[i]:write_line("on")
          assert.equal("and on\r\n", clients[i]:read_str())
        end
        wait_until(function() return server:connections() == 0 end)
        is_over(server)
      end
    end))

    it("that could not wait leaves its handler one that is waited for", cleanly(function()
      local gate, advice, ended = tcp.queue(), nil, false
      local server
      server = serve(function(conn)
        if conn:read_line() == "close" then
          server:close(math.huge)
          conn:write_line(ended and "none runs" or "one runs")
        else
          local _
          _, advice = tcp.pcall(coroutine.wrap(server.close), server, math.huge)
          gate:pop()
          ended = true
        end
      end)
      local wrong, right = connect(server), connect(server)
      wait_until(function() return server:connections() == 2 end)
      wrong:write_line("close where one cannot wait")
      wait_until(function() return advice end)
      assert.matches("cannot wait in a coroutine of the script's own inside a task: make it with tcp.wrap$", advice)
      right:write_line("close")
      -- It has begun to wait, or has not waited.
      for _ = 1, 20 do
        tcp.sleep(0.001)
      end
      gate:push(1)
      assert.equal("none runs\r\n", right:read_str())
      wait_until(function() return server:connections() == 0 end)
      is_over(server)
    end))

    it("in several handlers at once waits for none of them", cleanly(function()
      local count, closed, gate, waiting = 6, 0, tcp.queue(), 0
      local server
      server = serve(function(conn)
        local line = conn:read_line()
        if line == "close" then
          waiting = waiting + 1
          -- Each in its own way.
          if waiting % 2 == 0 then
            tcp.wrap(server.close)(server, math.huge)
          else
            server:close(math.huge)
          end
          closed = closed + 1
          conn:write_line("closed")
        else
          gate:pop()
          conn:write_line("ended, " .. closed)
        end
      end)
      local clients = {}
      for i = 1, count do
        clients[i] = connect(server)
      end
      -- All are accepted before one closes.
      wait_until(function() return server:connections() == count end)
      for i = 1, count do
        clients[i]:write_line(i == count and "wait" or "close")
      end
      wait_until(function() return waiting == count - 1 end)
      tcp.sleep(0)
      assert.equal(0, closed)
      gate:push(1)
      assert.equal("ended, 0", clients[count]:read_line())
      for i = 1, count - 1 do
        assert.equal("closed\r\n", clients[i]:read_str())
      end
      wait_until(function() return server:connections() == 0 end)
      is_over(server)
    end))

    it("outside handlers waits for those that close, too", cleanly(function()
      local gate, closed = tcp.queue(), 0
      local server
      server = serve(function(conn)
        if conn:read_line() == "close" then
          server:close(math.huge)
          closed = closed + 1
          tcp.sleep(0)
          conn:write_line("closed")
        else
          gate:pop()
        end
      end)
      local one, two = connect(server), connect(server)
      wait_until(function() return server:connections() == 2 end)
      one:write_line("close")
      two:write_line("wait")
      wait_until(function() return server:is_closed() end)
      local task = tcp.spawn(function()
        server:close(math.huge)
        return closed, server:connections()
      end)
      tcp.sleep(0)
      gate:push(1)
      assert.same({ 1, 0 }, results(task))
      assert.equal("closed\r\n", one:read_str())
      is_over(server)
    end))

    it("cancels a handler that is itself in close, once its own grace is over", cleanly(function()
      local err
      local server
      server = serve(function(conn)
        if conn:read_line() == "close" then
          local _
          _, err = tcp.pcall(server.close, server, math.huge)
        else
          tcp.sleep(60)
        end
      end)
      local one, two = connect(server), connect(server)
      wait_until(function() return server:connections() == 2 end)
      two:write_line("wait")
      one:write_line("close")
      wait_until(function() return server:is_closed() end)
      server:close(0.05)
      fails("cancelled", nil, err)
      is_over(server)
    end))

    it("of a handler that waits for a task that closes waits for its grace", cleanly(function()
      local err
      local server
      server = serve(function()
        local task = tcp.spawn(function() server:close(0.05) end)
        local _
        _, err = task:try_join()
      end)
      connect(server)
      wait_until(function() return err end)
      fails("cancelled", nil, err)
      wait_until(function() return server:connections() == 0 end)
      is_over(server)
    end))
  end)
end

describe("close of a server", function()
  after_each(serving.clean)

  it("by handlers of two servers that close each other ends with their grace", cleanly(function()
    local servers = {}
    for i = 1, 2 do
      servers[i] = serving.plain.serve(function(conn)
        conn:read_line()
        servers[3 - i]:close(0.05)
      end)
    end
    local clients = { serving.plain.connect(servers[1]), serving.plain.connect(servers[2]) }
    wait_until(function() return servers[1]:connections() + servers[2]:connections() == 2 end)
    for i = 1, 2 do
      clients[i]:write_line("close the other")
    end
    for i = 1, 2 do
      assert.equal("", clients[i]:read_str())
      wait_until(function() return servers[i]:connections() == 0 end)
      is_over(servers[i])
    end
  end))
end)
