local peers = require("support.peers")
local support = require("support")
local transports = require("support.transports")

local fails = support.fails

-- How long a wait lasts before it is cut, and how long anything may take at most.
local SHORT, PATIENCE = 0.02, 10
local BIG = ("0123456789abcdef"):rep(64 * 1024)

for _, over in ipairs(transports.all) do
  describe("cutting" .. over.suffix, function()
    local tcp, connect_to = over.tcp, over.connect_to

    --- Both ends of a connection with small buffers: the one that dialled and the one that was accepted.
    local function pair()
      local near, far = over.pair({ max_packet = 2 ^ 24 })
      near:set_option("send_buffer", 16384)
      far:set_option("recv_buffer", 16384)
      return near, far
    end

    --- Sends until the system takes no more, and gives how much that was.
    local function fill(conn)
      local total, written = 0
      conn:set_write_timeout(0)
      repeat
        written = fails("timeout", conn:try_send(BIG)).written
        total = total + written
      until written == 0
      conn:set_write_timeout(nil)
      return total
    end

    --- What a raising function that gives nothing answers in the manner of the `try_` forms.
    local function try(fn, ...)
      local ok, err = tcp.pcall(fn, ...)
      if not ok then
        return nil, err
      end
      return true
    end

    -- The ways to cut a wait. Each is given a `try_` form and gives its error.
    local WAYS = {
      cancel = function(begin)
        local value, problem
        local task = tcp.spawn(function()
          value, problem = begin()
          assert(problem, "nothing was cut")
        end)
        tcp.sleep(SHORT)
        assert.equal("waiting", task:status())
        task:cancel()
        assert.equal("cancelled", task:status())
        local err = fails("cancelled", task:try_join(PATIENCE))
        assert.equal(task, err.task)
        assert.equal("join", err.op)
        return fails("cancelled", value, problem)
      end,
      with_timeout = function(begin)
        local value, problem
        local err = fails("timeout", tcp.try_with_timeout(SHORT, function()
          value, problem = begin()
          return 1
        end))
        assert.equal("with_timeout", err.op)
        return fails("cancelled", value, problem)
      end,
      timeout = function(begin, has_timeout)
        return has_timeout and fails("timeout", begin(SHORT))
      end,
    }

    local function in_task(way)
      return function(...)
        return tcp.run(WAYS[way], ...)
      end
    end

    WAYS["with_timeout in a task"] = in_task("with_timeout")
    WAYS["timeout in a task"] = in_task("timeout")

    -- Each gives the wait, what its error has to say, and what is to be checked after it.
    local WAITS = {
      connect = function()
        local silent = peers.start("--silent")
        local before = peers.descriptors()
        return function(s)
          return tcp.try_connect(silent.host, silent.port, s)
        end, { peer = "127.0.0.1:" .. silent.port, stage = "connect" }, function()
          assert.equal(before, peers.descriptors())
        end
      end,
      accept = function()
        local listener = tcp.listen("127.0.0.1", 0)
        return function(s)
          return listener:try_accept(s)
        end, { peer = listener:addr() }, function()
          local conn = transports.plain.tcp.connect(listener:local_host(), listener:local_port())
          listener:accept(PATIENCE):close()
          assert.is_nil(conn:recv())
          conn:close()
          listener:close()
        end
      end,
      join = function()
        local queue = tcp.queue()
        local other = tcp.spawn(function()
          return queue:pop()
        end)
        return function(s)
          return other:try_join(s)
        end, {}, function()
          assert.equal("waiting", other:status())
          queue:push("unharmed")
          assert.equal("unharmed", other:join(PATIENCE))
        end
      end,
      sleep = function()
        return function()
          return try(tcp.sleep, PATIENCE)
        end, { without_timeout = true }, function() end
      end,
      push = function()
        local queue = tcp.queue(1)
        queue:push("first")
        return function()
          return queue:try_push("never there")
        end, { without_timeout = true }, function()
          assert.equal("first", queue:pop())
          assert.equal(0, queue:count())
          queue:push("next")
          assert.equal("next", queue:pop())
        end
      end,
      pop = function()
        local queue = tcp.queue()
        return function(s)
          return queue:try_pop(s)
        end, {}, function()
          queue:push("kept")
          assert.equal(1, queue:count())
          assert.equal("kept", queue:pop(0))
        end
      end,
      shutdown = function()
        local near, far = pair()
        local writer = tcp.spawn(function()
          return near:write(BIG)
        end)
        tcp.sleep(SHORT)
        return function(s)
          near:set_write_timeout(s)
          return near:try_shutdown("send")
        end, { peer = near:remote_addr() }, function()
          near:set_write_timeout(nil)
          assert.is_true(far:read(#BIG, { timeout = PATIENCE }) == BIG)
          assert.equal(near, writer:join(PATIENCE))
          near:write("not ended")
          near:shutdown("send")
          assert.equal("not ended", far:read_str({ timeout = PATIENCE }))
          near:close()
          far:close()
        end
      end,
    }

    -- Reads of a stream that begins with `"ab` or, for those that would be content with it, with nothing.
    local READS = {
      read = { 10 }, read_bytes = { 10 }, read_line = {}, read_until = { "x" }, read_str = {}, read_all = {},
      read_json = {}, read_packet = {}, read_json_packet = {}, recv = { 10, early = "" }, peek = { 10, early = "" },
    }

    for name, arguments in pairs(READS) do
      WAITS[name] = function()
        local early = arguments.early or '"ab'
        local conn, peer = connect_to("accept", { "send", early }, { "skip", 1 }, { "send", "rest" }, "close")
        if early ~= "" then
          conn:peek(1)
        end
        return function(s)
          local last = s and { timeout = s }
          if arguments[1] then
            return conn["try_" .. name](conn, arguments[1], last)
          end
          return conn["try_" .. name](conn, last)
        end, { peer = "127.0.0.1:" .. peer.port }, function()
          assert.equal(#early, conn:buffered())
          conn:write("!")
          assert.equal(early .. "rest", conn:read_str({ timeout = PATIENCE }))
          conn:close()
        end
      end
    end

    -- Iterators raise; they take a time limit where they are made.
    local ITERATORS = { lines = "ab", chunks = "", packets = "\0\0", json_packets = "\0\0", json_values = " [" }

    for name, early in pairs(ITERATORS) do
      WAITS[name] = function()
        local conn, peer = connect_to("accept", { "send", early }, { "skip", 1 }, { "send", "rest" }, "close")
        if early ~= "" then
          conn:peek(1)
        end
        return function(s)
          return try(conn[name](conn, s and { timeout = s }))
        end, { peer = "127.0.0.1:" .. peer.port }, function()
          assert.equal(#early, conn:buffered())
          conn:write("!")
          assert.equal(early .. "rest", conn:read_str({ timeout = PATIENCE }))
          conn:close()
        end
      end
    end

    -- Writes to a connection that takes nothing more: none of them has begun.
    local WRITES = {
      write = "xyz", send = "xyz", send_some = "xyz", write_line = "xyz", write_str = "xyz", write_json = "xyz",
      write_packet = "xyz", write_json_packet = "xyz",
    }

    for name, data in pairs(WRITES) do
      WAITS[name] = function()
        local near, far = pair()
        local before = fill(near)
        return function(s)
          near:set_write_timeout(s)
          return near["try_" .. name](near, data)
        end, { peer = near:remote_addr(), written = 0 }, function()
          near:set_write_timeout(nil)
          -- Under TLS the rest of what was sealed leaves with the next write.
          local reading = tcp.spawn(function()
            far:read(before)
            local rest = far:read_str({ timeout = PATIENCE })
            return rest
          end)
          near:write("whole")
          near:close()
          assert.equal("whole", reading:join(PATIENCE))
          far:close()
        end
      end
    end

    local function sorted_names(list)
      local names = {}
      for name in pairs(list) do
        names[#names + 1] = name
      end
      table.sort(names)
      return names
    end

    local function without_garbage_collection()
      collectgarbage("stop")
      finally(function()
        collectgarbage("restart")
      end)
    end

    describe("cutting", function()
      after_each(function()
        assert.is_false(tcp.step(0), "a task is left")
      end)

      for _, name in ipairs(sorted_names(WAITS)) do
        for _, way in ipairs(sorted_names(WAYS)) do
          it(("%s by %s says where, and breaks nothing"):format(name, way), function()
            without_garbage_collection()
            local begin, expected, check = WAITS[name]()
            local err = WAYS[way](begin, not expected.without_timeout)
            if err then
              assert.equal(name, err.op)
              assert.equal(expected.peer, err.peer)
              assert.equal(expected.stage, err.stage)
              assert.equal(expected.written, err.written)
            end
            check()
            tcp.run()
          end)
        end
      end

      it("connect while it resolves says so, and leaves no descriptor", function()
        if not support.succeeds("unshare -m true") then
          return pending("a resolver that never answers needs a mount namespace of its own (root)")
        end
        local address = "127.99.99.98"
        peers.start("--silent-dns", address)
        local output = support.with_nameserver(address, function(prefix)
          return support.child([[
            local tcp = require("tcp.core")
            local lfs = require("lfs")
            tcp.pollfd()
            collectgarbage("stop")
            local function descriptors()
              local count = 0
              for _ in lfs.dir("/proc/self/fd") do
                count = count + 1
              end
              return count
            end
            local function attempt(timeout)
              local _, err = tcp.try_connect("slow.example", 80, timeout)
              print(err.kind, err.op, err.stage, err.peer)
            end
            local before
            for _ = 1, 2 do
              local task = tcp.spawn(attempt)
              tcp.sleep(0.05)
              task:cancel()
              print(select(2, task:try_join()).kind)
              print(select(2, tcp.try_with_timeout(0.05, attempt)).kind)
              tcp.run(attempt, 0.05)
              -- The system's resolver keeps its own descriptors, one for every thread that still asks.
              before = before or descriptors()
            end
            print(tcp.step(0), descriptors() - before <= 3)
          ]], prefix)
        end)
        local line = "\tconnect\tresolve\tslow.example:80\n"
        local once = ("cancelled%scancelled\ncancelled%stimeout\ntimeout%s"):format(line, line, line)
        assert.equal(once .. once .. "false\ttrue\n", output)
      end)

      it("what needs no wait works for a cancelled task, and nothing else does", function()
        local conn = connect_to("accept", { "send", "one\ntwo\nthr" }, "stall")
        conn:peek(1)
        local queue = tcp.queue(1)
        local seen, errs = {}, {}
        local task = tcp.spawn(function()
          local _, err = queue:try_pop()
          errs[#errs + 1] = err
          seen[1], seen[2] = conn:read_line(), conn:read_line()
          for _, wait in ipairs { conn.try_read_line, conn.try_recv, conn.try_peek } do
            _, err = wait(conn, wait == conn.try_peek and 10 or nil)
            errs[#errs + 1] = err or "none"
          end
          queue:push("still")
          errs[#errs + 1] = select(2, queue:try_push("too much"))
          errs[#errs + 1] = select(2, try(tcp.sleep, 0))
        end)
        tcp.sleep(SHORT)
        task:cancel()
        fails("cancelled", task:try_join(PATIENCE))
        assert.same({ "one", "two" }, seen)
        -- recv and peek take what has arrived; after recv there is nothing to peek at.
        assert.equal("cancelled", errs[1].kind)
        assert.equal("cancelled", errs[2].kind)
        assert.equal("none", errs[3])
        for i = 4, 6 do
          assert.equal("cancelled", errs[i].kind, i)
        end
        assert.equal("still", queue:pop())
        conn:close()
      end)

      it("a value given to a task before it is cancelled is not lost", function()
        local queue = tcp.queue()
        local got
        local task = tcp.spawn(function()
          got = queue:pop()
        end)
        tcp.sleep(SHORT)
        queue:push("gift")
        task:cancel()
        fails("cancelled", task:try_join(PATIENCE))
        assert.equal("gift", got)
        assert.equal(0, queue:count())
      end)

      it("a limit of math.huge is none: what cannot come is told", function()
        assert.matches("would wait for ever", support.child([[
          local tcp = require("tcp.core")
          print(tcp.pcall(tcp.with_timeout, math.huge, function()
            return tcp.queue():pop()
          end))
        ]], "timeout 5"))
      end)

      it("a join that could not wait leaves nothing behind", function()
        local first, second
        first = tcp.spawn(function()
          tcp.sleep(SHORT)
          return second:join(PATIENCE)
        end)
        second = tcp.spawn(function()
          local ok = coroutine.resume(coroutine.create(function()
            return first:join()
          end))
          tcp.sleep(2 * SHORT)
          return ok
        end)
        assert.is_false(first:join(PATIENCE))
      end)

      it("shutdown ends in its time although others go on writing", function()
        local conn = connect_to("accept", { "skip", "1099511627776" }, "close")
        local is_over = false
        for _ = 1, 2 do
          tcp.spawn(function()
            local ok = true
            while ok and not is_over do
              ok = conn:try_write(BIG)
            end
          end)
        end
        tcp.sleep(SHORT)
        conn:set_write_timeout(0.2)
        local began = tcp.now()
        local task = tcp.spawn(conn.try_shutdown, conn, "send")
        task:try_join(1)
        is_over = true
        assert.is_true(tcp.now() - began < 0.9)
        tcp.run()
        conn:close()
        tcp.run()
      end)
    end)
  end)
end
