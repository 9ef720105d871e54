-- Calls of tcp.allow add up: what one has forbidden, no other allows.

local policy = require("support.policy")

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

local has_luv = pcall(require, "luv")

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

  local function among_states(claim, lines, script)
    it(claim, function()
      if not has_luv then
        return pending("states on threads need luv: apt-get install lua-luv")
      end
      policy.prints(lines, STATES .. script)
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
end)
