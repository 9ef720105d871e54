-- A response written just before its handler ends reaches the client, also if the client had sent more than was read:
-- closing a socket with input unread resets the connection, and a reset destroys what the client has not read yet.

local serving = require("support.serving")
local support = require("support")
local tcp = require("tcp.core")

local cleanly, wait_until = serving.cleanly, serving.wait_until
local PATIENCE = serving.PATIENCE

-- More than the client's side takes at once: the rest is still in the server's when its handler ends.
local ANSWER = ("the answer\n"):rep(100000)
-- Less than what a server discards of a connection that it has closed, 1 MiB.
local SHORT, LONG = ("unread "):rep(5000), ("unread "):rep(120000)

-- How a handler ends that has answered.
local ENDINGS = {
  returns = function() end,
  closes = function(conn) conn:close() end,
  fails = function() error("after the answer", 0) end,
  ["closes the server"] = function(_, server) server():close(0) end,
  ["is cancelled"] = function(_, server)
    tcp.spawn(function() server():close(0) end)
    tcp.sleep(60)
  end,
  ["leaves a reader behind"] = function(conn)
    tcp.spawn(function()
      local data = conn:try_read(1000000000)
      assert(data == nil)
    end)
    tcp.sleep(0)
  end,
}

-- What a client does beside reading the answer.
local CLIENTS = {
  ["has sent"] = function(client)
    client:write(SHORT)
  end,
  -- It cannot send it all before somebody reads.
  ["is still sending"] = function(client)
    client:set_option("send_buffer", 4096)
    return tcp.spawn(client.write, client, LONG)
  end,
  ["goes on sending now and then"] = function(client)
    client:write(SHORT)
    return tcp.spawn(function()
      for _ = 1, 20 do
        client:write("more")
        tcp.sleep(0.001)
      end
    end)
  end,
}

for _, over in ipairs(serving.all) do
  for ending, finish in pairs(ENDINGS) do
    describe("an answer before the handler " .. ending .. over.suffix, function()
      after_each(serving.clean)

      for what, begin in pairs(CLIENTS) do
        it("reaches a client that " .. what .. " more than was read", cleanly(function()
          local server
          server = over.serve(function(conn)
            conn:read(10)
            conn:write(ANSWER)
            finish(conn, function() return server end)
          end, { on_error = function() end })
          local client = over.connect(server)
          local sending = begin(client)
          assert.is_true(client:read_str() == ANSWER)
          if sending then
            sending:join(PATIENCE)
          end
        end))
      end
    end)
  end

  describe("an answer" .. over.suffix, function()
    after_each(serving.clean)

    it("of on_error reaches the client, too", cleanly(function()
      local server = over.serve(function(conn)
        conn:read(10)
        error("failed", 0)
      end, {
        on_error = function(err, conn)
          conn:write(err, ANSWER)
        end,
      })
      local client = over.connect(server)
      client:write(SHORT)
      assert.is_true(client:read_str() == "failed" .. ANSWER)
    end))

    it("reaches a client that reads when the handler has long ended", cleanly(function()
      local answer = ANSWER:sub(1, 200000)
      local server = over.serve(function(conn)
        conn:read(10)
        conn:set_option("send_buffer", 212992)
        conn:write(answer)
      end)
      local clients = {}
      for i = 1, 5 do
        clients[i] = over.connect(server)
        clients[i]:write(SHORT)
      end
      wait_until(function() return server:connections() == 0 end)
      for i = 1, 5 do
        assert.is_true(clients[i]:read_str() == answer)
      end
    end))

    it("reaches a client that sends all it has before it reads, however many writes it took", cleanly(function()
      local piece, pieces = ANSWER:sub(1, 2970), nil
      local server = over.serve(function(conn)
        conn:read(10)
        conn:set_option("send_buffer", 212992)
        for _ = 1, pieces do
          conn:write(piece)
        end
      end)
      -- Some of these leave nothing of the connection's share of the loop.
      for _, count in ipairs { 1, 62, 63, 64, 65 } do
        pieces = count
        local client = over.connect(server)
        client:set_option("send_buffer", 4096)
        local ok, err = client:try_write(LONG)
        assert(ok, ("%d pieces: %s"):format(count, tostring(err)))
        assert.is_true(client:read_str() == piece:rep(count))
        client:close()
      end
    end))

    it("of many at once reaches them all", cleanly(function()
      local server = over.serve(function(conn)
        conn:read(10)
        conn:write(ANSWER)
      end)
      local tasks = {}
      for i = 1, 50 do
        tasks[i] = tcp.spawn(function()
          local client = over.connect(server)
          client:write(SHORT)
          local answer = client:read_str()
          client:close()
          return answer
        end)
      end
      for i = 1, 50 do
        assert.is_true(tasks[i]:join(PATIENCE) == ANSWER)
      end
    end))
  end)
end

describe("the last answer of a program", function()
  after_each(serving.clean)

  for _, over in ipairs { serving.plain, serving.tls } do
    it("reaches a client that has sent more than was read" .. over.suffix, cleanly(function()
      local tls = 'tls = { cert = "build/certificates/server.pem", key = "build/certificates/server.key" }'
      support.with_child(([[
        local tcp = require("tcp")
        local server
        server = tcp.serve("127.0.0.1", 0, function(conn)
          server:close(0)
          conn:read(10)
          conn:write(("the answer\n"):rep(100000))
        end, { %s })
        io.stderr:write(server:local_port(), "\n")
        tcp.run()
      ]]):format(over.is_tls and tls or ""), function(process)
        local port = tonumber(process:read("*l"))
        local place = { local_host = function() return "127.0.0.1" end, local_port = function() return port end }
        local client = over.connect(place)
        client:write(SHORT)
        assert.is_true(client:read_str() == ANSWER)
        client:close()
        assert.equal("", process:read("*a"))
      end)
    end))
  end
end)
