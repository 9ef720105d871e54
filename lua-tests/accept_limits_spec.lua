local tcp = require("tcp.core")
local peers = require("support.peers")
local support = require("support")
local transports = require("support.transports")

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

--- A child whose descriptors are soon used up. It prints its port first, and its clients are in this process.
local function with_few_descriptors(script, use)
  support.with_child(script, function(process)
    use(tonumber(process:read("*l")), process)
  end, "sh -c 'ulimit -n 24; exec \"$@\"' sh")
end

-- Plain: accepting does not know of TLS.
describe("accept without descriptors", function()
  after_each(nothing_is_left)

  it("waits for a free one, does not spin, and loses nobody", function()
    with_few_descriptors([[
      local tcp = require("tcp")
      local listener = tcp.listen("127.0.0.1", 0)
      io.stdout:write(listener:local_port(), "\n")
      io.stdout:flush()
      local served, most, now = 0, 0, 0
      tcp.run(function()
        for i = 1, 60 do
          tcp.spawn(function(conn)
            now = now + 1
            most = math.max(most, now)
            conn:read_line()
            conn:write("ok")
            conn:close()
            now = now - 1
            served = served + 1
          end, listener:accept())
        end
      end)
      tcp.run()
      print(served, most < 24, os.clock() < 1)
    ]], function(port, process)
      local clients = {}
      for i = 1, 60 do
        clients[i] = tcp.connect("127.0.0.1", port)
      end
      -- Now the server sits there with all the descriptors it can have.
      tcp.sleep(0.4)
      for i = 1, 60 do
        clients[i]:write_line("go")
        assert.equal("ok", clients[i]:read_str({ timeout = 5 }))
        clients[i]:close()
      end
      assert.equal("60\ttrue\ttrue", process:read("*l"))
    end)
  end)

  it("keeps its time, and collects garbage first", function()
    with_few_descriptors([[
      local tcp = require("tcp")
      local listener = tcp.listen("127.0.0.1", 0)
      io.stdout:write(listener:local_port(), "\n")
      io.stdout:flush()
      collectgarbage("stop")
      for i = 1, 30 do
        -- Dropped, and only collection closes them.
        listener:accept(5)
      end
      collectgarbage("restart")
      local held, conn, err = {}
      repeat
        conn, err = listener:try_accept(0.3)
        held[#held + 1] = conn
      until not conn
      print(err.kind, #held < 24, os.clock() < 1)
      for _, it in ipairs(held) do it:close() end
      print(listener:accept(5):read(2))
    ]], function(port, process)
      local clients = {}
      for i = 1, 80 do
        clients[i] = tcp.connect("127.0.0.1", port)
        clients[i]:write("hi")
      end
      assert.equal("timeout\ttrue\ttrue", process:read("*l"))
      assert.equal("hi", process:read("*l"))
      close_all(unpack(clients))
    end)
  end)
end)

for _, over in ipairs(transports.all) do
  describe("an accepted connection closed with input unread" .. over.suffix, function()
    after_each(nothing_is_left)

    it("lets the last answer reach the client, and holds nobody up", function()
      local answer = ("answer"):rep(1000)
      local cases = {
        { "ends", 0, 1, function(client)
          client:write(("x"):rep(300000))
          assert.equal(answer, client:read_str())
          client:close()
        end },
        { "never closes", 1.9, 3, function(client)
          client:write("unread")
          assert.equal(answer, client:read_str())
        end },
        { "never stops sending", 0, 1.9, function(client)
          local ok, err
          repeat
            ok, err = client:try_write(("x"):rep(65536))
          until not ok
          assert.equal("reset", err.kind)
          assert.equal(answer, client:read(#answer))
          client:close()
        end },
        { "sends again and again", 0.2, 3, function(client)
          for _ = 1, 10 do
            client:write("more")
            tcp.sleep(0.02)
          end
          assert.equal(answer, client:read_str())
          client:close()
        end },
      }
      for _, case in ipairs(cases) do
        local client, conn = over.pair()
        local taken = timed(function()
          tcp.spawn(function()
            conn:peek(1)
            conn:write(answer)
            conn:close()
            assert(conn:is_closed())
          end)
          tcp.run(case[4], client)
          tcp.run()
        end)
        assert.is_true(taken >= case[2] and taken < case[3], ("%s: took %s"):format(case[1], taken))
        client:close()
      end
    end)

    it("outside tasks, too, as soon as anything waits", function()
      local before = peers.descriptors()
      local client, conn = over.pair()
      client:write("unread")
      conn:peek(1)
      conn:write("answer")
      conn:close()
      assert.equal("answer", client:read_str())
      client:close()
      tcp.run()
      assert.equal(before, peers.descriptors())
    end)
  end)
end
