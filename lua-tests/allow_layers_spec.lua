-- Calls of tcp.allow add up: what one has forbidden, no other allows.

local policy = require("support.policy")
local support = require("support")

--- Asserts what connecting says to each port of a script, whose listeners are `A`, `B` and `C`, after these calls.
local function connects(expected, calls)
  policy.prints({ expected }, [[
    local listeners, ports = {}, {}
    for i = 1, 3 do
      listeners[i], ports[i] = listen()
    end
    local A, B, C = "127.0.0.1:" .. ports[1], "127.0.0.1:" .. ports[2], "127.0.0.1:" .. ports[3]
  ]] .. calls .. [[
    local how = {}
    for i, port in ipairs(ports) do
      how[i] = reach("connect", "127.0.0.1", port)
    end
    print(table.concat(how, " "))
  ]])
end

describe("tcp.allow", function()
  it("gives nothing", function()
    policy.prints({ "0", "0" }, [[
      print(select("#", tcp.allow {}))
      print(select("#", tcp.allow { net = {}, listen = {}, deny = { "10.0.0.1" }, files = false }))
    ]])
  end)

  it("adds nothing by keys that are absent", function()
    connects("reached reached reached", "tcp.allow {} tcp.allow { files = true } tcp.allow { listen = {} }")
    policy.prints({ "reached", "reached" }, [[
      tcp.allow { net = {} }
      print(reach("listen", "127.0.0.1", 0))
      print(reach("udp_listen", "127.0.0.1", 0))
    ]])
  end)

  it("forbids all by an empty list", function()
    connects("denied denied denied", "tcp.allow { net = {} }")
    policy.prints({ "denied", "denied", "denied", "reached" }, [[
      local _, port = listen()
      tcp.allow { listen = {} }
      print(reach("listen", "127.0.0.1", 0))
      print(reach("listen", "*", 0))
      print(reach("listen", "unix:/nowhere/x"))
      print(reach("connect", "127.0.0.1", port))
    ]])
  end)

  it("lets pass only what every call has let pass", function()
    connects("denied reached denied", "tcp.allow { net = { A, B } } tcp.allow { net = { B, C } }")
    connects("denied denied denied", "tcp.allow { net = { A } } tcp.allow { net = { B } }")
    connects("reached denied denied", "tcp.allow { net = { A, A, A } } tcp.allow { net = { A } }")
  end)

  it("is not loosened by a wider call", function()
    local WIDER = [[
      tcp.allow { net = { "*", "0.0.0.0/0", "[::]/0", "localhost", A, B, C }, listen = { "*" }, files = true }
    ]]
    connects("reached denied denied", "tcp.allow { net = { A } }" .. WIDER)
    connects("denied denied denied", "tcp.allow { net = {} }" .. WIDER)
    connects("reached denied reached", "tcp.allow { deny = { B } }" .. WIDER)
    connects("reached denied denied", WIDER .. "tcp.allow { net = { A } }" .. WIDER)
  end)

  it("takes what is denied by any call before what is let pass by any", function()
    connects("reached denied reached", "tcp.allow { net = { A, B, C }, deny = { B } }")
    connects("reached denied reached", "tcp.allow { deny = { B } } tcp.allow { net = { A, B, C } }")
    connects("reached denied reached", "tcp.allow { net = { A, B, C } } tcp.allow { deny = { B } }")
    connects("denied denied denied", "tcp.allow { net = { A, B, C }, deny = { '127.0.0.0/8' } }")
    connects("denied denied denied", "tcp.allow { net = { '127.0.0.1' }, deny = { 'private' } }")
    connects("reached denied denied", "tcp.allow { deny = { B } } tcp.allow { deny = { C } }")
  end)

  it("keeps lists apart: what may be listened on may not be reached for that, nor the other way round", function()
    connects("denied denied denied", "tcp.allow { net = {}, listen = { '*', A, B, C } }")
    policy.prints({ "denied" }, [[
      tcp.allow { net = { "*" }, listen = {} }
      print(reach("listen", "127.0.0.1", 0))
    ]])
  end)

  it("keeps a copy of the lists", function()
    connects("reached denied denied", [[
      local policy = { net = { A } }
      tcp.allow(policy)
      policy.net[1], policy.net[2], policy.net = B, C, nil
    ]])
  end)

  it("leaves public addresses alone by net = * and deny = private", function()
    policy.prints({ "refused", "denied", "denied", "denied", "denied" }, [[
      tcp.allow { deny = { "private" } }
      print(reach("connect", "unix:/nowhere/x"))
      tcp.allow { net = { "*" }, deny = { "private" } }
      print(reach("connect", "unix:/nowhere/x"))
      print(reach("connect", "localhost", 1))
      print(reach("connect", "::1", 1))
      print(reach("listen", "*", 0))
    ]])
  end)

  it("takes any number of calls, and of entries", function()
    connects("reached reached denied", [[
      for i = 1, 200 do
        tcp.allow { deny = { "10.0.0." .. i, C } }
      end
      local entries = {}
      for i = 1, 2000 do
        entries[i] = "host-" .. i .. ".example:" .. i
      end
      entries[2001], entries[2002], entries[2003] = A, B, C
      tcp.allow { net = entries }
    ]])
  end)

  it("holds for require('tcp'), require('tcp.core') and the legacy globals alike", function()
    policy.prints({ "true", "denied", "denied", "denied" }, [[
      local _, port = listen()
      tcp.allow { net = {} }
      print(require("tcp") == tcp)
      print(select(2, require("tcp").try_connect("127.0.0.1", port)).kind)
      print(select(2, pcall(connect, "127.0.0.1", port)).kind)
      print(select(2, pcall(connect_tls, "127.0.0.1", port)).kind)
    ]])
  end)

  it("holds outside the coroutine or task that it was called in, and in all others", function()
    for _, caller in ipairs { "coroutine.wrap(%s)()", "tcp.run(%s)", "tcp.wrap(%s)()", "pcall(%s)" } do
      policy.prints({ "denied", "denied", "denied", "denied" }, [[
        local _, port = listen()
        local function try()
          local how = reach("connect", "127.0.0.1", port)
          return how
        end
        local early = coroutine.wrap(try)
      ]] .. caller:format("function() tcp.allow { net = {} } end") .. [[
        print(try())
        print(early())
        print(tcp.spawn(try):join())
        print(coroutine.wrap(function() return tcp.wrap(try)() end)())
      ]])
    end
  end)

  it("leaves connections, listeners and sockets alone that are there already", function()
    policy.prints({ "ping", "pong", "late", "1" }, [[
      local listener, port = listen()
      local near = tcp.connect("127.0.0.1", port)
      local waiting = tcp.connect("127.0.0.1", port)
      local receiver = tcp.udp_listen("127.0.0.1", 0)
      tcp.udp("127.0.0.1", receiver:local_port()):send("1")
      tcp.allow { net = {}, listen = {}, deny = { "private" }, files = false }
      local far = listener:accept()
      near:write("ping")
      print(far:read(4))
      far:write("pong")
      print(near:read(4))
      waiting:write("late")
      print(listener:accept():read(4))
      print((receiver:recv(1, 60)))
    ]])
  end)

  it("says what forbids it, in an error of kind denied", function()
    policy.prints({ "denied\tconnect\t127.0.0.1:80\ttrue", "denied\tlisten\t127.0.0.1:0\ttrue", "true\ttrue" }, [[
      tcp.allow { net = { "10.0.0.1" }, listen = { "10.0.0.1" } }
      local _, err = tcp.try_connect("127.0.0.1", 80)
      print(err.kind, err.op, err.peer, tostring(err):find("^connect 127%.0%.0%.1:80: ") ~= nil)
      local _, listen_err = tcp.try_listen("127.0.0.1", 0)
      print(listen_err.kind, listen_err.op, listen_err.peer, #listen_err.message > 0)
      local ok, raised = pcall(tcp.connect, "127.0.0.1", 80)
      print(not ok, tcp.is_error(raised, "denied"))
    ]])
  end)
end)

describe("a denial says", function()
  --- Asserts the messages of the errors that calls end with, in a state whose policy a script has set.
  local function says(messages, script, calls, prefix)
    policy.prints(messages, script .. ([[
      for _, call in ipairs %s do
        local host, port = call:match("^%%S+ (%%S+) (%%d+)$")
        local _, err = tcp["try_" .. call:match("^%%S+")](host or call:match("%%S+$"), port)
        print(err.message)
      end
    ]]):format(policy.text(calls)), prefix)
  end

  it("which list has no entry for it", function()
    says({ "no entry of 'net' of tcp.allow covers it", "no entry of 'net' of tcp.allow covers it",
      "no entry of 'listen' of tcp.allow covers it", "no entry of 'net' of tcp.allow covers /x" },
      "tcp.allow { net = { 'db.example:1', '10.0.0.1:1' }, listen = { '10.0.0.1' } }",
      { "connect 127.0.0.1 80", "connect localhost 80", "listen 127.0.0.1 0", "connect unix:/x" })
    says({ "no entry of LUA_TCP_ALLOW_NET covers it", "no entry of LUA_TCP_ALLOW_LISTEN covers it" }, "",
      { "connect 127.0.0.1 80", "listen 127.0.0.1 0" },
      "env LUA_TCP_ALLOW_NET=10.0.0.1 LUA_TCP_ALLOW_LISTEN=10.0.0.1")
  end)

  it("which list is empty", function()
    says({ "'net' of tcp.allow is empty, which forbids all", "'listen' of tcp.allow is empty, which forbids all" },
      "tcp.allow { net = {}, listen = {} }", { "connect localhost 80", "udp_listen 127.0.0.1 0" })
    says({ "'deny' of tcp.allow is empty, which forbids all", "'deny' of tcp.allow is empty, which forbids all" },
      "tcp.allow { net = { '*' }, deny = {} }", { "connect localhost 80", "listen 127.0.0.1 0" })
    says({ "LUA_TCP_DENY is empty, which forbids all" }, "", { "connect 127.0.0.1 80" }, "env LUA_TCP_DENY=")
  end)

  it("which entry denies it", function()
    says({ "127.0.0.1 is denied by the entry '127.0.0.0/8' of 'deny' of tcp.allow",
      "127.0.0.1 is denied by the entry '127.0.0.0/8' of 'deny' of tcp.allow",
      "0.0.0.0 takes addresses that are denied by the entry '10.0.0.0/8' of 'deny' of tcp.allow",
      "/x is denied by the entry 'unix:/x' of 'deny' of tcp.allow" },
      "tcp.allow { deny = { '10.0.0.0/8', '127.0.0.0/8', 'unix:/x' } }",
      { "connect 127.0.0.1 80", "connect 127.1 80", "listen 0.0.0.0 80", "connect unix:/x" })
    says({ "127.0.0.1 is denied by the entry 'private' of LUA_TCP_DENY" }, "", { "connect 127.0.0.1 80" },
      "env LUA_TCP_DENY=8.8.8.8,private")
  end)

  it("that only an entry of the other sort would fit", function()
    local NAME = " (a name passes only by an entry for names)"
    local ADDRESS = " (an address passes only by an entry for addresses)"
    says({ "no entry of 'net' of tcp.allow covers it" .. ADDRESS }, "tcp.allow { net = { 'localhost:80' } }",
      { "connect 127.0.0.1 80" })
    says({ "no entry of 'net' of tcp.allow covers it" .. NAME, "no entry of 'net' of tcp.allow covers it" .. NAME },
      "tcp.allow { net = { '127.0.0.1' } }", { "connect localhost 80", "connect 127.1 80" })
    says({ "no entry of 'listen' of tcp.allow covers 0.0.0.0, which :: takes, too, without ipv6_only" },
      "tcp.allow { listen = { '::' } }", { "listen * 80" })
  end)
end)

local has_luv = support.has_module("luv")

describe("a policy of one state", function()
  -- Each script runs in a state of its own, on a thread of this child, and prints.
  local STATES = [[
    local uv = require("luv")
    local function in_a_state(script)
      uv.new_thread(function(text)
        local load = loadstring or load
        assert(load(text))()
      end, script):join()
    end
    local listener, port = listen()
    local TRY = ("io.stdout:write(tostring((require('tcp.core').try_connect('127.0.0.1', %d))):match('^%%a+'), '\\n')")
      :format(port)
    local FORBID = "require('tcp.core').allow { net = {} } "
    local function try()
      print((tostring((tcp.try_connect("127.0.0.1", port))):match("^%a+")))
      io.stdout:flush()
    end
  ]]

  local function among_states(claim, lines, script, prefix)
    it(claim, function()
      if not has_luv then
        return pending("states on threads need luv: apt-get install lua-luv")
      end
      policy.prints(lines, STATES .. script, prefix)
    end)
  end

  among_states("does not hold in another", { "nil", "Connection", "nil" }, [[
    tcp.allow { net = {} }
    try()
    in_a_state(TRY)
    try()
  ]])

  among_states("does not come out of it", { "nil", "Connection", "Connection" }, [[
    in_a_state(FORBID .. TRY)
    in_a_state(TRY)
    try()
  ]])

  among_states("holds for itself beside others", { "allowed 10 of 20" }, [[
    local threads, allowed = {}, 0
    for i = 1, 20 do
      threads[i] = uv.new_thread(function(script, forbids)
        local load = loadstring or load
        if forbids then
          require("tcp.core").allow { net = {} }
        end
        load(script)()
      end, ("require('tcp.core').try_connect('127.0.0.1', %d)"):format(port), i % 2 == 0)
    end
    for _, thread in ipairs(threads) do
      thread:join()
    end
    while listener:try_accept(0) do
      allowed = allowed + 1
    end
    print("allowed " .. allowed .. " of 20")
  ]])

  -- What is new may have the place of what is gone.
  among_states("is gone with it", { "done" }, [[
    for _ = 1, 20 do
      in_a_state(("require('tcp.core').connect('127.0.0.1', %d) "):format(port) .. FORBID)
      listener:accept(10):close()
    end
    print("done")
  ]])

  -- Those of states that live at the same time have places of their own.
  among_states("takes no memory once it is gone", { "done" }, [[
    local STATES, ROUNDS = 20, 4
    local function kilobytes()
      for line in io.lines("/proc/self/status") do
        local number = line:match("VmRSS:%s+(%d+)")
        if number then
          return tonumber(number)
        end
      end
    end
    local function live_and_die()
      local threads, conns = {}, {}
      for i = 1, STATES do
        threads[i] = uv.new_thread(function(port)
          local tcp, entries = require("tcp.core"), {}
          local conn = tcp.connect("127.0.0.1", port)
          for i = 1, 4000 do
            entries[i] = "host-" .. i .. ".example:1"
          end
          tcp.allow { net = entries }
          conn:write("x")
          conn:recv()
        end, port)
      end
      for i = 1, STATES do
        conns[i] = listener:accept(60)
        conns[i]:read(1)
      end
      for i = 1, STATES do
        conns[i]:close()
      end
      for i = 1, STATES do
        threads[i]:join()
      end
    end
    -- The first rounds make holes that the later ones fill.
    local function rounds()
      for _ = 1, ROUNDS do
        live_and_die()
      end
      return kilobytes()
    end
    local before = io.open("/proc/self/status") and rounds()
    if not before then
      return print("done")
    end
    local more = rounds() - before
    -- Kept, they would have more than 20 MiB.
    print(more < 10240 and "done" or more .. " KiB more")
  ]], "env MALLOC_ARENA_MAX=1")
end)
