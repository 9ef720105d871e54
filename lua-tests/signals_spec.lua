local peers = require("support.peers")
local support = require("support")

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

-- What waits, given a peer that never says anything.
local WAITS = {
  ["read_line"] = "conn:read_line()",
  ["read_line with a timeout"] = "conn:read_line({ timeout = 60 })",
  ["recv"] = "conn:try_recv()",
  ["read_str"] = "conn:read_str()",
  ["the legacy recv"] = "tcp.recv()",
  ["lines"] = "for _ in conn:lines() do end",
  ["write"] = "while true do conn:write(('x'):rep(1000000)) end",
  ["connect"] = "tcp.connect(host, silent, 60)",
  ["connect_tls"] = "tcp.connect_tls(host, port, 60)",
  ["connect_tls without a limit"] = "tcp.try_connect_tls(host, port, math.huge)",
  ["handshake"] = "unshaken():handshake()",
  ["try_handshake with a timeout"] = "unshaken():try_handshake({ timeout = 60 })",
  ["a first read of an accepted connection"] = "unshaken():read_line()",
  ["a first write of an accepted connection"] = "unshaken():write('x')",
  ["sleep"] = "tcp.sleep(60)",
}

local SCRIPT = [[
  local tcp = require("tcp")
  local host, port, silent = "127.0.0.1", %d, %d
  local conn = tcp.connect(host, port)
  -- Accepted from a client that says nothing.
  local function unshaken()
    local server = { cert = "build/certificates/server.pem", key = "build/certificates/server.key" }
    local listener = tcp.listen(host, 0, { tls = server })
    local raw = tcp.connect(host, listener:local_port())
    local far = listener:accept()
    tcp.kept = { listener, raw, far }
    return far
  end
  local function wait()
    print("waiting")
    io.stdout:flush()
    %s
    print("came back")
  end
  %s
]]

local function interrupts(wait, run, prefix)
  local peer, silent = peers.start("accept", "stall"), peers.start("--silent")
  support.with_child(SCRIPT:format(peer.port, silent.port, wait, run), function(output, pid)
    assert.equal("waiting", output:read("*l"))
    wait_until_asleep(pid)
    os.execute("kill -INT " .. pid)
    local text = output:read("*a")
    assert.matches("interrupted!", text)
    assert.is_nil(text:find("came back", 1, true))
  end, prefix)
end

describe("Ctrl-C", function()
  for name, wait in pairs(WAITS) do
    it("interrupts " .. name .. " in the main program", function()
      interrupts(wait, "wait()")
    end)

    it("interrupts " .. name .. " in a coroutine", function()
      interrupts(wait, "coroutine.wrap(wait)()")
    end)
  end

  it("interrupts connect while a name is being resolved", function()
    if not support.succeeds("unshare -m true") then
      return pending("a resolver that never answers needs a mount namespace of its own (root)")
    end
    local address = "127.99.99.98"
    peers.start("--silent-dns", address)
    support.with_nameserver(address, function(prefix)
      interrupts("tcp.connect('slow.example', 80, 60)", "wait()", prefix)
      interrupts("tcp.connect('slow.example', 80, 60)", "coroutine.wrap(wait)()", prefix)
    end)
  end)

  it("can be caught by pcall, and the connection is usable afterwards", function()
    local peer = peers.start("accept", { "read", 1 }, { "send", "hello\n" }, "stall")
    local script = SCRIPT:format(peer.port, 1, "conn:read_line()", [[
      print(pcall(wait))
      conn:write("x")
      print(conn:read_line())
    ]])
    support.with_child(script, function(output, pid)
      assert.equal("waiting", output:read("*l"))
      wait_until_asleep(pid)
      os.execute("kill -INT " .. pid)
      assert.matches("^false\t[^\n]*interrupted!\nhello\n", output:read("*a"))
    end)
  end)

  it("ends the sending side if it cuts a write, and whatever follows fails at once", function()
    local peer = peers.start("accept", { "send", "still here" }, { "sleep", 500 }, "drain")
    local script = SCRIPT:format(peer.port, 1, "conn:write(('x'):rep(20000000))", [[
      print(pcall(wait))
      for _, name in ipairs { "write", "send", "send_some", "write_line", "write_packet", "write_json" } do
        local _, err = conn["try_" .. name](conn, "more")
        print(err.kind, err.message)
      end
      print(conn:read(10))
    ]])
    support.with_child(script, function(output, pid)
      assert.equal("waiting", output:read("*l"))
      wait_until_asleep(pid)
      os.execute("kill -INT " .. pid)
      local refusals = ("closed\tthe sending side has ended\n"):rep(6)
      assert.matches("^false\t[^\n]*interrupted!\n" .. refusals .. "still here\n$", output:read("*a"))
    end)
  end)

  it("interrupts a coroutine of a script that never waited outside one", function()
    local peer = peers.start("accept", "stall")
    local script = ([[
      coroutine.wrap(function()
        local tcp = require("tcp")
        local conn = tcp.connect("127.0.0.1", %d)
        print("waiting")
        io.stdout:flush()
        conn:read_line()
      end)()
    ]]):format(peer.port)
    if _VERSION == "Lua 5.1" and not jit then
      -- That Lua tells nobody which thread is the main one, unless it is running.
      script = "require('tcp') " .. script
    end
    support.with_child(script, function(output, pid)
      assert.equal("waiting", output:read("*l"))
      wait_until_asleep(pid)
      os.execute("kill -INT " .. pid)
      assert.matches("interrupted!", output:read("*a"))
    end)
  end)

  it("reaches a script whose coroutine has a debug hook of its own", function()
    interrupts("conn:read_line()", "coroutine.wrap(function() debug.sethook(function() end, 'l') wait() end)()")
  end)
end)

describe("other signals", function()
  it("do not end a wait, nor lengthen it", function()
    local peer = peers.start("accept", "stall")
    local script = SCRIPT:format(peer.port, 1, [[
      local began = tcp.now()
      local _, err = conn:try_read_line({ timeout = 0.5 })
      print(err.kind, tcp.now() - began >= 0.5 and tcp.now() - began < 2)
    ]], "wait()")
    support.with_child(script, function(output, pid)
      assert.equal("waiting", output:read("*l"))
      wait_until_asleep(pid)
      for _ = 1, 5 do
        os.execute("kill -CONT " .. pid .. "; kill -WINCH " .. pid)
      end
      assert.equal("timeout\ttrue\ncame back\n", output:read("*a"))
    end)
  end)
end)

describe("a peer that has gone", function()
  -- The interpreter of its own has SIGPIPE's default action: to end it.
  it("never raises SIGPIPE", function()
    local peer = peers.start("accept", { "read", 1 }, "reset")
    assert.equal("reset\treset\treset\treset\n", support.child(([[
      local tcp = require("tcp")
      local conn = tcp.connect("127.0.0.1", %d)
      local _, err
      repeat
        _, err = conn:try_write("x")
      until err
      local kinds = { err.kind }
      for _, data in ipairs { "one", { "a", "b" } } do
        _, err = conn:try_write(data)
        kinds[#kinds + 1] = err.kind
      end
      _, err = conn:try_write_packet("x")
      kinds[#kinds + 1] = err.kind
      print(table.concat(kinds, "\t"))
    ]]):format(peer.port)))
  end)

  it("is noticed in gathered writes without SIGPIPE, too", function()
    local peer = peers.start("accept", "close")
    assert.equal("reset\n", support.child(([[
      local tcp = require("tcp")
      local conn = tcp.connect("127.0.0.1", %d)
      local _, err
      repeat
        _, err = conn:try_write({ "a", "b" })
      until err
      print(err.kind)
    ]]):format(peer.port)))
  end)
end)
