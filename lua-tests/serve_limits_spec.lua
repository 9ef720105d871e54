-- How much a server takes on at once: max_connections, descriptors, clients that say nothing or leave.

local lfs = require("lfs")
local serving = require("support.serving")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local cleanly, echo, is_served, wait_until = serving.cleanly, serving.echo, serving.is_served, serving.wait_until
local PATIENCE = serving.PATIENCE

for _, over in ipairs(serving.all) do
  describe("max_connections" .. over.suffix, function()
    after_each(serving.clean)

    it("pauses accepting at so many, and resumes when one ends", cleanly(function()
      local now, most, gates = 0, 0, {}
      local server = over.serve(function(conn)
        now = now + 1
        most = math.max(most, now)
        local name = conn:read_line()
        gates[name] = tcp.queue()
        conn:write_line("in")
        gates[name]:pop()
        now = now - 1
      end, { max_connections = 3 })
      local clients, tasks = {}, {}
      for i = 1, 10 do
        -- They connect, and wait: under TLS for the handshake.
        tasks[i] = tcp.spawn(function()
          clients[i] = over.connect(server, { timeout = 60, read_timeout = 60 })
          clients[i]:write_line(tostring(i))
          local line = clients[i]:read_line()
          return line
        end)
      end
      local served = 0
      local function count()
        served = 0
        for i = 1, 10 do
          served = served + (tasks[i]:status() == "done" and 1 or 0)
        end
        return served
      end
      local left = {}
      for ended = 0, 9 do
        local expected = math.min(10, 3 + ended)
        wait_until(function() return count() == expected end)
        for _ = 1, 20 do
          tcp.sleep(0)
        end
        assert.equal(expected, count())
        assert.equal(math.min(3, 10 - ended), server:connections())
        for i = 1, 10 do
          if tasks[i]:status() == "done" and not left[i] then
            left[i] = true
            gates[tostring(i)]:push(1)
            break
          end
        end
      end
      assert.equal(3, most)
      wait_until(function() return server:connections() == 0 end)
      local client = over.connect(server)
      client:write_line("last")
      assert.equal("in", client:read_line())
      gates.last:push(1)
    end))

    it("of one serves one after the other, failing handlers included", cleanly(function()
      local now, most, failed = 0, 0, 0
      local server = over.serve(function(conn)
        now = now + 1
        most = math.max(most, now)
        local line = conn:read_line()
        tcp.sleep(0)
        now = now - 1
        if line == "fail" then
          error("asked to")
        end
        conn:write_line("served")
      end, { max_connections = 1, on_error = function() failed = failed + 1 end })
      local tasks = {}
      for i = 1, 20 do
        tasks[i] = tcp.spawn(function()
          local client = over.connect(server)
          client:write_line(i % 4 == 0 and "fail" or "x")
          local answer = client:read_str()
          client:close()
          return answer
        end)
      end
      for i = 1, 20 do
        assert.equal(i % 4 == 0 and "" or "served\r\n", tasks[i]:join(PATIENCE))
      end
      assert.same({ 1, 5 }, { most, failed })
    end))

    it("may be without limit", cleanly(function()
      local server = over.serve(echo, { max_connections = math.huge })
      local clients = {}
      for i = 1, 50 do
        clients[i] = over.connect(server)
        is_served(clients[i])
      end
      assert.equal(50, server:connections())
    end))

    it("does not keep a server that is paused from closing", cleanly(function()
      local server = over.serve(function(conn) conn:try_read_line() end, { max_connections = 1 })
      local clients = {}
      for i = 1, 3 do
        clients[i] = over.connect_plainly(server)
      end
      wait_until(function() return server:connections() == 1 end)
      server:close(0)
      for i = 1, 3 do
        serving.is_ended(clients[i])
      end
      tcp.with_timeout(PATIENCE, tcp.run)
    end))
  end)

  describe("clients that connect and leave" .. over.suffix, function()
    after_each(serving.clean)

    it("harm nobody, whether they close or reset before they are accepted or after", cleanly(function()
      local told = 0
      local server = over.serve(function(conn)
        local line = conn:read_line()
        conn:write_line(line:upper())
      end, { on_error = function() told = told + 1 end })
      for round = 1, 3 do
        for i = 1, 40 do
          local client = over.connect_plainly(server)
          if round == 3 then
            -- These are accepted first.
            tcp.sleep(0)
          end
          if round > 1 and not over.is_unix then
            client:set_option("linger", 0)
          end
          if i % 2 == 0 then
            client:try_write("x")
          end
          client:close()
        end
        is_served(over.connect(server))
      end
      wait_until(function() return server:connections() == 0 end)
      -- A client that left before it was accepted may have been passed over.
      assert.is_true(told <= 120, told .. " failures")
      is_served(over.connect(server))
    end))
  end)
end

describe("clients that say nothing to a TLS server", function()
  after_each(serving.clean)

  it("take no handler, and no place for long", cleanly(function()
    local ran, timeouts = 0, 0
    local server = serving.tls.serve(function(conn)
      ran = ran + 1
      echo(conn)
    end, {
      handshake_timeout = 0.3, max_connections = 5,
      on_error = function(err)
        timeouts = timeouts + (err.kind == "timeout" and 1 or 0)
      end,
    })
    local silent = {}
    for i = 1, 5 do
      silent[i] = serving.tls.connect_plainly(server)
      if i > 3 then
        silent[i]:write("\22\3\1\2\0\1\0\1\252\3\3")
      end
    end
    wait_until(function() return server:connections() == 5 end)
    assert.equal(0, ran)
    local good
    wait_until(function()
      -- It, too, has no more time.
      good = tcp.try_connect("127.0.0.1", server:local_port(), { tls = transports.CLIENT, read_timeout = PATIENCE })
      return good
    end)
    is_served(serving.opens(good))
    assert.is_true(timeouts >= 5)
    assert.equal(1, ran)
    for i = 1, 5 do
      serving.is_ended(silent[i])
    end
    assert.equal(1, server:connections())
  end))

  it("delay nobody while they are there", cleanly(function()
    local server = serving.tls.serve(echo, { handshake_timeout = 60, on_error = function() end })
    for _ = 1, 50 do
      serving.tls.connect_plainly(server)
    end
    wait_until(function() return server:connections() == 50 end)
    for _ = 1, 5 do
      is_served(serving.tls.connect(server))
    end
    server:close(0)
  end))

  it("that trickle have no more time than others", cleanly(function()
    local kind
    local server = serving.tls.serve(echo, {
      handshake_timeout = 0.3, on_error = function(err) kind = err.kind end,
    })
    local client = serving.tls.connect_plainly(server)
    client:write("\22\3\1\2\0\1\0\1\252\3\3")
    local trickling = tcp.spawn(function()
      while client:try_write("r") and not kind do
        tcp.sleep(0.01)
      end
    end)
    wait_until(function() return kind end)
    assert.equal("timeout", kind)
    trickling:join(PATIENCE)
  end))
end)

local FEW = 24
local PREFIX = "sh -c 'ulimit -n " .. FEW .. "; exec \"$@\"' sh"
local TLS = 'tls = { cert = "build/certificates/server.pem", key = "build/certificates/server.key" }'

-- Tells its port, and at the end what became of its connections.
local SERVER = [[
  local tcp = require("tcp")
  local served, failed = 0, 0
  local server
  server = tcp.serve("127.0.0.1", 0, function(conn)
    local line = conn:read_line()
    conn:write_line(line:upper())
    conn:try_recv()
    served = served + 1
    if line == "close" then
      print(served, failed, server:connections())
      server:close(0)
    end
  end, { on_error = function(err) failed = failed + 1 io.stderr:write(tostring(err), "\n") end, %s })
  io.stderr:write(server:local_port(), "\n")
  tcp.run()
]]

-- Has all descriptors itself, frees one, and closes its server when there are none again.
local HOARDER = [[
  local tcp = require("tcp")
  local served, files = 0, {}
  local server = tcp.serve("127.0.0.1", 0, function(conn)
    conn:write_line("HELLO")
    served = served + 1
  end)
  tcp.sleep(0)
  local function hoard()
    local file = io.open("/dev/null")
    while file do
      files[#files + 1] = file
      file = io.open("/dev/null")
    end
  end
  hoard()
  io.stderr:write(server:local_port(), "\n")
  tcp.sleep(0.1)
  local before = served
  table.remove(files):close()
  while served == 0 do tcp.sleep(0.001) end
  while server:connections() > 0 do tcp.sleep(0.001) end
  hoard()
  io.stderr:write("full\n")
  tcp.sleep(0.1)
  server:close(0)
  print(before, served, server:is_closed())
  tcp.run()
]]

--- Whether a process has all descriptors that it may have. Beyond them are those that it inherited.
local function has_none_left(pid)
  local count = 0
  for name in lfs.dir("/proc/" .. pid .. "/fd") do
    local number = tonumber(name)
    count = count + (number and number < FEW and 1 or 0)
  end
  return count == FEW
end

--- The seconds of processor time that it took.
local function processor_time(pid)
  local file = assert(io.open("/proc/" .. pid .. "/stat"))
  local user, system = file:read("*a"):match("%) %a" .. (" %-?%d+"):rep(10) .. " (%d+) (%d+)")
  file:close()
  -- Ticks of 10 ms (proc(5)).
  return (user + system) / 100
end

describe("a server without descriptors", function()
  after_each(serving.clean)

  --- Where a child serves, for `connect`.
  local function place_of(process)
    local port = assert(tonumber(process:read("*l")))
    return { local_host = function() return "127.0.0.1" end, local_port = function() return port end }
  end

  for _, over in ipairs { serving.plain, serving.tls } do
    it("pauses, does not spin, goes on, and loses nobody" .. over.suffix, cleanly(function()
      support.with_child(SERVER:format(over.is_tls and TLS or ""), function(process, pid)
        local place = place_of(process)
        local function connect()
          return over.connect(place, { timeout = 30, read_timeout = 30 })
        end
        -- Over TLS those that are not accepted wait for their handshake.
        local clients = {}
        for i = 1, 60 do
          clients[i] = tcp.spawn(connect)
        end
        wait_until(function() return has_none_left(pid) end)
        local before = processor_time(pid)
        tcp.sleep(0.4)
        local taken = processor_time(pid) - before
        assert.is_true(taken < 0.15, "it took " .. taken)
        for i = 1, 60 do
          local client = clients[i]:join(30)
          is_served(client)
          client:close()
        end
        local last = connect()
        last:write_line("close")
        assert.equal("CLOSE", last:read_line())
        last:close()
        assert.equal("61\t0\t1", process:read("*l"))
        assert.equal("", process:read("*a"))
      end, PREFIX)
    end))
  end

  it("goes on when the script frees one, and can be closed", cleanly(function()
    support.with_child(HOARDER, function(process)
      local place = place_of(process)
      assert.equal("HELLO\r\n", serving.plain.connect(place):read_str())
      assert.equal("full", process:read("*l"))
      local late = serving.plain.connect(place)
      serving.is_ended(late)
      assert.equal("0\t1\ttrue\n", process:read("*a"))
    end, PREFIX)
  end))
end)
