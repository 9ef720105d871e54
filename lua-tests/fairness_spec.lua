-- A task that never has to wait does not keep others waiting, as long as what it does may let them run.

local peers = require("support.peers")
local tcp = require("tcp.core")
local transports = require("support.transports")

local TIME = 0.3

--- Runs `work` again and again in a task, and gives how often another one could wake from a millisecond's sleep in the
-- meantime, and the longest time between.
local function ticks_beside(work)
  local ticks, longest = 0, 0
  local deadline = tcp.now() + TIME
  local ticker = tcp.spawn(function()
    local last = tcp.now()
    while tcp.now() < deadline do
      tcp.sleep(0.001)
      ticks, longest, last = ticks + 1, math.max(longest, tcp.now() - last), tcp.now()
    end
  end)
  local worker = tcp.spawn(function()
    while tcp.now() < deadline do
      for _ = 1, 10 do
        work()
      end
    end
  end)
  worker:join(10)
  ticker:join(10)
  return ticks, longest
end

local function assert_fair(ticks, longest)
  assert.is_true(ticks >= 10, ticks .. " ticks")
  assert.is_true(longest < TIME / 2, longest .. " s between ticks")
end

local FLOOD = { "repeat", 1000000, ("0123456789abcde\n"):rep(4000) }

for _, over in ipairs(transports.all) do
  describe("fairness" .. over.suffix, function()
    local connect_to = over.connect_to

    describe("others run beside", function()
      local reads = {
        ["read"] = function(conn) conn:read(10) end,
        ["read_line"] = function(conn) conn:read_line() end,
        ["recv"] = function(conn) conn:recv(100) end,
        ["read_until"] = function(conn) conn:read_until("8") end,
      }
      for name, read in pairs(reads) do
        it(name .. " on a connection that floods", function()
          local conn, peer = connect_to("accept", FLOOD)
          assert_fair(ticks_beside(function() read(conn) end))
          conn:close()
          peer:finish()
        end)
      end

      it("write to a peer that takes all", function()
        local conn, peer = connect_to("accept", "drain")
        assert_fair(ticks_beside(function() conn:write("x") end))
        conn:close()
        peer:finish()
        tcp.run()
      end)

      it("a queue that is never empty nor full", function()
        local queue = tcp.queue()
        assert_fair(ticks_beside(function()
          queue:push(1)
          queue:pop()
        end))
      end)

      it("accept of connections that always wait", function()
        local listener = over.tcp.listen("127.0.0.1", 0)
        local port = listener:local_port()
        assert_fair(ticks_beside(function()
          -- Accepting does not wait for a handshake.
          local conn = tcp.connect("127.0.0.1", port)
          listener:accept():close()
          conn:close()
        end))
        listener:close()
      end)

      it("reads that have no time to wait", function()
        local conn = connect_to("accept", "stall")
        assert_fair(ticks_beside(function() conn:try_read(1, { timeout = 0 }) end))
        conn:close()
      end)

      it("a cancelled task that does not heed it", function()
        local deadline = tcp.now() + TIME
        local stubborn = tcp.spawn(function()
          while tcp.now() < deadline do
            tcp.pcall(tcp.sleep, 1)
          end
        end)
        tcp.sleep(0)
        stubborn:cancel()
        assert_fair(ticks_beside(function() tcp.sleep(0.001) end))
        stubborn:try_join(10)
      end)
    end)

    describe("code outside tasks", function()
      it("lets tasks run while it reads from a connection that floods", function()
        local conn = connect_to("accept", FLOOD)
        local deadline, ticks = tcp.now() + TIME, 0
        local ticker = tcp.spawn(function()
          while tcp.now() < deadline do
            tcp.sleep(0.001)
            ticks = ticks + 1
          end
        end)
        while tcp.now() < deadline do
          conn:read(10)
        end
        ticker:join(10)
        conn:close()
        peers.finish_all()
        assert.is_true(ticks >= 10, ticks .. " ticks")
      end)
    end)
  end)
end
