local peers = require("support.peers")
local support = require("support")
local transports = require("support.transports")

local is_plain = not jit

--- Waits until a process sleeps in the kernel, where the signal has to reach it.
local function wait_until_asleep(pid)
  local state
  for _ = 1, 2000 do
    local file = assert(io.open("/proc/" .. pid .. "/stat"))
    state = file:read("*a"):match("%) (%a)")
    file:close()
    if state == "S" then
      return
    end
    os.execute("sleep 0.005")
  end
  error("the process did not wait: " .. tostring(state))
end

local PREFIX = "timeout 10"

-- `interrupt` is Ctrl-C in the middle of what runs; os.execute would have it ignored.
local COMMON = [[
  package.path = "lua-tests/?.lua;lua-tests/?/init.lua;" .. package.path
  local over = require("support.transports").%s
  local tcp = require("tcp.core")
  local host, port, silent = "127.0.0.1", %d, %d
  local function pair()
    local near, far = over.pair()
    -- Otherwise the system may take megabytes without a wait.
    near:set_option("send_buffer", 65536)
    far:set_option("recv_buffer", 65536)
    return near, far
  end
  -- Accepted from a client that says nothing.
  local function unshaken()
    local server = { cert = "build/certificates/server.pem", key = "build/certificates/server.key" }
    local listener = tcp.listen(host, 0, { tls = server })
    local raw = tcp.connect(host, listener:local_port())
    local far = listener:accept()
    tcp.kept = { listener, raw, far }
    return far
  end
  local pid = io.popen("echo $PPID"):read("*l")
  local function interrupt()
    io.popen("kill -INT " .. pid):close()
    for _ = 1, 10 do end
  end
  local function waiting()
    print("waiting")
    io.stdout:flush()
  end
  -- Whether a call was interrupted.
  local function caught(...)
    local ok, err = pcall(...)
    return not ok and tostring(err):match("interrupted!$") or ("not interrupted: " .. tostring(err))
  end
]]

-- What waits, given a peer that never says anything.
local WAITS = {
  ["read_line"] = "conn:read_line()",
  ["read_line with a timeout"] = "conn:read_line({ timeout = 60 })",
  ["try_recv"] = "conn:try_recv()",
  ["read_str"] = "conn:read_str()",
  ["write"] = "while true do conn:write(('x'):rep(1000000)) end",
  ["accept"] = "listener:accept()",
  ["accept with a timeout"] = "listener:try_accept(60)",
  ["connect"] = "tcp.connect(host, silent, 60)",
  ["connect_tls"] = "tcp.connect_tls(host, port, 60)",
  ["connect_tls without a limit"] = "tcp.try_connect_tls(host, port, math.huge)",
  ["handshake"] = "unshaken():handshake()",
  ["try_handshake with a timeout"] = "unshaken():try_handshake({ timeout = 60 })",
  ["a first read of an accepted connection"] = "unshaken():read_line()",
  ["a first write of an accepted connection"] = "unshaken():write('x')",
  ["sleep"] = "tcp.sleep(60)",
  ["join"] = "other:join()",
  ["try_join with a timeout"] = "other:try_join(60)",
  ["pop"] = "queue:pop()",
  ["push"] = "queue:push(1) queue:push(2)",
  ["with_timeout"] = "tcp.with_timeout(60, conn.read_line, conn)",
  ["a wait in tcp.wrap"] = "tcp.wrap(function() tcp.wrap(function() return (conn:read_line()) end)() end)()",
  ["a wait in tcp.pcall"] = "error(select(3, tcp.pcall(tcp.pcall, function() return (conn:read_line()) end)), 0)",
}

-- Who runs the loop meanwhile.
local RUNNERS = {
  ["run"] = "tcp.spawn(wait) tcp.run()",
  ["run with a function"] = "tcp.run(wait)",
  ["run in a coroutine of one's own"] = "tcp.spawn(wait) coroutine.wrap(function() tcp.run() end)()",
  ["step in a loop"] = "tcp.spawn(wait) while tcp.step(60) do end",
  ["a wait outside tasks"] = "tcp.spawn(tcp.sleep, 50) wait()",
}

for _, over in ipairs(transports.all) do
  describe("signals" .. over.suffix, function()
    local function script(text, port, silent)
      return COMMON:format(over.is_tls and "tls" or "plain", port or 0, silent or 0) .. text
    end

    --- What a script prints that interrupts itself.
    local function prints(expected, text)
      assert.equal(expected, support.child(script(text), PREFIX))
    end

    --- Runs a script, interrupts it when it prints "waiting" and then waits, and gives the rest of its output.
    -- Only once: an interpreter leaves a second Ctrl-C to the system.
    local function interrupt(text, port, silent)
      local rest
      support.with_child(script(text, port, silent), function(output, pid)
        assert.equal("waiting", output:read("*l"))
        wait_until_asleep(pid)
        os.execute("kill -INT " .. pid)
        rest = output:read("*a")
      end)
      return rest
    end

    describe("Ctrl-C, with tasks,", function()
      for wait_name, wait in pairs(WAITS) do
        it("interrupts " .. wait_name .. " in every manner to run the loop", function()
          for runner_name, runner in pairs(RUNNERS) do
            local peer, silent = over.start("accept", "stall"), peers.start("--silent")
            local rest = interrupt(([[
              local conn, listener, queue = over.tcp.connect(host, port), tcp.listen(host, 0), tcp.queue(1)
              local other = tcp.spawn(tcp.sleep, 60)
              local function wait()
                waiting()
                %s
                print("came back")
              end
              print(caught(function() %s end))
              os.exit(0)
            ]]):format(wait, runner), peer.port, silent.port)
            assert.equal("interrupted!\n", rest, runner_name)
            peers.finish_all()
          end
        end)
      end

      it("ends the program if nothing catches it", function()
        local rest = interrupt([[
          local function wait() waiting() tcp.sleep(60) end
          tcp.spawn(wait)
          tcp.run()
          print("came back")
        ]])
        assert.matches("interrupted!", rest)
        assert.is_nil(rest:find("came back", 1, true))
      end)

      it("leaves tasks where they were: run goes on", function()
        local rest = interrupt([[
          local near, far = pair()
          local queue = tcp.queue()
          local listener = tcp.listen(host, 0)
          local lines = {}
          local reader = tcp.spawn(function()
            for i = 1, 3 do lines[i] = far:read_line() end
            return "read " .. table.concat(lines, ",")
          end)
          local popper = tcp.spawn(function() return "popped " .. queue:pop() .. queue:pop() end)
          local accepter = tcp.spawn(function() return "accepted " .. listener:accept():read_line() end)
          local joiner = tcp.spawn(function() local a, b = reader:join(), popper:join() return "joined " .. a .. b end)
          near:write("1\n2\npar")
          waiting()
          print(caught(tcp.run))
          near:write("t\n")
          queue:push(1) queue:push(2)
          tcp.connect(host, listener:local_port()):write("hello\n")
          tcp.run()
          for _, task in ipairs { reader, popper, accepter, joiner } do print(task:join()) end
          print(tcp.step(0))
        ]])
        local ends = "read 1,2,part\npopped 12\naccepted hello\njoined read 1,2,partpopped 12\nfalse\n"
        assert.equal("interrupted!\n" .. ends, rest)
      end)

      it("leaves the time of waits as it was", function()
        local rest = interrupt([[
          local began = tcp.now()
          local task = tcp.spawn(function()
            local near, far = pair()
            local _, err = far:try_read_line({ timeout = 0.8 })
            near:close()
            return err.kind, tcp.now() - began >= 0.8 and tcp.now() - began < 5
          end)
          tcp.sleep(0)
          waiting()
          print(caught(tcp.run))
          print(task:join())
        ]])
        assert.equal("interrupted!\ntimeout\ttrue\n", rest)
      end)

      it("cuts only the main program's own wait", function()
        local rest = interrupt([[
          local near, far = pair()
          local queue = tcp.queue()
          local task = tcp.spawn(function() return (far:read_line()) end)
          waiting()
          print(caught(queue.pop, queue))
          queue:push("kept")
          print(queue:count(), queue:pop(0))
          near:write("for the task\n")
          print(task:join())
          near:write("for all\n")
          print(far:read_line())
        ]])
        assert.equal("interrupted!\n1\tkept\nfor the task\nfor all\n", rest)
      end)

      it("leaves a task's queued writes in order", function()
        local rest = interrupt([[
          local near, far = pair()
          local size = 4000000
          for i = 1, 3 do
            tcp.spawn(function() near:write((tostring(i)):rep(size)) end)
          end
          local last = tcp.spawn(function() near:write("end") near:shutdown("send") end)
          waiting()
          print(caught(tcp.run))
          print(far:read(3 * size) == ("1"):rep(size) .. ("2"):rep(size) .. ("3"):rep(size), far:read_str())
          last:join()
          print(tcp.step(0))
        ]])
        assert.equal("interrupted!\ntrue\tend\nfalse\n", rest)
      end)

      it("leaves the others' queued writes in order if it cuts the main program's that waits for its turn", function()
        local rest = interrupt([[
          local near, far = pair()
          local size = 4000000
          local first = tcp.spawn(function() near:write(("1"):rep(size)) end)
          tcp.sleep(0)
          waiting()
          print(caught(near.write, near, "never"))
          local third = tcp.spawn(function() near:write("3") near:shutdown("send") end)
          print(far:read(size) == ("1"):rep(size), far:read_str())
          first:join() third:join()
          print(tcp.step(0))
        ]])
        assert.equal("interrupted!\ntrue\t3\nfalse\n", rest)
      end)
    end)

    describe("Ctrl-C while a task computes", function()
      it("reaches the main program, which may go on with tasks", function()
        prints("interrupted!\nfine\nfalse\n", [[
          tcp.spawn(interrupt)
          print(caught(tcp.run))
          print(tcp.run(function() tcp.sleep(0.001) return "fine" end))
          tcp.run()
          print(tcp.step(0))
        ]])
      end)

      if is_plain then
        -- Here the task itself is not struck, and nothing of it may be lost.
        local ENDS = {
          ["results"] = { "interrupt() return 7, nil, 8", "true\t7\tnil\t8" },
          ["error"] = { "interrupt() error('an error', 0)", "false\tan error" },
          ["wait"] = { "tcp.sleep(0.001) interrupt() tcp.sleep(0.001) return 3", "true\t3" },
          ["turn"] = { "interrupt() tcp.sleep(0) return 4", "true\t4" },
          ["cancellation"] = { "interrupt() self:cancel() tcp.sleep(1)", "false\tjoin: the task was cancelled" },
        }
        for name, case in pairs(ENDS) do
          it("does not lose the task's " .. name, function()
            prints("interrupted!\n" .. case[2] .. "\nbeside\nfalse\n", ([[
              tcp.on_error = function() end
              local self
              self = tcp.spawn(function() %s end)
              local beside = tcp.spawn(function() tcp.sleep(0) return "beside" end)
              print(caught(tcp.run))
              local function show(ok, err, ...)
                print(ok, tcp.is_error(err) and "join: " .. err.message or err, ...)
              end
              show(pcall(self.join, self, 5))
              print(beside:join(5))
              print(tcp.step(0))
            ]]):format(case[1]))
          end)
        end

        it("loses no data between tasks", function()
          for moment = 1, 20, 6 do
            prints("210\tdone\nfalse\n", "local moment = " .. moment .. "\n" .. [[
              local near, far = pair()
              local queue = tcp.queue(2)
              tcp.spawn(function()
                for i = 1, 20 do near:write_line(tostring(i)) if i == moment then interrupt() end tcp.sleep(0) end
                near:shutdown("send")
              end)
              tcp.spawn(function()
                local line = far:try_read_line()
                while line do
                  queue:push(tonumber(line))
                  line = far:try_read_line()
                end
                queue:close()
              end)
              local sum = 0
              local adder = tcp.spawn(function()
                local value = queue:pop()
                while value do sum = sum + value value = queue:pop() end
                return "done"
              end)
              for _ = 1, 2 do pcall(tcp.run) end
              print(sum, adder:join())
              print(tcp.step(0))
            ]])
          end
        end)

        it("may strike at any instruction of the main program", function()
          -- What the interpreter's hook does. Lua 5.1 does not tell which thread is the main one.
          prints("0\n", [[
            local main, near, far = coroutine.running(), pair()
            local bad = 0
            for n = 1, main and 100 or 0 do
              local queue = tcp.queue()
              local reader = tcp.spawn(function() return (far:read_line()) end)
              local popper = tcp.spawn(function() return queue:pop() end)
              tcp.spawn(function() tcp.sleep(0) queue:push(n) near:write_line(n .. "") end)
              pcall(function()
                debug.sethook(main, function() debug.sethook(main) error("interrupted!", 0) end, "", n)
                tcp.run()
                for _ = 1, 200 do end
              end)
              local ok, line, value = pcall(function()
                tcp.sleep(0.001)
                return reader:join(1), popper:join(1)
              end)
              if not (ok and line == n .. "" and value == n) or tcp.step(0) then bad = bad + 1 end
            end
            print(bad)
          ]])
        end)

        it("loses nothing that was on its way to the main program", function()
          prints("pushed\nfalse\n", [[
            local queue = tcp.queue()
            tcp.spawn(function() interrupt() queue:push("pushed") end)
            local ok, value = pcall(queue.pop, queue)
            tcp.run()
            print(ok and value or queue:pop(0))
            print(tcp.step(0))
          ]])
        end)
      end

      it("does not end in on_error", function()
        prints("interrupted!\nfalse\n", [[
          tcp.on_error = function() interrupt() end
          tcp.spawn(error, "x")
          print(caught(tcp.run))
          print(tcp.step(0))
        ]])
      end)
    end)

    describe("other signals, with tasks,", function()
      it("do not end a wait, nor lengthen it", function()
        support.with_child(script([[
          local near, far = pair()
          local began = tcp.now()
          local function ends(fn, ...)
            local ok, err = fn(...)
            return tostring(ok) .. " " .. (tcp.is_error(err) and err.kind or tostring(err)) .. " "
              .. tostring(tcp.now() - began >= 0.5 and tcp.now() - began < 5)
          end
          local tasks = {
            tcp.spawn(ends, far.try_read_line, far, { timeout = 0.5 }),
            tcp.spawn(ends, tcp.sleep, 0.5),
            tcp.spawn(ends, tcp.try_with_timeout, 0.5, tcp.sleep, 60),
          }
          waiting()
          tcp.run()
          for _, task in ipairs(tasks) do print(task:join()) end
          near:close()
        ]]), function(output, pid)
          assert.equal("waiting", output:read("*l"))
          wait_until_asleep(pid)
          for _ = 1, 5 do
            os.execute("kill -CONT " .. pid .. "; kill -WINCH " .. pid)
          end
          assert.equal("nil timeout true\nnil nil true\nnil timeout true\n", output:read("*a"))
        end)
      end)

      it("include SIGPIPE, which ends no program whose tasks write to peers that have gone", function()
        prints("4\tfalse\n", [[
          local resets = 0
          local writes = {
            function(conn) return conn:try_write(("x"):rep(100000)) end,
            function(conn) return conn:try_write({ "a", "b" }) end,
            function(conn) return conn:try_write_packet("x") end,
            function(conn) return conn:try_send_some("x") end,
          }
          for _, write in ipairs(writes) do
            local near, far = pair()
            tcp.spawn(function()
              local _, err
              repeat
                _, err = write(near)
                tcp.sleep(0)
              until err
              resets = resets + (err.kind == "reset" and 1 or 0)
            end)
            tcp.sleep(0)
            far:set_option("linger", 0)
            far:close()
          end
          tcp.run()
          print(resets, tcp.step(0))
        ]])
      end)
    end)
  end)
end
