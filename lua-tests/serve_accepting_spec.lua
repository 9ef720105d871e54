-- What a server does when accepting fails, or the task that accepts: it says so and goes on.

local serving = require("support.serving")
local support = require("support")
local tcp = require("tcp.core")

local cleanly, is_over, is_served, wait_until =
  serving.cleanly, serving.is_over, serving.is_served, serving.wait_until
local serve, connect = serving.plain.serve, serving.plain.connect

--- Has every accept of a server fail until the function is called that it gives.
local function break_accepting(server)
  local listener = server.listener
  local closed = tcp.listen("127.0.0.1", 0)
  closed:close()
  server.listener = closed
  -- Whoever waits at the listener has to be woken.
  tcp.connect("127.0.0.1", listener:local_port()):close()
  return function()
    server.listener = listener
    if server:is_closed() then
      listener:close()
    end
  end
end

--- Has the task that accepts die of an error, when the next client has come, until its limit is a number again.
local function kill_acceptor(server)
  server.limit = "many"
end

describe("a server whose accepting fails", function()
  after_each(serving.clean)

  it("can be closed by the on_error that is told, which waits for the handlers", cleanly(function()
    local gate, steps = tcp.queue(), {}
    local server
    server = serve(function(conn)
      if not conn:try_read_line() then
        return
      end
      gate:pop()
      steps[#steps + 1] = "handled"
    end, {
      on_error = function(err, conn)
        assert(err.kind == "closed" and conn == nil)
        if not server:is_closed() then
          server:close(math.huge)
          steps[#steps + 1] = "closed"
        end
      end,
    })
    connect(server):write_line("wait")
    wait_until(function() return server:connections() == 1 end)
    local mend = break_accepting(server)
    wait_until(function() return server:is_closed() end)
    mend()
    tcp.sleep(0)
    assert.same({}, steps)
    gate:push(true)
    wait_until(function() return #steps == 2 end)
    assert.same({ "handled", "closed" }, steps)
    is_over(server)
  end))

  it("can be closed by two who are told: they do not wait for each other", cleanly(function()
    local closing = 0
    local server
    server = serve(function() end, {
      on_error = function()
        closing = closing + 1
        wait_until(function() return closing == 2 end)
        server:close(math.huge)
      end,
    })
    local mend = break_accepting(server)
    wait_until(function() return closing == 2 end)
    mend()
    wait_until(function() return server:is_closed() end)
    is_over(server)
  end))

  it("is not closed before who is told has done", cleanly(function()
    local gate, is_told, has_done = tcp.queue(), false, false
    local server = serve(function() end, {
      on_error = function()
        is_told = true
        gate:try_pop()
        has_done = true
      end,
    })
    local mend = break_accepting(server)
    wait_until(function() return is_told end)
    mend()
    assert.equal(0, server:connections())
    local closing = tcp.spawn(function()
      server:close(math.huge)
      return has_done
    end)
    wait_until(function() return server:is_closed() end)
    assert.equal("waiting", closing:status())
    gate:close()
    assert.is_true(closing:join(serving.PATIENCE))
  end))

  it("goes on when it can", cleanly(function()
    local told = 0
    local server = serve(serving.echo, { on_error = function() told = told + 1 end })
    local mend = break_accepting(server)
    wait_until(function() return told > 1 end)
    mend()
    is_served(connect(server))
  end))
end)

describe("a server whose accepting task dies", function()
  after_each(serving.clean)

  it("tells on_error without a connection, and goes on", cleanly(function()
    local told
    local server
    server = serve(serving.echo, {
      on_error = function(err, conn, traceback)
        told = { err, conn, traceback }
        server.limit = math.huge
      end,
    })
    for _ = 1, 3 do
      told = nil
      kill_acceptor(server)
      -- The one that was accepted before is served.
      is_served(connect(server))
      wait_until(function() return told end)
      assert.matches("attempt to compare", told[1])
      assert.is_nil(told[2])
      assert.matches("^[^\n]*attempt to compare", told[3])
      is_served(connect(server))
    end
    server:close(0)
    is_over(server)
  end))

  it("writes on stderr if there is no on_error", function()
    local output = support.child([[
      local tcp = require("tcp.core")
      local server = tcp.serve("127.0.0.1", 0, function(conn) conn:write_line("served") end)
      server.limit = "many"
      tcp.sleep(0)
      server.limit = math.huge
      local client = tcp.connect("127.0.0.1", server:local_port())
      io.stderr:write(client:read_line(), "\n")
      client:close()
      server:close()
    ]])
    assert.matches("^tcp: accepting failed: [^\n]*attempt to compare.*\nserved\n$", output)
  end)

  it("goes on after a Ctrl-C that struck in it", function()
    -- Elsewhere it strikes in the main coroutine only, or is an error as others are.
    local output = support.child([[
      local tcp = require("tcp.core")
      local server = tcp.serve("127.0.0.1", 0, function(conn) conn:write_line("served") end, {
        on_error = function(err) error(err, 0) end,
      })
      local metatable = getmetatable(server)
      setmetatable(server, { __index = function()
        setmetatable(server, metatable)
        error("serve: interrupted!", 0)
      end })
      local function ask()
        local client = tcp.connect("127.0.0.1", server.listener:local_port())
        local line = client:try_read_line()
        client:close()
        return line
      end
      pcall(ask)
      print(ask())
      server:close()
    ]])
    assert.matches("served\n$", output)
  end)
end)
