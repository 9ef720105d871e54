local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local fails = support.fails
local trying, succeeds, task_fails = tasks.trying, tasks.succeeds, tasks.fails

-- A wait long enough for others to get stuck, and how long anything may take at most.
local SHORT, PATIENCE = 0.02, 10
-- Far more than the buffers of `pair` hold.
local BIG = ("0123456789abcdef"):rep(64 * 1024)

for _, over in ipairs(transports.all) do
  describe("a connection of several tasks" .. over.suffix, function()
    local tcp, connect_to = over.tcp, over.connect_to

    --- Both ends of a connection with small buffers: the one that dialled and the one that was accepted.
    local function pair()
      local near, far = over.pair({ max_packet = 2 ^ 24 }, { max_packet = 2 ^ 24 })
      near:set_option("send_buffer", 16384)
      far:set_option("recv_buffer", 16384)
      return near, far
    end

    --- Asserts that a task that reads from `far` to the end gets `bytes`. Over TLS it is told that they were cut off,
    -- and what the system had not taken of them is lost.
    local function gets_cut(reader, far, bytes)
      if not over.is_tls then
        assert.is_true(succeeds(reader) == bytes)
        return
      end
      task_fails("truncated", reader)
      local got = far:read(far:buffered())
      assert.is_true(#got > 0 and got == bytes:sub(1, #got))
    end

    --- Ends the sending side of `near` and gives what was still to be read at `far`; closes both.
    local function rest(near, far)
      local reader = trying(far, "read_str", { timeout = PATIENCE })
      near:close()
      local bytes = succeeds(reader)
      far:close()
      return bytes
    end

    local READS = {
      read = 5, read_bytes = 5, recv = 5, read_line = "l", read_until = "x", read_str = 100, read_all = 100,
      read_json = false, read_packet = false, read_json_packet = false, peek = 5,
    }

    --- Every read is refused in both forms while another one is under way.
    local function all_busy(conn)
      local before = conn:buffered()
      for name, argument in pairs(READS) do
        local try, raise = conn["try_" .. name], conn[name]
        local err
        if argument then
          err = fails("busy", try(conn, argument))
          assert.is_true(tcp.is_error(select(2, pcall(raise, conn, argument)), "busy"), name)
        else
          err = fails("busy", try(conn))
          assert.is_true(tcp.is_error(select(2, pcall(raise, conn)), "busy"), name)
        end
        assert.equal(name, err.op)
        assert.equal(conn:remote_addr(), err.peer)
      end
      for _, name in ipairs { "lines", "chunks", "packets", "json_packets", "json_values" } do
        local ok, err = pcall(conn[name](conn))
        assert.is_true(not ok and tcp.is_error(err, "busy"), name)
      end
      assert.equal(before, conn:buffered())
    end

    -- What each write puts on the wire for a long text, and whether its caller may go on after a timeout.
    local HEADER = "\0\16\0\0"
    local WRITES = {
      write = { BIG, BIG, continues = true },
      ["write of pieces"] = { "write", { "a", BIG, "b" }, "a" .. BIG .. "b", continues = true },
      send = { BIG, BIG, continues = true },
      write_str = { BIG, BIG, continues = true },
      write_line = { BIG, BIG .. "\r\n" },
      write_packet = { BIG, HEADER .. BIG },
      write_json = { BIG, '"' .. BIG .. '"\n' },
      write_json_packet = { BIG:sub(3), HEADER .. '"' .. BIG:sub(3) .. '"' },
    }
    for name, case in pairs(WRITES) do
      if #case == 2 then
        table.insert(case, 1, name)
      end
    end

    after_each(function()
      assert.is_false(tcp.step(0), "a task is left")
    end)

    it("carries megabytes in both directions at once", function()
      local near, far = pair()
      local text = BIG:rep(4)
      local begun = {}
      for i, conn in ipairs { near, far } do
        begun[i] = trying(conn, "write", text)
        begun[i + 2] = trying(conn, "read", #text)
      end
      assert.equal(near, succeeds(begun[1]))
      assert.equal(far, succeeds(begun[2]))
      assert.is_true(succeeds(begun[3]) == text)
      assert.is_true(succeeds(begun[4]) == text)
      assert.equal("", rest(near, far))
    end)

    it("carries megabytes through an echo", function()
      local conn = connect_to("accept", "echo")
      local text = BIG:rep(8)
      local reader = trying(conn, "read", #text)
      conn:write(text)
      assert.is_true(succeeds(reader) == text)
      conn:close()
    end)

    for name, argument in pairs(READS) do
      it("refuses a second reader while one waits in " .. name .. ", and it steals nothing", function()
        local near, far = pair()
        local reader = trying(near, name, argument or nil)
        tcp.sleep(SHORT)
        all_busy(near)
        tcp.run(all_busy, near)
        assert.equal("waiting", reader:status())
        reader:cancel()
        fails("cancelled", reader:try_join(PATIENCE))
        far:write("after")
        assert.equal("after", near:read(5, { timeout = PATIENCE }))
        near:close()
        far:close()
      end)
    end

    it("refuses a second reader in the middle of a large read_str and between two arrivals", function()
      local near, far = pair()
      local reader = trying(near, "read_str")
      far:write("first")
      tcp.sleep(SHORT)
      assert.equal(5, near:buffered())
      all_busy(near)
      local writer = trying(far, "write", BIG)
      while near:buffered() < 6 do
        tcp.sleep(0)
      end
      all_busy(near)
      succeeds(writer)
      far:shutdown("send")
      assert.is_true(succeeds(reader) == "first" .. BIG)
      assert.is_nil(near:recv())
      near:close()
      far:close()
    end)

    it("refuses tasks while code outside tasks reads", function()
      local near, far = pair()
      local checked = tcp.spawn(function()
        all_busy(near)
        far:write("line\n")
        return true
      end)
      assert.equal("line", near:read_line({ timeout = PATIENCE }))
      assert.is_true(checked:join())
      assert.equal("", rest(near, far))
    end)

    it("is free for others after its reader failed, was cut, or ended within a read", function()
      local near, far = pair()
      near:set_option("max_line", 4)
      local reader = trying(near, "read_line")
      tcp.sleep(SHORT)
      far:write("too long")
      task_fails("too_large", reader)
      assert.equal("too long", near:read(8))

      fails("timeout", near:try_read(1, { timeout = SHORT }))
      task_fails("timeout", trying(near, "read", 1, { timeout = SHORT }))
      -- A coroutine of the script's own cannot wait in a task.
      assert.is_false(tcp.run(function()
        return (coroutine.resume(coroutine.create(near.read), near, 1))
      end))
      far:write("x")
      assert.equal("x", near:read(1))
      assert.equal("", rest(near, far))
    end)

    it("gives closed to those who wait when another task closes it", function()
      local near, far = pair()
      local reader = trying(near, "read", 10)
      local first, second = trying(near, "write", BIG), trying(near, "write_line", "queued")
      local third = trying(near, "shutdown", "send")
      far:write("lost")
      tcp.sleep(SHORT)
      near:close()
      local err = task_fails("closed", reader)
      assert.equal("read", err.op)
      err = task_fails("closed", first)
      assert.equal(far:local_addr(), err.peer)
      local written = err.written
      assert.is_true(written > 0 and written < #BIG)
      assert.equal(0, task_fails("closed", second).written)
      task_fails("closed", third)
      -- Closing with unread input may reset the connection, but what came is the beginning.
      local got = {}
      local chunk = far:try_recv()
      while chunk do
        got[#got + 1] = chunk
        chunk = far:try_recv()
      end
      local bytes = table.concat(got)
      assert.equal(BIG:sub(1, #bytes), bytes)
      assert.is_true(#bytes <= written)
      far:close()
    end)

    it("gives closed to everybody who waits for a listener when it is closed", function()
      local listener = tcp.listen("127.0.0.1", 0)
      local begun = {}
      for i = 1, 3 do
        begun[i] = trying(listener, "accept")
      end
      begun[4] = tcp.spawn(function()
        local accept = listener:connections()
        return { value = accept() or "ended" }
      end)
      tcp.sleep(SHORT)
      listener:close()
      for i = 1, 3 do
        assert.equal(listener:addr(), task_fails("closed", begun[i]).peer)
      end
      assert.equal("ended", succeeds(begun[4]))
    end)

    it("ends a waiting reader when another task shuts its direction down", function()
      for _, direction in ipairs { "recv", "both" } do
        local near, far = pair()
        local reader = trying(near, "read", 10)
        far:write("abc")
        tcp.sleep(SHORT)
        near:shutdown(direction)
        task_fails("closed", reader)
        assert.equal("abc", near:read_str())
        near:close()
        far:close()
      end
    end)

    it("shuts its sending side down behind the writes that were called before", function()
      local near, far = pair()
      local writes = { trying(near, "write", BIG), trying(near, "write_line", "last") }
      tcp.sleep(SHORT)
      local shutdown = trying(near, "shutdown", "send")
      assert.is_true(far:read_str({ timeout = PATIENCE }) == BIG .. "last\r\n")
      succeeds(writes[1])
      succeeds(writes[2])
      assert.is_true(succeeds(shutdown))
      assert.equal(0, fails("closed", near:try_write("more")).written)
      -- The other direction goes on.
      far:write("answer")
      far:close()
      assert.equal("answer", near:read_str())
      near:close()
    end)

    it("sends the writes of many tasks whole and in order of arrival", function()
      local conn, peer = connect_to({ max_packet = 2 ^ 24 }, "accept", { "sleep", 50 }, { "read", 1 }, { "sleep", 20 },
        { "read", 20001 }, { "sleep", 20 }, "drain")
      conn:set_option("send_buffer", 16384)
      local long = BIG:sub(1, 100000)
      local begun, expected = {}, {}
      local function queue(wire, name, ...)
        expected[#expected + 1] = wire
        begun[#begun + 1] = trying(conn, name, ...)
      end
      queue(BIG:rep(4), "write", BIG:rep(4))
      for i = 1, 20 do
        queue(i .. "\r\n", "write_line", i)
        queue("a" .. long .. i, "write", { "a", long, tostring(i) })
        queue("\1\2\3", "write", { 1, 2, 3 })
        queue("[" .. i .. "]\n", "write_json", { i })
        queue("\0\1\134\160" .. long, "write_packet", long)
        queue("\0\0\0\3[7]", "write_json_packet", { 7 })
        queue("sent", "send", "sent")
        queue("some", "send_some", "awesome", 4)
        queue("", "write", "")
        queue("", "write", {})
      end
      for _, task in ipairs(begun) do
        assert.is_truthy(succeeds(task))
      end
      conn:close()
      assert.is_true(peer:got() .. peer:got() .. peer:got() == table.concat(expected))
    end)

    for name, case in pairs(WRITES) do
      local method, data, wire, continues = case[1], case[2], case[3], case.continues

      it(name .. " that times out half-way tells how far it got, and what may follow", function()
        local near, far = pair()
        near:set_write_timeout(0.05)
        local cut = trying(near, method, data)
        tcp.sleep(SHORT)
        near:set_write_timeout(nil)
        local queued = trying(near, "write_line", "queued")
        local err = task_fails("timeout", cut)
        assert.equal(method, err.op)
        local written = err.written
        assert.is_true(written > 0 and written < #wire)
        local reader = trying(far, "read_str", { timeout = PATIENCE })
        local sent = wire:sub(1, written)
        if continues then
          succeeds(queued)
          near[method](near, wire:sub(written + 1))
          sent = sent .. "queued\r\n" .. wire:sub(written + 1)
        else
          assert.equal(0, task_fails("closed", queued).written)
          assert.equal(0, fails("closed", near:try_write("later")).written)
          far:write("heard")
          assert.equal("heard", near:read(5, { timeout = PATIENCE }))
        end
        near:close()
        if continues then
          assert.is_true(succeeds(reader) == sent)
        else
          gets_cut(reader, far, sent)
        end
        far:close()
      end)

      for _, way in ipairs { "cancel", "with_timeout" } do
        it(name .. " cut half-way by " .. way .. " ends the sending side", function()
          local near, far = pair()
          local seen
          local task = tcp.spawn(function()
            local function write()
              local _, err = near["try_" .. method](near, data)
              seen = err
            end
            if way == "cancel" then
              return write()
            end
            tcp.try_with_timeout(2 * SHORT, write)
          end)
          tcp.sleep(SHORT)
          local queued, other = trying(near, "write_line", "queued"), trying(near, "send_some", "queued")
          tcp.sleep(0)
          if way == "cancel" then
            task:cancel()
          end
          assert.equal(0, task_fails("closed", queued).written)
          assert.equal(0, task_fails("closed", other).written)
          assert.equal("cancelled", seen.kind)
          assert.equal(0, fails("closed", near:try_write("later")).written)
          far:write("heard")
          assert.equal("heard", near:read(5, { timeout = PATIENCE }))
          local reader = trying(far, "read_str", { timeout = PATIENCE })
          near:close()
          gets_cut(reader, far, wire:sub(1, seen.written))
          far:close()
        end)
      end
    end

    it("goes on with the writes around one that was cut before its turn", function()
      local near, far = pair()
      local first = trying(near, "write", BIG)
      tcp.sleep(SHORT)
      near:set_write_timeout(SHORT)
      local timed, cancelled = {}, {}
      for name, case in pairs(WRITES) do
        timed[#timed + 1] = trying(near, case[1], case[2])
        timed[#timed + 1] = trying(near, "send_some", name)
      end
      tcp.sleep(0)
      near:set_write_timeout(nil)
      for _, case in pairs(WRITES) do
        cancelled[#cancelled + 1] = trying(near, case[1], case[2])
      end
      local last = trying(near, "write_line", "last")
      for _, task in ipairs(timed) do
        assert.equal(0, task_fails("timeout", task).written)
      end
      for _, task in ipairs(cancelled) do
        task:cancel()
        fails("cancelled", task:try_join(PATIENCE))
      end
      local reader = trying(far, "read_str", { timeout = PATIENCE })
      succeeds(first)
      succeeds(last)
      near:close()
      assert.is_true(succeeds(reader) == BIG .. "last\r\n")
      far:close()
    end)

    it("is told of a reset in both directions, with what had arrived", function()
      local conn = connect_to("accept", { "send", "abc" }, { "skip", 1000 }, "reset")
      local reader, writer = trying(conn, "read", 10), trying(conn, "write", BIG:rep(16))
      local queued = trying(conn, "write_packet", "x")
      task_fails("reset", reader)
      local err = task_fails("reset", writer)
      assert.is_true(err.written >= 1000 and err.written < 16 * #BIG)
      assert.equal(0, task_fails("reset", queued).written)
      assert.equal("abc", conn:read(3))
      fails("reset", conn:try_read(1))
      conn:close()
    end)

    it("goes on writing after the peer has half-closed", function()
      local conn, peer = connect_to("accept", { "send", "end" }, "shutdown", { "sleep", 30 }, "drain")
      local reader, writer = trying(conn, "read_str"), trying(conn, "write", BIG:rep(16))
      assert.equal("end", succeeds(reader))
      succeeds(writer)
      assert.is_nil(conn:recv())
      conn:close()
      assert.equal(16 * #BIG, #peer:got())
    end)
  end)
end
