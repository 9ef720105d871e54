local tcp = require("tcp.core")
local peers = require("support.peers")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local fails, spawn = support.fails, tasks.spawn

local told

--- Collects what tasks fail with.
local function listen()
  told = {}
  tcp.on_error = function(err)
    told[#told + 1] = err
  end
end

describe("cancel", function()
  before_each(listen)
  after_each(tasks.finish_all)

  local function is_cancelled(task)
    assert.equal("cancelled", task:status())
    local err = fails("cancelled", task:try_join())
    assert.equal(task, err.task)
    assert.equal("join", err.op)
    local ok, raised = pcall(task.join, task)
    assert.is_false(ok)
    assert.equal(task, raised.task)
    assert.equal(0, #told)
  end

  it("before the task begins: it never runs", function()
    local ran = false
    local task = spawn(function() ran = true end)
    local joiner = spawn(function() return select(2, task:try_join()) end)
    task:cancel()
    task:cancel()
    assert.equal(task, joiner:join().task)
    is_cancelled(task)
    assert.is_false(ran)
  end)

  -- What a task may do with the error, given what its wait answered.
  local ANSWERS = {
    ["passes it on"] = function(_, err) error(err, 0) end,
    ["returns normally"] = function() return "fine" end,
    ["fails otherwise"] = function() error("otherwise") end,
    ["fails with what cannot be printed"] = function()
      error(setmetatable({}, { __tostring = function() error("evil") end }))
    end,
    ["waits again"] = function()
      for _ = 1, 3 do
        local _, err = tcp.pcall(tcp.sleep, 1)
        assert.equal("cancelled", err.kind)
      end
      tcp.queue():pop()
    end,
    ["waits for what needs no wait"] = function()
      local queue = tcp.queue()
      queue:push(1)
      assert.equal(1, queue:pop())
      assert.equal("x", spawn(function() return "x" end) and "x")
    end,
    ["cancels itself again"] = function(task) task:cancel() end,
  }
  for name, answer in pairs(ANSWERS) do
    it("ends the wait of a task that then " .. name, function()
      local task
      task = spawn(function()
        local ok, err = tcp.pcall(tcp.sleep, 60)
        assert(not ok and err.kind == "cancelled" and err.op == "sleep")
        return answer(task, err)
      end)
      tcp.sleep(0)
      task:cancel()
      assert.equal("cancelled", task:status())
      tcp.run()
      is_cancelled(task)
    end)
  end

  it("of oneself strikes at the next wait", function()
    local reached, passed
    local task
    task = spawn(function()
      task:cancel()
      reached = task:status()
      tcp.sleep(0)
      passed = true
    end)
    tcp.run()
    assert.equal("cancelled", reached)
    assert.is_nil(passed)
    is_cancelled(task)
  end)

  it("takes no results from a task that was woken already", function()
    local inner = spawn(function() tcp.sleep(0) return 5 end)
    local got
    local outer = spawn(function() got = inner:join() end)
    spawn(function() tcp.sleep(0) outer:cancel() end)
    tcp.run()
    assert.is_true(got == 5 or got == nil)
    is_cancelled(outer)
  end)

  it("of a task that swallows it for ever starves nobody", function()
    local flag, rounds = false, 0
    local task = spawn(function()
      while not flag and rounds < 20000 do
        rounds = rounds + 1
        tcp.pcall(tcp.sleep, 1)
      end
    end)
    tcp.sleep(0)
    task:cancel()
    spawn(function() flag = true end)
    tcp.run()
    assert.is_true(rounds < 1000, rounds .. " rounds before another task ran")
  end)

  for _, over in ipairs(transports.all) do
    it("ends accepting, reading, writing and joining" .. over.suffix, function()
      local conn = over.connect_to("accept", "stall")
      local listener = over.tcp.listen("127.0.0.1", 0)
      local sleeper = spawn(tcp.sleep, 60)
      local ops = {
        accept = function() listener:accept() end,
        read_line = function() conn:read_line() end,
        write = function() conn:write(("x"):rep(20000000)) end,
        join = function() sleeper:join() end,
        connect = function() over.tcp.connect("127.0.0.1", peers.start("--silent").port, 60) end,
      }
      for name, op in pairs(ops) do
        local seen
        local task = spawn(function()
          local _, err = tcp.pcall(op)
          seen = err
        end)
        tcp.sleep(0.01)
        task:cancel()
        is_cancelled(task)
        assert.equal("cancelled", seen.kind, name)
        assert.equal(name, seen.op)
      end
      sleeper:cancel()
      conn:close()
      listener:close()
      tcp.run()
    end)
  end
end)

describe("on_error", function()
  after_each(tasks.finish_all)

  for _, over in ipairs(transports.all) do
    it("cannot wait, and to have tried disturbs no wait outside tasks" .. over.suffix, function()
      local problems = {}
      tcp.on_error = function()
        for _, wait in ipairs { function() tcp.run() end, function() tcp.sleep(60) end, function() tcp.step() end,
          function() tcp.queue():pop() end } do
          problems[#problems + 1] = select(2, pcall(wait))
        end
      end
      local conn = over.connect_to("accept", { "sleep", 50 }, "drain")
      local is_second = spawn(function()
        tcp.sleep(0.03)
        return select(2, conn:try_read(1, { timeout = 0.01 }))
      end)
      spawn(function() tcp.sleep(0.01) error("x") end)
      fails("timeout", conn:try_read(1, { timeout = 0.1 }))
      assert.equal("busy", is_second:join().kind)
      spawn(tcp.sleep, 0.03)
      spawn(function() tcp.sleep(0.001) error("x") end)
      tcp.sleep(0.02)
      tcp.run()
      assert.equal(8, #problems)
      for _, problem in ipairs(problems) do
        assert.matches("cancel_spec%.lua:%d+: cannot wait in on_error.*spawn a task", problem)
      end
      conn:close()
      tcp.run()
    end)
  end

  for _, over in ipairs(transports.all) do
    it("cuts no write outside tasks by trying to wait" .. over.suffix, function()
      local data = ("0123456789"):rep(2000000)
      local has_tried
      tcp.on_error = function() has_tried = not pcall(tcp.sleep, 60) end
      local conn, peer = over.connect_to("accept", { "sleep", 100 }, "drain")
      spawn(function() tcp.sleep(0.001) error("x") end)
      assert.equal(conn, conn:write(data))
      assert.is_true(has_tried, "the write did not last long enough")
      conn:close()
      assert.equal(#data, #peer:got())
      tcp.run()
    end)
  end

  it("may spawn what run then waits for, and need not be a function", function()
    local ran
    tcp.on_error = function() spawn(function() tcp.sleep(0) ran = true end) end
    spawn(error, "x")
    tcp.run()
    assert.is_true(ran)
    local output = support.child([[
      local tcp = require("tcp.core")
      tcp.on_error = 5
      tcp.spawn(error, "the reason", 0)
      tcp.run()
      print("went on")
    ]])
    assert.matches("on_error failed.*went on\n$", output)
  end)

  it("that fails does not hide what the task failed with", function()
    local output = support.child([[
      local tcp = require("tcp.core")
      tcp.on_error = function() error("the handler") end
      tcp.spawn(function() error("the reason", 0) end)
      tcp.run()
    ]])
    assert.matches("the handler", output)
    assert.matches("the reason", output)
  end)
end)
