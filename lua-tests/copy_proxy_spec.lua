-- A TCP proxy of two copies per connection: every byte arrives, and so does each end of a stream, both ways.

local tcp = require("tcp.core")
local copies = require("support.copies")
local tasks = require("support.tasks")
local transports = require("support.transports")

local BYTES = copies.bytes(1000003)
local CLIENTS = 50
local PATIENCE = 20

local function test(name, body)
  it(name, copies.cleanly(body))
end

--- Serves connections in tasks of their own until its listener is closed. Gives the port and the listener.
local function serve(over, handle)
  local listener = copies.opens(over.tcp.listen("127.0.0.1", 0))
  tcp.spawn(function()
    local conn = listener:try_accept()
    while conn do
      tcp.spawn(function(client)
        handle(client)
        client:close()
      end, conn)
      conn = listener:try_accept()
    end
  end)
  return listener:local_port(), listener
end

local function pass_on(from, to, totals)
  local count = tcp.try_copy(from, to)
  totals[#totals + 1] = count
  to:try_shutdown("send")
end

--- A proxy for a port: its own one, and a list of what its copies gave.
local function proxy(front, back, port)
  local totals = {}
  return serve(front, function(client)
    local server = back.tcp.connect("127.0.0.1", port)
    local there = tcp.spawn(pass_on, client, server, totals)
    pass_on(server, client, totals)
    there:join()
    server:close()
  end), totals
end

local function connect(over, port)
  return copies.opens(over.tcp.connect("127.0.0.1", port, { timeout = PATIENCE, read_timeout = PATIENCE }))
end

-- What servers do with a connection.
local SERVERS = {
  ["echoes"] = function(conn)
    tcp.try_copy(conn, conn)
  end,
  ["answers when all has come"] = function(conn)
    local bytes = conn:read_str()
    conn:write(bytes)
  end,
  ["speaks and half-closes before it listens"] = function(conn)
    conn:write_line("hello")
    conn:shutdown("send")
    conn:read_str()
  end,
  ["sends a line for a line"] = function(conn)
    local line = conn:try_read_line()
    while line do
      conn:write_line(line:upper())
      line = conn:try_read_line()
    end
  end,
}

for _, front in ipairs(transports.all) do
  for _, back in ipairs(transports.all) do
    describe(("a proxy of two copies%s before a server%s"):format(front.suffix, back.suffix), function()
      after_each(copies.clean)

      --- The port of a proxy before such a server, and what its copies gave.
      local function start(name)
        return proxy(front, back, (serve(back, SERVERS[name])))
      end

      for _, name in ipairs { "echoes", "answers when all has come" } do
        test(("carries %d connections at once to one that %s"):format(CLIENTS, name), function()
          local port, totals = start(name)
          local begun, expected = {}, 0
          for i = 1, CLIENTS do
            -- Nothing, a byte, a chunk, and more than the way holds.
            local bytes = BYTES:sub(i, i + ({ 0, 1, 1460, 65536, 300000 })[i % 5 + 1] - 1)
            expected = expected + 2 * #bytes
            begun[i] = tcp.spawn(function()
              local conn = connect(front, port)
              local reader = tasks.trying(conn, "read_str")
              conn:write(bytes)
              conn:shutdown("send")
              local answer = reader:join(PATIENCE)
              conn:close()
              return answer.value == bytes
            end)
          end
          for i = 1, CLIENTS do
            assert.is_true(begun[i]:join(PATIENCE), "client " .. i)
          end
          copies.wait_until(function() return #totals == 2 * CLIENTS end)
          local sum = 0
          for i = 1, #totals do
            sum = sum + totals[i]
          end
          assert.equal(expected, sum)
        end)
      end

      test("passes on the end of the server's stream, and the client goes on", function()
        local port, totals = start("speaks and half-closes before it listens")
        local conn = connect(front, port)
        assert.equal("hello", conn:read_line())
        assert.is_nil(conn:recv())
        conn:write(BYTES)
        conn:shutdown("send")
        copies.wait_until(function() return #totals == 2 end)
        assert.same({ 7, #BYTES }, totals)
      end)

      test("passes on the end of the client's stream, and the server goes on", function()
        local port, totals = start("answers when all has come")
        local conn = connect(front, port)
        conn:write("question")
        conn:shutdown("send")
        assert.equal("question", conn:read_str())
        copies.wait_until(function() return #totals == 2 end)
        assert.same({ 8, 8 }, totals)
      end)

      test("lets lines go back and forth", function()
        local port = start("sends a line for a line")
        local conn = connect(front, port)
        for i = 1, 100 do
          conn:write_line("line " .. i)
          assert.equal("LINE " .. i, conn:read_line())
        end
        conn:close()
      end)

      test("in a chain of three changes nothing", function()
        local port = start("echoes")
        port = proxy(front, back, (proxy(back, front, port)))
        local conn = connect(front, port)
        local reader = tasks.trying(conn, "read_str")
        conn:write(BYTES)
        conn:shutdown("send")
        assert.is_true(tasks.succeeds(reader) == BYTES)
      end)

      test("ends with a client that resets in the middle, and serves the next", function()
        local port, totals = start("echoes")
        for _ = 1, 5 do
          local conn = connect(front, port)
          conn:write(BYTES:sub(1, 100000))
          conn:read(1)
          conn:set_option("linger", 0)
          conn:close()
        end
        -- A copy that failed gives nothing.
        local conn = connect(front, port)
        conn:write("still there?")
        conn:shutdown("send")
        assert.equal("still there?", conn:read_str())
        copies.wait_until(function() return #totals >= 2 end)
      end)
    end)
  end
end
