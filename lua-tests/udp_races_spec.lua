-- What several tasks do to one socket at the same moment, and what descriptors do that are used again.

local tcp = require("tcp.core")
local support = require("support")
local tasks = require("support.tasks")
local udp = require("support.udp")
local waits = require("support.waits")

local fails, spawn = support.fails, tasks.spawn
local cleanly = waits.cleanly
local PATIENCE, MOMENT = udp.PATIENCE, udp.MOMENT

local counts = debug.getregistry()["tcp.counts"]

--- Runs `use` with sockets in all orders in which two datagrams can arrive before the loop looks again.
local function in_every_order(use)
  return cleanly(function()
    for round = 1, 20 do
      local server, client = udp.pair()
      local trigger, puller = udp.pair()
      local function send_both(data)
        if round % 2 == 0 then
          puller:send("now")
          client:send(data)
        else
          client:send(data)
          puller:send("now")
        end
      end
      use(server, trigger, send_both)
      for _, socket in ipairs { server, client, trigger, puller } do
        socket:close()
      end
    end
  end)
end

describe("a datagram", function()
  after_each(tasks.finish_all)

  it("is not lost when its receiver is cancelled just then", in_every_order(function(server, trigger, send)
    local canceller, first
    canceller = spawn(function()
      trigger:recv()
      first:cancel()
    end)
    first = spawn(server.recv, server)
    local second = spawn(server.recv, server)
    tcp.sleep(0)
    send("one of you")
    canceller:join(PATIENCE)
    if first:try_join(PATIENCE) == nil then
      assert.equal("one of you", second:join(PATIENCE))
    else
      second:cancel()
      fails("cancelled", second:try_join(PATIENCE))
    end
  end))

  it("is not lost when the first receiver's time is over while it arrives", cleanly(function()
    local server, client = udp.pair()
    local got, sent, seen = 0, 0, {}
    local all = {}
    for i = 1, 3 do
      all[i] = spawn(function()
        while got < 100 do
          local data = i == 1 and server:try_recv(10, 0.0005) or i == 2 and
            tcp.try_with_timeout(0.0007, server.recv, server, 10) or server:try_recv(10, 0.005)
          if data then
            got = got + 1
            seen[data] = (seen[data] or 0) + 1
          end
        end
      end)
    end
    spawn(function()
      for i = 1, 100 do
        client:send(i)
        sent = i
        tcp.sleep(0.0004)
      end
    end)
    for i = 1, 3 do
      all[i]:join(PATIENCE)
    end
    assert.same({ 100, 100 }, { sent, got })
    for i = 1, 100 do
      assert.equal(1, seen[tostring(i)], i)
    end
  end))

  it("is not lost when another task closes a second socket while it arrives",
    in_every_order(function(server, trigger, send)
      local other = udp.listen()
      local closed = tasks.trying(other, "recv")
      local closer = spawn(function()
        trigger:recv()
        other:close()
        -- Very likely on the same descriptor.
        udp.listen()
      end)
      local reader = spawn(server.recv, server)
      tcp.sleep(0)
      send("for the one that is left")
      assert.equal("for the one that is left", reader:join(PATIENCE))
      closer:join(PATIENCE)
      tasks.fails("closed", closed)
    end))

  it("and the socket's end at the same moment are one or the other", in_every_order(function(server, trigger, send)
    local reader = tasks.trying(server, "recv")
    local closer = spawn(function()
      trigger:recv()
      server:close()
    end)
    tcp.sleep(0)
    send("late")
    closer:join(PATIENCE)
    local result = reader:join(PATIENCE)
    if result.value then
      assert.equal("late", result.value)
    else
      fails("closed", result.value, result.err)
    end
  end))

  it("reaches every one of many who are woken together", cleanly(function()
    local server, client = udp.pair()
    for _ = 1, 10 do
      local all = {}
      for i = 1, 30 do
        all[i] = spawn(server.recv, server)
      end
      tcp.sleep(0)
      for i = 1, 30 do
        client:send(i)
      end
      local sum = 0
      for i = 1, 30 do
        sum = sum + all[i]:join(PATIENCE)
      end
      assert.equal(465, sum)
    end
  end))

  it("goes to receivers in tasks and outside in their order, too", cleanly(function()
    local server, client = udp.pair()
    local before = spawn(server.recv, server)
    tcp.sleep(0)
    local after
    spawn(function()
      after = spawn(server.recv, server)
      tcp.sleep(0)
      for _, word in ipairs { "before", "outside", "after" } do
        client:send(word)
      end
    end)
    assert.equal("outside", server:recv())
    assert.equal("before", before:join(PATIENCE))
    assert.equal("after", after:join(PATIENCE))
  end))
end)

describe("a descriptor that is used again", function()
  after_each(tasks.finish_all)

  it("wakes who waits on the new socket, whatever happened to the old one", cleanly(function()
    for round = 1, 30 do
      local server, client = udp.pair()
      local reader = tasks.trying(server, "recv")
      tcp.sleep(0)
      if round % 3 == 0 then
        client:send("for the new one only")
      end
      server:close()
      tasks.fails("closed", reader)
      local new = udp.listen()
      local waiting = tasks.trying(new, "recv")
      tcp.sleep(0)
      tcp.udp("127.0.0.1", new:local_port()):send("new")
      assert.equal("new", tasks.succeeds(waiting))
      new:close()
      client:close()
    end
  end))

  it("was garbage before, and no wait on it is left", function()
    for _ = 1, 20 do
      local task = spawn(function()
        local server = tcp.udp_listen("127.0.0.1", 0)
        local _, err = server:try_recv(10, 0.001)
        assert(err.kind == "timeout")
      end)
      task:join(PATIENCE)
      collectgarbage()
      collectgarbage()
      local server = tcp.udp_listen("127.0.0.1", 0)
      local reader = spawn(server.recv, server)
      tcp.sleep(0)
      local client = tcp.udp("127.0.0.1", server:local_port())
      client:send("new")
      assert.equal("new", reader:join(PATIENCE))
      server:close()
      client:close()
    end
  end)

  it("was a connection or a listener before", cleanly(function()
    for _ = 1, 10 do
      local near, far = waits.pair()
      local reader = tasks.trying(near, "read_line")
      tcp.sleep(0)
      near:close()
      far:close()
      tasks.fails("closed", reader)
      local server, client = udp.pair()
      local waiting = tasks.trying(server, "recv")
      tcp.sleep(0)
      client:send("no stream")
      assert.equal("no stream", tasks.succeeds(waiting))
      server:close()
      client:close()
      local again, there = waits.pair()
      there:write("a stream\n")
      assert.equal("a stream", tcp.run(function() return (again:read_line()) end))
    end
  end))
end)

describe("closing a socket", function()
  after_each(tasks.finish_all)

  it("wakes nobody whose send by name could not wait, and who waits for something else now", cleanly(function()
    local socket = udp.listen()
    local task = spawn(function()
      waits.assert_advice(debug.getinfo(1, "S").short_src,
        "cannot wait in a coroutine of the script's own inside a task: make it with tcp.wrap",
        select(2, coroutine.resume(coroutine.create(function()
          local sent = socket:send_to("x", "localhost", 9)
          return sent
        end))))
      tcp.sleep(MOMENT)
      return "slept"
    end)
    tcp.sleep(0)
    socket:close()
    assert.equal("slept", task:join(PATIENCE))
  end))

  it("leaves nobody in line for it, and so does whatever ends a wait", cleanly(function()
    local ways = {
      function(_, _, client) client:send("x") end,
      function(server) server:close() end,
      function(_, task) task:cancel() end,
      function() tcp.sleep(2 * MOMENT) end,
    }
    for _, way in ipairs(ways) do
      local server, client = udp.pair()
      server:set_timeout(MOMENT)
      local task = tasks.trying(server, "recv")
      tcp.sleep(0)
      way(server, task, client)
      task:try_join(PATIENCE)
      assert.equal(0, counts().waiting)
    end
  end))
end)

describe("an interpreter that ends in the middle", function()
  it("does so without a crash, 50 times", function()
    assert.equal("", support.child([[
      local tcp = require("tcp.core")
      local server = tcp.udp_listen("*", 0)
      for i = 1, 5 do
        tcp.spawn(function() while true do server:recv() end end)
        tcp.spawn(function() tcp.udp("localhost", server:local_port()):send("x") end)
        tcp.spawn(function() tcp.udp():send_to("x", "localhost", server:local_port()) end)
        tcp.spawn(function() tcp.resolve_all("localhost") end)
        tcp.spawn(function() tcp.try_resolve(("x"):rep(64)) end)
      end
      tcp.sleep(0.001)
      setmetatable({}, { __gc = function() server:close() end })
    ]], nil, 50):sub(1, 2000))
  end)
end)

local function with_finalizer(finalize)
  if newproxy then
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = finalize
    return proxy
  end
  return setmetatable({}, { __gc = finalize })
end

describe("a finalizer", function()
  it("may use sockets at any time", cleanly(function()
    local server, client = udp.pair()
    local finalized = 0
    for i = 1, 50 do
      with_finalizer(function()
        finalized = finalized + 1
        client:try_send("from a finalizer")
        server:try_recv(100, 0)
        udp.listen():close()
      end)
      client:send(i)
      server:try_recv(100, 0)
      if i % 5 == 0 then
        collectgarbage()
      end
    end
    assert.is_true(finalized > 0)
    while server:try_recv(nil, 0) do
      finalized = finalized + 1
    end
    client:send("usable")
    assert.equal("usable", server:recv())
  end))

  it("may receive while another receive is under way", cleanly(function()
    local server, client = udp.pair()
    local own_server, own_client = udp.pair()
    local finalized, problem, is_over = 0, nil, false
    local function finalize()
      if is_over then
        return
      end
      finalized = finalized + 1
      own_client:try_send("to a finalizer")
      local ok, data = pcall(own_server.try_recv, own_server, nil, 0)
      problem = problem or data ~= "to a finalizer" and ("%s %s"):format(ok, data) or nil
    end
    local pause, multiplier = collectgarbage("setpause", 0), collectgarbage("setstepmul", 1000)
    finally(function()
      is_over = true
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", multiplier)
    end)
    -- The next cycle begins at once, not where the last one has put it. With all that a suite has, each takes its time.
    collectgarbage()
    local filling, count, deadline = ("x"):rep(20000), 0, tcp.now() + 20
    repeat
      count = count + 1
      for _ = 1, 4 do
        with_finalizer(finalize)
      end
      -- Another string each time: 5.1 would find the old one, and make no garbage.
      local data = count .. filling
      client:send(data)
      assert(server:recv() == data)
      client:send(data)
      assert(select(2, server:try_recv(1000)).data == data:sub(1, 1000))
    until finalized >= 40 or tcp.now() > deadline
    assert.is_nil(problem)
    assert.is_true(finalized >= 40)
  end))
end)
