local support = require("support")
local transports = require("support.transports")

local unpack = table.unpack or unpack
local fails = support.fails

local PATIENCE = 10
local BIG = ("0123456789abcdef"):rep(64 * 1024)

for _, over in ipairs(transports.all) do
  describe("what changes unseen" .. over.suffix, function()
    local tcp, connect_to, pair = over.tcp, over.connect_to, over.pair

    --- Has the loop watch a connection.
    local function watch(conn)
      tcp.run(function()
        fails("timeout", conn:try_read(1, { timeout = 0.001 }))
      end)
    end

    --- Pseudo-random integers 1 to `limit`, the same on every Lua.
    local function generator(seed)
      local state = seed
      return function(limit)
        state = state * 16807 % 2147483647
        return state % limit + 1
      end
    end

    after_each(function()
      assert.is_false(tcp.step(0), "a task is left")
    end)

    for _, where in ipairs { "in a task", "outside tasks" } do
      local function run(fn)
        return function()
          local near, far = pair()
          watch(far)
          if where == "in a task" then
            tcp.run(fn, near, far)
          else
            fn(near, far)
          end
          near:close()
          far:close()
        end
      end

      it("bytes that arrive between a short read and the wait, " .. where, run(function(near, far)
        for _, options in ipairs { {}, { timeout = 0 }, { timeout = PATIENCE } } do
          for _ = 1, 20 do
            near:write("ab")
            assert.equal("ab", far:read(2, { timeout = PATIENCE }))
            near:write("cd")
            assert.equal("cd", far:peek(10, options))
            assert.equal("cd", far:recv(10, options))
            near:write("e\n")
            assert.equal("e", far:read_line("l", options))
          end
        end
      end))

      it("bytes that arrive while their reader is busy with something else, " .. where, run(function(near, far)
        for _ = 1, 5 do
          near:write("ab")
          -- Less than there is room for: all that had arrived.
          assert.equal("ab", far:recv(10, { timeout = PATIENCE }))
          near:write("cd")
          tcp.sleep(0.01)
          assert.equal("cd", far:recv(10, { timeout = PATIENCE }))
        end
      end))

      it("the end of the stream right behind data, " .. where, run(function(near, far)
        near:write("ab")
        assert.equal("ab", far:read(2, { timeout = PATIENCE }))
        near:write("cd")
        near:shutdown("send")
        assert.equal("cd", far:read(2))
        assert.is_nil(far:recv())
        assert.is_nil(far:peek(1, { timeout = 0 }))
        assert.equal("", far:read_str())
        fails("closed", far:try_read(1))
      end))

      it("the end of the stream after a read that found nothing more, " .. where, run(function(near, far)
        near:write("ab")
        assert.equal("ab", far:recv(10, { timeout = PATIENCE }))
        fails("timeout", far:try_recv(10, { timeout = 0 }))
        near:close()
        assert.is_nil(far:recv(10, { timeout = PATIENCE }))
        assert.is_nil(far:recv())
      end))

      it("a deadline that has passed does not hide what is there, " .. where, run(function(near, far)
        far:set_deadline(0)
        fails("timeout", far:try_read(1))
        near:write("one\ntwo\n")
        assert.equal("one", far:read_line())
        assert.equal("two", far:read_line())
        fails("timeout", far:try_read(1))
        near:write(("x"):rep(30000))
        assert.equal(30000, #far:read(30000))
        near:close()
        assert.is_nil(far:recv())
      end))
    end

    it("arrives in one-byte dribbles at 50 tasks at once", function()
      local TEXT = "every byte counts\n"
      local readers, writers = {}, {}
      for i = 1, 50 do
        local near, far = pair()
        writers[i] = near
        readers[i] = tcp.spawn(function()
          local got = { far:read_line(), far:read(3), far:read_str() }
          far:close()
          return table.concat(got, "|")
        end)
      end
      local text = TEXT .. "abcrest"
      for at = 1, #text do
        for i = 1, 50 do
          writers[i]:write(text:sub(at, at))
        end
        if at % 3 == 0 then
          tcp.sleep(0)
        end
      end
      for i = 1, 50 do
        writers[i]:close()
        assert.equal("every byte counts|abc|rest", readers[i]:join(PATIENCE))
      end
    end)

    it("arrives from a peer byte by byte, with others reading beside", function()
      local tasks = {}
      for i = 1, 8 do
        local conn = connect_to("accept", { "dribble", 1, "one\ntwo\n" .. i .. "\n" }, "close")
        tasks[i] = tcp.spawn(function()
          local lines = {}
          repeat
            lines[#lines + 1] = conn:try_read_line()
          until lines[3]
          conn:close()
          return table.concat(lines, ",")
        end)
      end
      for i = 1, 8 do
        assert.equal("one,two," .. i, tasks[i]:join(PATIENCE))
      end
    end)

    it("is in or out of tasks as the connection goes from one to the other", function()
      local near, far = pair()
      local function exchange(text)
        near:write(text, "\n")
        assert.equal(text, far:read_line("l", { timeout = PATIENCE }))
        fails("timeout", far:try_read(1, { timeout = 0.001 }))
        far:write(text)
        assert.equal(text, near:read(#text))
      end
      for i = 1, 10 do
        exchange("outside" .. i)
        tcp.run(exchange, "inside" .. i)
        local waiting = tcp.spawn(far.read_line, far)
        tcp.sleep(0)
        near:write("left\n")
        assert.equal("left", waiting:join(PATIENCE))
      end
      near:close()
      far:close()
    end)

    it("is found by polling without a wait, whether the loop watches or not", function()
      for _, is_watched in ipairs { true, false } do
        local near, far = pair()
        if is_watched then
          watch(far)
        end
        far:set_timeout(0)
        for _ = 1, 3 do
          fails("timeout", far:try_read_line())
          assert.equal("r", far:events())
          near:write("half")
          fails("timeout", far:try_read_line())
          near:write(" whole\nnext\n")
          assert.equal("half whole", far:try_read_line())
          assert.is_nil(far:events())
          assert.equal("next", far:try_read_line())
        end
        local err
        repeat
          err = select(2, far:try_send(BIG))
        until err
        fails("timeout", nil, err)
        assert.equal("w", far:events())
        fails("timeout", far:try_read(1))
        assert.equal("rw", far:events())
        near:close()
        far:close()
      end
    end)

    it("is the same stream whatever is read how and when", function()
      local random = generator(4711)
      for round = 1, 40 do
        local near, far = pair()
        local text = ("line %d of some length\n"):rep(40):gsub("%%d", round)
        local writer = tcp.spawn(function()
          local at = 1
          while at <= #text do
            local count = random(30)
            near:write(text:sub(at, at + count - 1))
            at = at + count
            if random(3) == 1 then
              tcp.sleep(random(2) == 1 and 0 or 0.0005)
            end
          end
          near:close()
        end)
        local function read()
          local got, seen, ended = {}, 0, false
          while not ended do
            local options = ({ {}, { timeout = 0 }, { timeout = 0.0005 } })[random(3)]
            local way = random(4)
            local value, err
            if way == 1 then
              value, err = far:try_read_line("L", options)
            elseif way == 2 then
              value, err = far:try_read(random(20), options)
            elseif way == 3 then
              value, err = far:try_recv(random(50), options)
            else
              local ahead = far:try_peek(random(50), options)
              assert(not ahead or ahead == text:sub(seen + 1, seen + #ahead))
            end
            if value then
              got[#got + 1] = value
              seen = seen + #value
            end
            ended = err and err.kind ~= "timeout" or not err and not value and way == 3
          end
          got[#got + 1] = far:read_str()
          far:close()
          return table.concat(got)
        end
        local got
        if round % 2 == 0 then
          got = tcp.run(read)
        else
          got = read()
        end
        assert.equal(text, got)
        writer:join(PATIENCE)
      end
    end)

    it("is waited for in a function without a name, too", function()
      local near, far = pair()
      local reader = tcp.spawn(function()
        local line = (function()
          local line = far:read_line()
          return line
        end)()
        return line
      end)
      tcp.sleep(0)
      near:write("line\n")
      assert.equal("line", reader:join(PATIENCE))
      near:close()
      far:close()
    end)

    -- A record of TLS cannot be urgent.
    if not over.is_tls then
      it("is urgent: the stream goes on beside it", function()
        for _, pause in ipairs { 0, 1 } do
          local actions = { "accept" }
          for i = 0, 29 do
            local some = { { "send", "line " .. i }, { "urgent", "!" }, { "sleep", pause }, { "send", " goes on\n" } }
            for _, action in ipairs(some) do
              actions[#actions + 1] = action
            end
            if i == 20 then
              actions[#actions + 1] = { "skip", 1 }
            end
          end
          actions[#actions + 1] = { "skip", 1 }
          actions[#actions + 1] = { "urgent", "?" }
          actions[#actions + 1] = "drain"
          local conn, peer = connect_to(unpack(actions))
          tcp.run(function()
            for i = 0, 29 do
              -- An urgent byte that another one overtakes comes as an ordinary one: that is Linux' way.
              local line = conn:read_line("l", { timeout = PATIENCE })
              assert.equal(("line %d goes on"):format(i), (line:gsub("!", "")))
              if i == 20 then
                conn:write(".")
              end
            end
            conn:write(".")
            fails("timeout", conn:try_read(1, { timeout = 0.05 }))
            conn:close()
          end)
          assert.equal("", peer:got())
        end
      end)
    end

    for _, way in ipairs { "deadline", "with_timeout", "cancel" } do
      it("read_str ends by " .. way .. " although there is always more to read", function()
        local conn, peer = connect_to("accept", { "repeat", 1000000, ("x"):rep(60000) }, "close")
        local is_over = false
        conn:set_deadline(way == "deadline" and 0.1 or nil)
        local reader = tcp.spawn(function()
          if way == "with_timeout" then
            tcp.try_with_timeout(0.1, conn.read_str, conn)
          else
            conn:try_read_str()
          end
          is_over = true
        end)
        -- Others are busy: whenever it is the reader's turn, more has arrived.
        local began = tcp.now()
        local crowd = tcp.spawn(function()
          while not is_over and tcp.now() < began + 1 do
            local until_then = tcp.now() + 0.01
            repeat
            until tcp.now() > until_then
            tcp.sleep(0)
            if way == "cancel" and tcp.now() > began + 0.1 then
              reader:cancel()
            end
          end
          return is_over
        end)
        local ended = crowd:join(PATIENCE)
        peer:finish()
        tcp.run()
        conn:close()
        assert.is_true(ended)
      end)
    end
  end)
end
