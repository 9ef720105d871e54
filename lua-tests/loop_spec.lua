local tcp = require("tcp.core")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local fails, spawn = support.fails, tasks.spawn
local SOURCE = debug.getinfo(1, "S").short_src:gsub("%p", "%%%0")

local function line()
  return debug.getinfo(2, "l").currentline
end

--- Asserts that a wait outside tasks raises that it would last for ever, with these texts in it.
local function stuck(op, texts, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok, op .. " came back")
  assert.equal("string", type(err))
  assert.matches("'" .. op .. "' would wait for ever", err)
  for _, text in ipairs(texts) do
    assert.matches(text, err)
  end
  return err
end

describe("run", function()
  after_each(tasks.finish_all)

  it("comes back when no task is left, at once if there is none", function()
    tcp.run()
    local ended = 0
    for i = 1, 20 do
      spawn(function()
        tcp.sleep(0.001 * i)
        spawn(function() ended = ended + 1 end)
      end)
    end
    tcp.run()
    assert.equal(20, ended)
  end)

  it("with a function waits for that one alone", function()
    local other = spawn(tcp.sleep, 60)
    assert.same({ 1, nil, 3 }, { tcp.run(function(...) tcp.sleep(0) return ... end, 1, nil, 3) })
    assert.equal("waiting", other:status())
    other:cancel()
    local value = {}
    local ok, err = pcall(tcp.run, function() error(value) end)
    assert.is_false(ok)
    assert.equal(value, err)
    tcp.run()
  end)

  it("and step are misuse in a task", function()
    for _, name in ipairs { "run", "step" } do
      local _, err = spawn(function() tcp[name]() end):try_join()
      assert.matches("^" .. SOURCE .. ":%d+: bad call of '" .. name .. "' %(in a task", err)
      _, err = spawn(function() tcp.wrap(function() tcp[name]() end)() end):try_join()
      assert.matches("bad call of '" .. name .. "' %(in a task", err)
    end
  end)

  it("raises and names the waits when nothing can end them", function()
    local queue, full = tcp.queue(), tcp.queue(1)
    full:push(0)
    local first = line() + 1
    local popper = spawn(function() return (queue:pop()) end)
    spawn(function() full:push(1) return nil end)
    spawn(function() return (popper:join()) end)
    local names = { "3 tasks wait", "pop at " .. SOURCE .. ":" .. first, "push at " .. SOURCE .. ":" .. first + 1,
      "join at " .. SOURCE .. ":" .. first + 2 }
    local at = line() + 1
    local err = stuck("run", names, function() tcp.run() end)
    assert.matches("^" .. SOURCE .. ":" .. at .. ":", err)
    stuck("join", names, function() return popper:join() end)
    stuck("pop", names, function() return tcp.queue():pop() end)
    stuck("push", names, function() full:push(2) end)
    assert.equal(1, full:count(), "nothing was left behind by a push that failed")
    stuck("run", { "4 tasks wait" }, function() tcp.run(function() return (queue:pop()) end) end)
    stuck("step", { "pop at" }, function() tcp.step(math.huge) end)
    stuck("sleep", { "pop at" }, function() tcp.sleep(math.huge) end)
    queue:close()
    full:pop()
    tcp.run()
  end)

  it("raises without tasks, too, where a wait has no end", function()
    local full = tcp.queue(1)
    full:push(1)
    stuck("pop", { "no task" }, function() return tcp.queue():pop() end)
    stuck("push", { "no task" }, function() full:push(1) end)
    fails("timeout", tcp.queue():try_pop(0.001))
  end)

  it("names ten waits of many", function()
    local queue = tcp.queue()
    for _ = 1, 25 do
      spawn(function() return (queue:pop()) end)
    end
    local err = stuck("run", { "25 tasks wait", "and 15 more" }, function() tcp.run() end)
    assert.equal(10, select(2, err:gsub("pop at", "")))
    queue:close()
    tcp.run()
  end)

  for _, over in ipairs(transports.all) do
    it("does not raise as long as a timer or a descriptor can still come" .. over.suffix, function()
      local queue = tcp.queue()
      local popper = spawn(function() return queue:pop() end)
      fails("timeout", tcp.queue():try_pop(0.002))
      fails("timeout", popper:try_join(0.002))
      spawn(function() tcp.sleep(0.01) queue:push("timer") end)
      assert.equal("timer", popper:join())
      local conn = over.connect_to("accept", { "sleep", 20 }, { "send", "x" }, "close")
      spawn(function() queue:push(conn:recv()) end)
      assert.equal("x", queue:pop())
      local listener = over.tcp.listen("127.0.0.1", 0)
      local server = spawn(function()
        local accepted = listener:accept()
        accepted:write("accepted")
        accepted:close()
        return "accepted"
      end)
      fails("timeout", server:try_join(0.01))
      local client = over.tcp.connect("127.0.0.1", listener:local_port())
      assert.equal("accepted", server:join())
      assert.equal("accepted", client:read_str())
      client:close()
      listener:close()
      conn:close()
    end)
  end

  it("after an error goes on where it was", function()
    local queue, got = tcp.queue(), nil
    spawn(function() got = queue:pop() end)
    assert.is_false((pcall(tcp.run)))
    spawn(function() queue:push("later") end)
    tcp.run()
    assert.equal("later", got)
  end)
end)

describe("step", function()
  after_each(tasks.finish_all)

  it("runs what is ready, waits no longer than it may, and tells whether tasks are left", function()
    local order = {}
    local task = spawn(function()
      order[#order + 1] = "begun"
      tcp.sleep(0.02)
      order[#order + 1] = "slept"
    end)
    assert.is_true(tcp.step())
    assert.same({ "begun" }, order)
    local began = tcp.now()
    assert.is_true(tcp.step(0))
    assert.is_true(tcp.step(0.001))
    assert.is_true(tcp.now() - began < 0.015)
    assert.same({ "begun" }, order)
    while tcp.step(10) do
      assert.is_true(tcp.now() - began < 5)
    end
    assert.equal("done", task:status())
    assert.is_false(tcp.step())
    support.misuse("bad argument #1 to 'step' (seconds expected, 0 or more, got -1)", tcp.step, -1)
  end)

  for _, over in ipairs(transports.all) do
    it("wakes for what comes before its time is up" .. over.suffix, function()
      local conn = over.connect_to("accept", { "sleep", 10 }, { "send", "x" }, "stall")
      local task = spawn(function() return conn:read(1) end)
      local began = tcp.now()
      while tcp.step(30) do
        assert.is_true(tcp.now() - began < 5)
      end
      assert.equal("x", task:join())
      conn:close()
    end)
  end
end)

describe("the loop", function()
  after_each(tasks.finish_all)

  for _, over in ipairs(transports.all) do
    it("runs the tasks while code outside them waits, whatever for" .. over.suffix, function()
      local ticks = 0
      local ticker = spawn(function()
        while true do
          tcp.sleep(0.001)
          ticks = ticks + 1
        end
      end)
      local listener = over.tcp.listen("127.0.0.1", 0)
      local conn = over.connect_to("accept", { "sleep", 30 }, "drain")
      local waits = {
        sleep = function() tcp.sleep(0.02) end,
        pop = function() tcp.queue():try_pop(0.02) end,
        read = function() conn:try_read(1, { timeout = 0.02 }) end,
        accept = function() listener:try_accept(0.02) end,
        write = function() conn:write(("x"):rep(20000000)) end,
        ["in a coroutine"] = function() coroutine.wrap(function() tcp.sleep(0.02) end)() end,
      }
      for name, wait in pairs(waits) do
        local before = ticks
        wait()
        assert.is_true(ticks > before, name)
      end
      ticker:cancel()
      tcp.run()
      conn:close()
      listener:close()
    end)
  end

  it("lets others run in sleep(0), each in its turn", function()
    local order = {}
    for _, name in ipairs { "a", "b", "c" } do
      spawn(function()
        for _ = 1, 3 do
          order[#order + 1] = name
          tcp.sleep(0)
        end
      end)
    end
    tcp.run()
    assert.equal("abcabcabc", table.concat(order))
  end)

  -- Operations that find what they want at once, again and again.
  for method, argument in pairs { read = 17, read_line = "L", recv = 17 } do
    for _, over in ipairs(transports.all) do
      it("is not held up by a flood that is met with " .. method .. over.suffix, function()
        local flood = 200000
        local conn = over.connect_to("accept", { "repeat", flood, "0123456789abcdef\n" }, "stall")
        conn:peek(1)
        local got, ticks = 0, 0
        local reader = spawn(function()
          while got < flood * 17 do
            got = got + #conn[method](conn, argument)
          end
        end)
        spawn(function()
          while got < flood * 17 do
            ticks = ticks + 1
            tcp.sleep(0)
          end
        end)
        reader:join()
        assert.is_true(ticks > 3, ticks .. " turns of another task")
        tcp.run()
        conn:close()
      end)
    end
  end

  it("is not held up by a queue that is always ready, in a task and outside", function()
    local queue, ticks, moves = tcp.queue(), 0, 0
    local ticker = spawn(function()
      while true do
        ticks = ticks + 1
        tcp.sleep(0)
      end
    end)
    local function move()
      while ticks < 10 and moves < 50000 do
        queue:push(1)
        queue:pop()
        moves = moves + 1
      end
      assert.is_true(moves < 50000)
      ticks, moves = 0, 0
    end
    move()
    tcp.run(move)
    ticker:cancel()
    tcp.run()
  end)

  it("does not spin while it waits", function()
    tcp.pollfd()
    local cpu = os.clock()
    spawn(tcp.sleep, 0.1)
    tcp.sleep(0.02)
    tcp.step(0)
    spawn(tcp.sleep, 0.1)
    tcp.run()
    assert.is_true(os.clock() - cpu < 0.05)
  end)

  it("serves ten thousand tasks", function()
    local sum = 0
    local all = {}
    for i = 1, 10000 do
      all[i] = spawn(function()
        tcp.sleep(i % 10 / 1000)
        sum = sum + i
      end)
    end
    for i = 1, 10000, 7 do
      all[i]:cancel()
      sum = sum + i
    end
    tcp.run()
    assert.equal(50005000, sum)
  end)
end)
