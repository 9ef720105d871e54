-- UDP in tasks, beside them and under other loops.

local tcp = require("tcp.core")
local support = require("support")
local tasks = require("support.tasks")
local udp = require("support.udp")
local waits = require("support.waits")

local fails, spawn, trying = support.fails, tasks.spawn, tasks.trying
local cleanly = waits.cleanly
local PATIENCE, MOMENT = udp.PATIENCE, udp.MOMENT

local counts = debug.getregistry()["tcp.counts"]

--- Tasks that receive, all of them waiting already.
local function receivers(socket, count)
  local all = {}
  for i = 1, count do
    all[i] = tcp.spawn(function()
      if i % 2 == 0 then
        local value, err = socket:try_recv()
        return { value = value, err = err }
      end
      local value, host = socket:try_recv_from()
      return { value = value, err = not value and host or nil }
    end)
  end
  tcp.sleep(0)
  return all
end

describe("several who receive from one socket", function()
  after_each(tasks.finish_all)

  it("are served first come first served", cleanly(function()
    local server, client = udp.pair()
    for round = 1, 5 do
      local all = receivers(server, 10)
      for i = 1, 10 do
        client:send(round .. " " .. i)
      end
      for i = 1, 10 do
        assert.equal(round .. " " .. i, tasks.succeeds(all[i]))
      end
    end
  end))

  it("are not overtaken by who comes when the datagram is there", cleanly(function()
    local server, client = udp.pair()
    for _, runs in ipairs { "in a task", "outside tasks" } do
      local first = receivers(server, 1)[1]
      local second
      local function overtake()
        client:send("one")
        second = server:recv()
      end
      spawn(function()
        tcp.sleep(MOMENT)
        client:send("two")
      end)
      if runs == "in a task" then
        spawn(overtake):join(PATIENCE)
      else
        overtake()
      end
      assert.equal("one", tasks.succeeds(first), runs)
      assert.equal("two", second, runs)
    end
  end))

  it("do not lose a datagram to one who has given up", cleanly(function()
    local server, client = udp.pair()
    local function gives_up(way, socket)
      if way == "cancel" then
        local task = spawn(socket.recv, socket)
        tcp.sleep(0)
        return function()
          task:cancel()
          fails("cancelled", task:try_join(PATIENCE))
        end
      end
      local task = way == "timeout" and trying(socket, "recv", 10, MOMENT)
        or tcp.spawn(function()
          local value, err = tcp.try_with_timeout(MOMENT, socket.recv, socket)
          return { value = value, err = err }
        end)
      tcp.sleep(0)
      return function() tasks.fails("timeout", task) end
    end
    for _, way in ipairs { "cancel", "timeout", "with_timeout" } do
      local before = receivers(server, 1)[1]
      local finish = gives_up(way, server)
      local after = receivers(server, 2)
      finish()
      for _, word in ipairs { "a", "b", "c" } do
        client:send(word)
      end
      local got = { tasks.succeeds(before), tasks.succeeds(after[1]), tasks.succeeds(after[2]) }
      assert.same({ "a", "b", "c" }, got, way)
    end
  end))

  it("pass on what came for one who is cancelled before it could take it", cleanly(function()
    local server, client = udp.pair()
    local all = { spawn(server.recv, server), spawn(server.recv, server) }
    tcp.sleep(0)
    -- In one task, so that nobody else runs in between.
    spawn(function()
      client:send("for one of them")
      all[1]:cancel()
    end)
    local got = all[1]:try_join(PATIENCE)
    if got == nil then
      assert.equal("for one of them", all[2]:join(PATIENCE))
    else
      assert.equal("for one of them", got)
      all[2]:cancel()
    end
  end))

  it("are all woken by close, in tasks and outside", cleanly(function()
    local server = udp.listen()
    local all = receivers(server, 5)
    spawn(function() server:close() end)
    local err = fails("closed", server:try_recv())
    assert.matches("^recv.*: the socket is closed$", tostring(err))
    for i, task in ipairs(all) do
      assert.equal(i % 2 == 0 and "recv" or "recv_from", tasks.fails("closed", task).op)
    end
    fails("closed", server:try_recv(nil, 0))
  end))
end)

describe("a receive", function()
  after_each(tasks.finish_all)

  it("that is cut says where, and breaks nothing", cleanly(function()
    local server, client = udp.pair()
    local ways = {
      cancelled = function()
        local seen
        local task = spawn(function() seen = select(2, server:try_recv()) end)
        tcp.sleep(0)
        task:cancel()
        fails("cancelled", task:try_join(PATIENCE))
        return seen
      end,
      ["cancelled by with_timeout"] = function()
        local seen
        fails("timeout", tcp.try_with_timeout(MOMENT, function() seen = select(2, server:try_recv()) end))
        return seen
      end,
    }
    for _, way in pairs(ways) do
      local err = way()
      assert.same({ "cancelled", "recv" }, { err.kind, err.op })
      client:send("still")
      assert.equal("still", server:recv())
    end
    fails("timeout", server:try_recv(nil, 0))
  end))

  it("takes what is there although its task is cancelled or its time is over", cleanly(function()
    local server, client = udp.pair()
    client:send("there")
    local got
    local task
    task = spawn(function()
      task:cancel()
      got = server:recv()
    end)
    fails("cancelled", task:try_join(PATIENCE))
    assert.equal("there", got)
    client:send("also there")
    assert.equal("also there", tcp.with_timeout(0, server.recv, server))
  end))

  it("lets the tasks run while its caller waits outside of them", cleanly(function()
    local server, client = udp.pair()
    spawn(function()
      for i = 1, 20 do
        tcp.sleep(0.001)
        client:send(i)
      end
    end)
    for i = 1, 20 do
      assert.equal(tostring(i), server:recv())
    end
  end))

  it("waits in coroutines: outside tasks in any, in a task in those of tcp.wrap", cleanly(function()
    local server, client = udp.pair()
    fails("timeout", coroutine.wrap(function() return server:try_recv(1, MOMENT) end)())
    local task = spawn(tcp.wrap(function()
      local ok, data = tcp.pcall(server.recv, server)
      return ok and data
    end))
    tcp.sleep(0)
    client:send("wrapped")
    assert.equal("wrapped", task:join(PATIENCE))
    waits.advises(debug.getinfo(1, "S").short_src,
      "cannot wait in a coroutine of the script's own inside a task: make it with tcp.wrap", function()
        local ok, err = coroutine.resume(coroutine.create(function()
          local data = server:recv()
          return data
        end))
        assert(not ok)
        error(err, 0)
      end)
    client:send("usable")
    assert.equal("usable", server:recv())
  end))

  it("keeps its socket, although nobody else has it", function()
    local port
    local task = spawn(function()
      local server = tcp.udp_listen("127.0.0.1", 0)
      port = server:local_port()
      return (server:recv())
    end)
    tcp.sleep(0)
    collectgarbage()
    collectgarbage()
    local client = tcp.udp("127.0.0.1", port)
    client:send("for whom it may concern")
    assert.equal("for whom it may concern", task:join(PATIENCE))
    client:close()
  end)
end)

describe("many tasks", function()
  after_each(tasks.finish_all)

  it("ask a server and get their own answers, and nothing is left of them", cleanly(function()
    tcp.step(0)
    local before = counts().registrations
    local server = udp.listen()
    local answering = spawn(function()
      while true do
        local data, host, port = server:recv_from()
        server:send_to("re: " .. data, host, port)
      end
    end)
    local all = {}
    for i = 1, 50 do
      all[i] = spawn(function()
        local client = tcp.udp("127.0.0.1", server:local_port())
        for j = 1, 20 do
          client:send(i .. "/" .. j)
          assert(client:recv(nil, PATIENCE) == ("re: %d/%d"):format(i, j))
        end
        client:close()
        return i
      end)
    end
    for i = 1, 50 do
      assert.equal(i, all[i]:join(PATIENCE))
    end
    answering:cancel()
    server:close()
    tcp.step(0)
    assert.equal(before, counts().registrations)
    assert.equal(0, counts().timers)
  end))

  local BUSY = {
    ["sends"] = function(_, client) client:send("x") end,
    ["sends to somebody"] = function(server, client) client:send_to("x", "127.0.0.1", server:local_port()) end,
    ["receives"] = function(server, client)
      client:send("x")
      server:recv()
    end,
    ["tries to receive"] = function(server) server:try_recv(1, 0) end,
  }
  for name, work in pairs(BUSY) do
    it("run beside one that " .. name .. " without ever having to wait", cleanly(function()
      local server, client = udp.pair()
      local deadline, ticks = tcp.now() + 0.2, 0
      local worker = spawn(function()
        while tcp.now() < deadline do
          for _ = 1, 10 do
            work(server, client)
          end
        end
      end)
      while worker:status() == "waiting" do
        tcp.sleep(0.001)
        ticks = ticks + 1
      end
      worker:join(PATIENCE)
      assert.is_true(ticks >= 5, ticks .. " ticks")
    end))
  end
end)

describe("another loop", function()
  local has_cqueues, cqueues = pcall(require, "cqueues")
  local has_luv, uv = require("support.luv")()

  --- Sends ten and gives what `wait(socket)` and a receive without time made of them.
  local function receive_with(wait, client, server)
    server:set_timeout(0)
    local got, tries = {}, 0
    while #got < 10 do
      local data, err = server:try_recv()
      tries = tries + 1
      if data then
        got[#got + 1] = data
      else
        assert(err.kind == "timeout", err)
        client:send("number " .. #got + 1)
        wait(server)
      end
    end
    assert.equal("number 10", got[10])
    assert.is_true(tries <= 30, tries .. " tries")
  end

  local function pairs_of(use)
    return cleanly(function()
      local server, client = udp.pair()
      use(server, client)
      server, client = udp.pair()
      -- One that tcp's own loop watches, too.
      local task = trying(server, "recv")
      tcp.sleep(0)
      client:send("before")
      assert.equal("before", tasks.succeeds(task))
      use(server, client)
    end)
  end

  it("waits on pollfd: cqueues", pairs_of(function(server, client)
    if not has_cqueues then
      return pending("cqueues cannot be loaded: " .. tostring(cqueues))
    end
    local queue = cqueues.new()
    queue:wrap(function()
      receive_with(function(socket)
        assert(cqueues.poll({ pollfd = socket:pollfd(), events = "r" }, PATIENCE) ~= PATIENCE)
      end, client, server)
    end)
    assert(queue:loop(PATIENCE))
  end))

  it("waits on pollfd: luv", pairs_of(function(server, client)
    if not has_luv then
      return pending("luv cannot be loaded: " .. tostring(uv))
    end
    receive_with(function(socket)
      local poll, is_ready = uv.new_poll(socket:pollfd()), false
      poll:start("r", function() is_ready = true end)
      while not is_ready do
        uv.run("once")
      end
      poll:close()
      uv.run("nowait")
    end, client, server)
  end))

  it("brings a task on that receives, by tcp.step", cleanly(function()
    local server, client = udp.pair()
    local task = spawn(server.recv, server)
    assert.is_true(tcp.step(0))
    client:send("stepped")
    local deadline = tcp.now() + PATIENCE
    while tcp.step(0.01) do
      assert.is_true(tcp.now() < deadline)
    end
    assert.equal("stepped", task:join(0))
  end))
end)

-- What waits for ever, and who runs the loop meanwhile.
local WAITS = {
  ["recv"] = "socket:recv()",
  ["recv with a time"] = "socket:recv(10, 60)",
  ["try_recv"] = "socket:try_recv()",
  ["recv_from"] = "socket:recv_from()",
  ["try_recv_from after set_timeout"] = "socket:set_timeout(60) socket:try_recv_from()",
}
local RUNNERS = {
  ["in the main program"] = "wait()",
  ["in a coroutine"] = "coroutine.wrap(wait)()",
  ["beside a task"] = "tcp.spawn(tcp.sleep, 60) wait()",
  ["in a task"] = "tcp.run(wait)",
}

describe("Ctrl-C", function()
  for wait_name, wait in pairs(WAITS) do
    for runner_name, runner in pairs(RUNNERS) do
      it(("interrupts %s %s, and the socket is usable afterwards"):format(wait_name, runner_name), function()
        local script = ([[
          local tcp = require("tcp.core")
          local socket = tcp.udp_listen("127.0.0.1", 0)
          local client = tcp.udp("127.0.0.1", socket:local_port())
          local function wait()
            print("waiting")
            io.stdout:flush()
            %s
            print("came back")
          end
          print(select(2, pcall(function() %s end)))
          client:send("a datagram")
          client:send("a datagram")
          print(socket:recv())
        ]]):format(wait, runner)
        support.with_child(script, function(output, pid)
          assert.equal("waiting", output:read("*l"))
          support.wait_until_asleep(pid)
          os.execute("kill -INT " .. pid)
          -- A task that was not interrupted itself came first, and has the first one.
          assert.matches("^[^\n]*interrupted!\na datagram\n$", (output:read("*a"):gsub("came back\n", "")))
        end)
      end)
    end
  end
end)

describe("a UDP peer that has gone", function()
  -- The interpreter of its own has SIGPIPE's default action: to end it.
  it("never raises SIGPIPE", cleanly(function()
    local port = udp.dead_port("127.0.0.71")
    assert.equal("refused\nclosed\nwent on\n", support.child(([[
      local tcp = require("tcp")
      local socket = tcp.udp("127.0.0.71", %d)
      local _, err
      for _ = 1, 100 do
        _, err = socket:try_send("x")
        if err then break end
        tcp.sleep(0.001)
      end
      print(err.kind)
      socket:close()
      print(select(2, socket:try_send("x")).kind)
      print("went on")
    ]]):format(port)))
  end))

  it("leaves no socket open that an interpreter ends with", function()
    assert.equal("", support.child([[
      local tcp = require("tcp")
      for i = 1, 5 do
        tcp.spawn(function() tcp.udp_listen("127.0.0.1", 0):recv() end)
        tcp.spawn(function() tcp.udp("localhost", 9):recv(10, 60) end)
        tcp.spawn(function() tcp.udp():send_to("x", "localhost", 9) end)
      end
      tcp.sleep(0.002)
    ]], nil, 20))
  end)
end)

describe("a socket that tasks use", function()
  it("can be used in a coroutine of the main program at the same time", cleanly(function()
    local server, client = udp.pair()
    local task = spawn(function()
      for _ = 1, 3 do
        local data, host, port = server:recv_from()
        server:send_to(data:upper(), host, port)
      end
    end)
    local answers = coroutine.wrap(function()
      for _, word in ipairs { "a", "b", "c" } do
        client:send(word)
        coroutine.yield((client:recv()))
      end
    end)
    assert.same({ "A", "B", "C" }, { answers(), answers(), answers() })
    task:join(PATIENCE)
  end))
end)
