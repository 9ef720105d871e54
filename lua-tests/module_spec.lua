local tcp = require("tcp.core")
local support = require("support")

describe("the module", function()
  it("names its release", function()
    assert.matches("^tcp %d+%.%d+%.%d+$", tcp._VERSION)
  end)

  it("is the same under both its names", function()
    assert.equal("true\n", support.child([[print(require("tcp") == require("tcp.core"))]]))
  end)

  it("sets the legacy globals, and tcp.core does not", function()
    assert.equal("nil\tnil\tnil\n", support.child([[require("tcp.core") print(connect, send, recv)]]))
    assert.equal("true\ttrue\ttrue\n", support.child([[
      local tcp = require("tcp")
      print(connect == tcp.connect, send == tcp.send, recv == tcp.recv)
    ]]))
    assert.equal("true\n", support.child([[
      local core = require("tcp.core")
      local tcp = require("tcp")
      print(connect == core.connect)
    ]]))
  end)

  it("leaves globals alone that are there already", function()
    assert.equal("mine\tfalse\n", support.child([[
      send, recv = "mine", false
      require("tcp")
      print(send, recv)
    ]]))
  end)

  it("sets no other global", function()
    assert.equal("connect connect_tls recv send\n", support.child([[
      local before = {}
      for name in pairs(_G) do before[name] = true end
      require("tcp")
      local new = {}
      for name in pairs(_G) do
        if not before[name] then new[#new + 1] = name end
      end
      table.sort(new)
      print(table.concat(new, " "))
    ]]))
  end)

  it("is content with globals that have to be declared", function()
    assert.equal("ok\n", support.child([[
      setmetatable(_G, {
        __index = function(_, name) error("undeclared " .. name, 2) end,
        __newindex = function(_, name) error("undeclared " .. name, 2) end,
      })
      require("tcp")
      print(pcall(connect, "127.0.0.1", 1) == false and "ok")
    ]]))
  end)

  it("works without the debug library", function()
    assert.equal("connect 127.0.0.1:1: connection refused\n", support.child([[
      debug = nil
      package.loaded.debug = nil
      local tcp = require("tcp")
      local ok, err = xpcall(function() tcp.connect("127.0.0.1", 1) end, tcp.traceback)
      print((tostring(err):gsub("^[^:]*:%d+: ", "")))
    ]]))
  end)

  -- On Lua 5.1 and LuaJIT, what mlua keeps of the thread that loads it must not be a coroutine's.
  it("can be loaded inside a coroutine that is collected afterwards", function()
    assert.equal("refused\tbad argument #2 to 'connect' (number expected, got nil)\tjson\n", support.child([[
      local tcp = coroutine.wrap(function() return require("tcp") end)()
      for _ = 1, 5 do
        collectgarbage()
        local threads = {}
        for i = 1, 200 do threads[i] = coroutine.create(function() end) end
      end
      local _, refused = pcall(tcp.connect, "127.0.0.1", 1)
      local _, misuse = pcall(tcp.connect, "127.0.0.1")
      local _, json = pcall(tcp.json.decode, "[")
      collectgarbage()
      print(refused.kind, (misuse:gsub("^[^:]*:%d+: ", "")), json.kind)
    ]]))
  end)

  it("can be loaded inside a coroutine without corrupting memory", function()
    if not support.succeeds("command -v valgrind") then
      return pending("valgrind is not installed: apt-get install valgrind")
    end
    local output = support.child([[
      local tcp = coroutine.wrap(function() return require("tcp") end)()
      for _ = 1, 3 do
        collectgarbage()
        pcall(tcp.connect, "127.0.0.1", 1)
        pcall(tcp.connect, "127.0.0.1")
        pcall(tcp.json.encode, print)
      end
      print("done")
    ]], "valgrind -q --error-exitcode=9")
    if jit then
      -- LuaJIT reads past the ends of its own strings, which valgrind reports: only the module's frames count.
      assert.is_nil(output:find("libtcp", 1, true) or output:find("tcp::", 1, true), output)
      assert.matches("done\n", output)
    else
      assert.equal("done\n", output)
    end
  end)

  it("leaves the state with open connections in peace", function()
    local peer = require("support.peers").start("accept", "stall")
    assert.equal("done\n", support.child(([[
      local tcp = require("tcp")
      conn = tcp.connect("127.0.0.1", %d)
      conn:write("x")
      _, err = tcp.try_connect("127.0.0.1", 1)
      print("done")
    ]]):format(peer.port)))
  end)

  it("never writes to stdout", function()
    assert.equal("", support.child([[
      local tcp = require("tcp")
      tcp.try_connect("127.0.0.1", 1)
      pcall(tcp.json.decode, "")
    ]]))
  end)

  it("closes its descriptors on exec", function()
    local output = support.child(([[
      local tcp = require("tcp")
      local conn = tcp.connect("127.0.0.1", %d)
      local before = io.popen("ls /proc/self/fd | wc -l"):read("*l")
      conn:close()
      print(before == io.popen("ls /proc/self/fd | wc -l"):read("*l"))
    ]]):format(require("support.peers").start("accept", "stall").port))
    assert.equal("true\n", output)
  end)
end)
