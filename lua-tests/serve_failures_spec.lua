-- Handlers that fail, and who is told of it: on_error, or stderr.

local lfs = require("lfs")
local serving = require("support.serving")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local cleanly, is_served, wait_until = serving.cleanly, serving.is_served, serving.wait_until
local fails = support.fails

-- What handlers fail with, and how a child writes it.
local VALUES = {
  ["a string"] = { "plain", "'plain'" },
  ["a table"] = { {}, "{}" },
  ["a number"] = { 7, "7" },
  ["false"] = { false, "false" },
  ["nil"] = { nil, "nil" },
  ["a function"] = { print, "print" },
  ["an error object"] = { select(2, tcp.json.try_decode("[")), "select(2, tcp.json.try_decode('['))" },
  ["a table whose __tostring fails"] = {
    setmetatable({}, { __tostring = function() error("evil") end }),
    "setmetatable({}, { __tostring = function() error('evil') end })",
  },
}

--- A list, and an `on_error` that fills it.
local function recorder()
  local told = {}
  return told, function(...)
    local err, conn, traceback = ...
    told[#told + 1] = {
      count = select("#", ...), err = err, conn = conn, traceback = traceback, was_closed = conn and conn:is_closed(),
    }
  end
end

--- A handler: fails with `value` when it is asked to, and is an echo otherwise.
local function failing(value)
  return function(conn)
    local line = conn:try_read_line()
    while line and line ~= "fail" do
      conn:write_line(line:upper())
      line = conn:try_read_line()
    end
    if line then
      error(value, 0)
    end
  end
end

local function ask_to_fail(over, server)
  local client = over.connect(server)
  client:write_line("fail")
  return client
end

for _, over in ipairs(serving.all) do
  local serve, connect = over.serve, over.connect

  describe("a handler that fails" .. over.suffix, function()
    after_each(serving.clean)

    for name, value in pairs(VALUES) do
      it("with " .. name .. " is told to on_error, while its connection is open, and harms nobody", cleanly(function()
        local told, on_error = recorder()
        local server = serve(failing(value[1]), { on_error = on_error })
        local other = connect(server)
        is_served(other)
        for i = 1, 2 do
          local client = ask_to_fail(over, server)
          assert.equal("", client:read_str())
          assert.equal(i, #told)
          local it = told[i]
          assert.equal(3, it.count)
          assert.is_true(rawequal(value[1], it.err))
          assert.is_false(it.was_closed)
          assert.is_true(it.conn:is_closed())
          assert.equal("string", type(it.traceback))
          assert.matches("\nstack traceback:\n.*serve_failures_spec", it.traceback)
          client:close()
          is_served(other)
        end
        is_served(connect(server))
      end))
    end

    it("is not told to tcp.on_error", cleanly(function()
      finally(function() tcp.on_error = nil end)
      tcp.on_error = function(_, traceback)
        error("told of " .. traceback)
      end
      local told, on_error = recorder()
      local server = serve(failing("x"), { on_error = on_error })
      assert.equal("", ask_to_fail(over, server):read_str())
      assert.equal(1, #told)
    end))

    it("is told also where the default is silent: the client left", cleanly(function()
      local told, on_error = recorder()
      local server = serve(function(conn)
        conn:write_line(conn:read_line())
        conn:read_line()
      end, { on_error = on_error })
      local client = connect(server)
      client:write_line("hello")
      assert.equal("hello", client:read_line())
      client:close()
      wait_until(function() return #told == 1 end)
      fails("closed", nil, told[1].err)
      assert.equal("read_line", told[1].err.op)
      assert.matches("closed.*\nstack traceback:\n", told[1].traceback)
      if over.is_unix then
        return
      end
      client = connect(server)
      client:write_line("hello")
      assert.equal("hello", client:read_line())
      client:set_option("linger", 0)
      client:close()
      wait_until(function() return #told == 2 end)
      assert.is_true(tcp.is_error(told[2].err, "reset") or over.is_tls, tostring(told[2].err))
    end))

    it("is told when it had closed its connection before", cleanly(function()
      local told, on_error = recorder()
      local server = serve(function(conn)
        conn:close()
        conn:close()
        conn:read_line()
      end, { on_error = on_error })
      assert.equal("", connect(server):read_str())
      wait_until(function() return #told == 1 end)
      fails("closed", nil, told[1].err)
      assert.is_true(told[1].was_closed)
    end))

    it("is told what it got from others: a cancelled task, a limit, a yield", cleanly(function()
      local told, on_error = recorder()
      local ways = {
        cancelled = function()
          local task = tcp.spawn(tcp.sleep, 60)
          task:cancel()
          task:join()
        end,
        limit = function() tcp.with_timeout(0, tcp.sleep, 60) end,
        yield = function() coroutine.yield(1) end,
      }
      local server = serve(function(conn)
        ways[conn:read_line()]()
      end, { on_error = on_error })
      local expected = { cancelled = "cancelled", limit = "timed out", yield = "tcp%.wrap" }
      for name, pattern in pairs(expected) do
        local client = connect(server)
        client:write_line(name)
        assert.equal("", client:read_str())
        assert.matches(pattern, tostring(told[#told].err))
        client:close()
      end
      assert.equal(3, #told)
    end))

    it("leaves nothing, however many do", cleanly(function()
      local count = 0
      local server = serve(failing("x"), { on_error = function() count = count + 1 end })
      for _ = 1, 20 do
        local clients = {}
        for i = 1, 10 do
          clients[i] = ask_to_fail(over, server)
        end
        for i = 1, 10 do
          assert.equal("", clients[i]:read_str())
          clients[i]:close()
        end
      end
      assert.equal(200, count)
      wait_until(function() return server:connections() == 0 end)
    end))
  end)

  describe("a handler that leaves a task behind" .. over.suffix, function()
    after_each(serving.clean)

    it("ends its connection all the same, and the task is told so", cleanly(function()
      local reader, writer
      local server = serve(function(conn)
        reader = tcp.spawn(function() return conn:try_read_line() end)
        writer = tcp.spawn(function()
          while not conn:is_closed() do
            tcp.sleep(0)
          end
          return conn:try_write("late")
        end)
        conn:write("here")
        -- So that the reader waits.
        tcp.sleep(0)
      end)
      assert.equal("here", connect(server):read_str())
      local function result_of(task)
        local _, err = task:join(serving.PATIENCE)
        return err.kind .. " " .. err.op
      end
      assert.equal("closed read_line", result_of(reader))
      assert.equal("closed write", result_of(writer))
      assert.equal(0, server:connections())
    end))
  end)

  describe("on_error" .. over.suffix, function()
    after_each(serving.clean)

    it("may answer the client", cleanly(function()
      local server = serve(failing("sorry"), {
        on_error = function(err, conn)
          conn:write_line("error: " .. err)
        end,
      })
      assert.equal("error: sorry\r\n", ask_to_fail(over, server):read_str())
    end))

    it("may talk with it, and others are served meanwhile", cleanly(function()
      local server = serve(failing("x"), {
        on_error = function(_, conn)
          conn:write_line("what now?")
          local line = conn:read_line()
          tcp.sleep(0)
          conn:write_line("then " .. line)
        end,
      })
      local client = ask_to_fail(over, server)
      assert.equal("what now?", client:read_line())
      is_served(connect(server))
      client:write_line("go away")
      assert.equal("then go away\r\n", client:read_str())
    end))

    it("may close the connection, spawn, and close the server", cleanly(function()
      local spawned
      local server
      server = serve(failing("x"), {
        on_error = function(_, conn)
          conn:close()
          spawned = tcp.spawn(function() return "spawned" end)
          server:close(60)
        end,
      })
      assert.equal("", ask_to_fail(over, server):read_str())
      wait_until(function() return server:is_closed() and spawned:status() == "done" end)
      tcp.with_timeout(serving.PATIENCE, tcp.run)
    end))

    it("that has not ended is waited for by close, and ended by it", cleanly(function()
      local seen
      local server = serve(failing("x"), {
        on_error = function(_, conn)
          conn:write_line("waiting")
          _, seen = tcp.pcall(tcp.sleep, 60)
        end,
      })
      local client = ask_to_fail(over, server)
      assert.equal("waiting", client:read_line())
      server:close(0)
      fails("cancelled", nil, seen)
      assert.equal("", client:read_str())
      tcp.with_timeout(serving.PATIENCE, tcp.run)
      assert.is_false(tcp.step(0))
    end))
  end)
end

describe("a handler that recurs without end", function()
  after_each(serving.clean)

  it("is told like any other, and the server goes on", cleanly(function()
    local told, on_error = recorder()
    local function deeper()
      return 1 + deeper()
    end
    local server = serving.plain.serve(deeper, { on_error = on_error })
    for i = 1, 2 do
      assert.equal("", serving.plain.connect(server):read_str())
      assert.equal(i, #told)
      assert.matches("stack overflow", told[i].traceback)
    end
  end))
end)

describe("a handshake that fails", function()
  after_each(serving.clean)

  --- What on_error is told of a client that does so: one without TLS.
  local function told_of(use, timeout)
    local told, on_error = recorder()
    local ran = 0
    local server = serving.tls.serve(function() ran = ran + 1 end, { on_error = on_error, handshake_timeout = timeout })
    use(serving.tls.connect_plainly(server))
    wait_until(function() return #told > 0 end)
    if not timeout then
      serving.tls.connect(server):read_str()
    end
    assert.same({ timeout and 0 or 1, 1 }, { ran, #told })
    local it = told[1]
    assert.equal(3, it.count)
    assert.equal("handshake", it.err.stage)
    assert.equal(tostring(it.err), it.traceback)
    assert.is_true(it.conn:is_tls())
    assert.is_false(it.was_closed)
    wait_until(function() return it.conn:is_closed() end)
    server:close()
    return it.err.kind
  end

  it("is told to on_error, and the handler is not run", cleanly(function()
    assert.equal("tls", told_of(function(client) client:write("GET / HTTP/1.1\r\n\r\n") end))
    assert.equal("closed", told_of(function(client) client:close() end))
    assert.equal("timeout", told_of(function() end, 0.2))
    assert.equal("reset", told_of(function(client)
      client:write("\22\3\1")
      client:set_option("linger", 0)
      client:close()
    end))
  end))

  it("is told to on_error with the alert of a client that does not like the certificate", cleanly(function()
    local told, on_error = recorder()
    local server = serving.tls.serve(function() error("not to be run") end, {
      on_error = on_error, tls = { cert = transports.certificate("stranger"),
        key = transports.certificate("stranger", "key") },
    })
    fails("certificate", tcp.try_connect("127.0.0.1", server:local_port(), { tls = transports.CLIENT }))
    wait_until(function() return #told == 1 end)
    fails("tls", nil, told[1].err)
    assert.equal("string", type(told[1].err.alert))
  end))
end)

if jit then
  describe("accepting that fails", function()
    after_each(serving.clean)

    --- The sockets that this process has.
    local function sockets()
      local found = {}
      for name in lfs.dir("/proc/self/fd") do
        local is = lfs.symlinkattributes("/proc/self/fd/" .. name, "target")
        found[name] = is and is:match("^socket:") and true or nil
      end
      return found
    end

    it("is told to on_error without a connection, and does not spin", cleanly(function()
      local ffi = require("ffi")
      ffi.cdef("int shutdown(int, int);")
      local told, on_error = recorder()
      local before = sockets()
      serving.plain.serve(function() end, { on_error = on_error })
      for name in pairs(sockets()) do
        if not before[name] then
          assert.equal(0, ffi.C.shutdown(tonumber(name), 2))
        end
      end
      wait_until(function() return #told > 0 end)
      assert.is_nil(told[1].conn)
      assert.equal("system", told[1].err.kind)
      assert.equal("string", type(told[1].traceback))
      local began = os.clock()
      tcp.sleep(0.3)
      assert.is_true(os.clock() - began < 0.15, "it took " .. os.clock() - began)
    end))
  end)
end
