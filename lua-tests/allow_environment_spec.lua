-- The environment variables that forbid, from outside the script, what tcp.allow forbids from inside.

local policy = require("support.policy")
local support = require("support")

local prints, run = policy.prints, policy.run

--- Words of the shell that set the variables whose names end with these.
local function with(values)
  local words = { "env -u LUA_TCP_ALLOW_NET -u LUA_TCP_ALLOW_LISTEN -u LUA_TCP_DENY" }
  for name, value in pairs(values) do
    words[#words + 1] = ("LUA_TCP_%s='%s'"):format(name, value)
  end
  return table.concat(words, " ")
end

local THREE = [[
  local _, port = listen()
  print(reach("connect", "127.0.0.1", port))
  print(reach("connect", "localhost", port, { family = "ipv4" }))
  print(reach("listen", "127.0.0.1", 0))
]]

-- Has to listen first.
local LISTENING = [[
  local listener = tcp.try_listen("127.0.0.1", 0) or tcp.listen("127.0.0.9", 0)
  local host, port = listener:local_host(), listener:local_port()
  print(host, reach("connect", host, port), reach("listen", "127.0.0.1", 0))
]]

describe("LUA_TCP_ALLOW_NET", function()
  it("lets only its entries be reached", function()
    prints({ "reached", "denied", "reached" }, THREE, with { ALLOW_NET = "127.0.0.1" })
    prints({ "denied", "reached", "reached" }, THREE, with { ALLOW_NET = "localhost,10.0.0.0/8:5432,*.b.example:443" })
    prints({ "reached", "reached", "reached" }, THREE, with { ALLOW_NET = " 127.0.0.0/8, localhost " })
    prints({ "reached", "reached", "reached" }, THREE, with { ALLOW_NET = "*" })
    prints({ "denied", "denied", "reached" }, THREE, with { ALLOW_NET = "[::]/0,unix:/run/*,:1" })
  end)

  it("forbids all where it is empty", function()
    prints({ "denied", "denied", "reached" }, THREE, with { ALLOW_NET = "" })
  end)
end)

describe("LUA_TCP_ALLOW_LISTEN", function()
  it("lets only its entries be listened on", function()
    prints({ "127.0.0.9\treached\tdenied" }, LISTENING, with { ALLOW_LISTEN = "127.0.0.9" })
    prints({ "127.0.0.1\treached\treached" }, LISTENING, with { ALLOW_LISTEN = "127.0.0.9,127.0.0.1" })
  end)

  it("forbids all where it is empty", function()
    prints({ "denied", "denied" }, [[
      print(reach("listen", "127.0.0.1", 0))
      print(reach("udp_listen", "*", 0))
    ]], with { ALLOW_LISTEN = "" })
  end)
end)

describe("LUA_TCP_DENY", function()
  it("forbids its entries", function()
    prints({ "127.0.0.9\treached\tdenied" }, LISTENING, with { DENY = "127.0.0.1" })
    prints({ "denied", "denied" }, [[
      print(reach("connect", "127.0.0.1", 1))
      print(reach("connect", "localhost", 1))
    ]], with { DENY = "private" })
    prints({ "denied", "denied", "refused" }, [[
      print(reach("connect", "127.0.0.1", 1))
      print(reach("connect", "127.1", 1))
      print(reach("connect", "127.0.0.9", 1))
    ]], with { DENY = "10.0.0.0/8,127.0.0.1,[fd00::]/8" })
  end)

  it("forbids all where it is empty", function()
    prints({ "denied", "denied", "denied" }, [[
      print(reach("connect", "127.0.0.1", 1))
      print(reach("listen", "127.0.0.1", 0))
      print(reach("resolve", "localhost"))
    ]], with { DENY = "" })
  end)

  it("comes before the other two", function()
    prints({ "127.0.0.9\treached\tdenied" }, LISTENING,
      with { DENY = "127.0.0.1", ALLOW_NET = "*", ALLOW_LISTEN = "*" })
  end)
end)

describe("the environment", function()
  it("forbids nothing where none of them is set", function()
    prints({ "reached", "reached", "reached" }, THREE, with {})
  end)

  it("and tcp.allow both hold", function()
    local script = [[
      local _, a = listen()
      local _, b = listen()
      tcp.allow { net = { "127.0.0.1:" .. a, "127.0.0.9" }, listen = { "*" } }
      print(reach("connect", "127.0.0.1", a))
      print(reach("connect", "127.0.0.1", b))
      print(reach("connect", "127.0.0.9", 1))
      tcp.allow { net = { "*" } }
      print(reach("connect", "localhost", a))
      print(reach("connect", "127.0.0.1", b))
    ]]
    prints({ "reached", "denied", "denied", "denied", "denied" }, script, with { ALLOW_NET = "127.0.0.1" })
  end)

  it("holds for require('tcp') and require('tcp.core')", function()
    for _, name in ipairs { "tcp", "tcp.core" } do
      assert.equal("denied\n", support.child(([[
        local _, err = require(%q).try_connect("127.0.0.1", 1)
        print(err.kind)
      ]]):format(name), with { ALLOW_NET = "" }))
    end
  end)

  it("is asked without the script's functions", function()
    assert.equal("denied\n", support.child([[
      os.getenv = function() return nil end
      os = nil
      package.loaded.os = nil
      local _, err = require("tcp").try_connect("127.0.0.1", 1)
      print(err.kind)
    ]], with { ALLOW_NET = "" }))
  end)

  local BAD = { "10.0.0.0/33", "host:70000", "[::1", "*x", "" }

  it("makes require fail where an entry is bad, naming the variable and the entry", function()
    for _, name in ipairs { "ALLOW_NET", "ALLOW_LISTEN", "DENY" } do
      for _, entry in ipairs(BAD) do
        local output = support.child([[
          local function says(ok, problem)
            print(ok, type(problem), (tostring(problem):gsub("\n.*", "")))
          end
          says(pcall(require, "tcp"))
          says(pcall(require, "tcp.core"))
          -- Lua 5.1 remembers that it failed.
          package.loaded.tcp = nil
          says(pcall(require, "tcp"))
          print(type(package.loaded.tcp) == "table", type(package.loaded["tcp.core"]) == "table", connect, send)
        ]], with { [name] = "127.0.0.1," .. entry .. ",10.0.0.1" })
        local first, second, third, loaded = output:match("^(.-)\n(.-)\n(.-)\n(.-)\n$")
        assert.equal("false\tfalse\tnil\tnil", loaded, output)
        for _, line in ipairs { first, second, third } do
          -- The interpreter of Lua 5.1 tells only strings.
          assert.matches("^false\tstring\t", line)
          assert.is_truthy(line:find("LUA_TCP_" .. name, 1, true), line)
          assert.is_truthy(line:find("'" .. entry .. "'", 1, true), line)
        end
      end
    end
  end)

  it("makes require fail where a variable's name is none of these", function()
    for name, meant in pairs {
      ALLOW_DENY = "DENY", ALLOW = "ALLOW_NET", ALLOW_ = "ALLOW_NET", DENY_NET = "DENY", DENYS = "DENY",
      ALLOW_LISTENS = "ALLOW_LISTEN", ALLOW_NETS = "ALLOW_NET",
    } do
      local output = support.child([[print(pcall(require, "tcp"))]], with { [name] = "127.0.0.1" })
      local expected = ("LUA_TCP_%s is no variable of this module (did you mean 'LUA_TCP_%s'?)"):format(name, meant)
      assert.is_truthy(output:find("false\t" .. expected, 1, true), output)
    end
  end)

  it("has other variables, too", function()
    prints({ "reached", "reached", "reached" }, THREE, with { OTHER = "" })
  end)

  it("that is bad leaves no way to the module", function()
    assert.equal("nothing\n", support.child([[
      pcall(require, "tcp")
      local found = "nothing"
      local seen = {}
      local function look(value)
        if type(value) == "table" and not seen[value] then
          seen[value] = true
          if rawget(value, "try_connect") then
            found = "the module"
          end
          for _, inner in next, value do
            look(inner)
          end
        end
      end
      look(debug.getregistry())
      for _ = 1, 3 do
        for _, name in ipairs { "tcp", "tcp.core" } do
          for _, search in ipairs(package.searchers or package.loaders) do
            local ok, load = pcall(search, name)
            if ok and type(load) == "function" and pcall(load, name) then
              found = "a way"
            end
          end
        end
      end
      print(found)
    ]], with { ALLOW_NET = "good.example,a:b:c" }))
  end)

  it("that is not text is bad, too", function()
    local output = support.child("require('tcp')", "env LUA_TCP_DENY=$(printf '10.0.0.1,\\377')")
    assert.matches("LUA_TCP_DENY", output)
    assert.matches("exit 1\n$", output)
  end)

  it("has lists of unix paths and IPv6 addresses, too", function()
    prints({ "refused", "denied", "denied", "denied" }, [[
      print(reach("connect", "unix:/nowhere/x"))
      print(reach("connect", "unix:/nowhere/y/z"))
      print(reach("connect", "unix:/nowhere/shut"))
      print(reach("connect", "::1", 1))
    ]], with { ALLOW_NET = "unix:/nowhere/*,[::1]:2", DENY = "unix:/nowhere/shut" })
  end)
end)

local has_luv = support.has_module("luv")

describe("the environment of a process", function()
  it("holds in all of its states", function()
    if not has_luv then
      return pending("states on threads need luv: apt-get install lua-luv")
    end
    prints({ "denied", "denied" }, [[
      local function try()
        local _, err = require("tcp.core").try_connect("127.0.0.1", 1)
        io.stdout:write(err.kind, "\n")
      end
      require("luv").new_thread(try):join()
      require("luv").new_thread(try):join()
    ]], with { ALLOW_NET = "127.0.0.9" })
  end)
end)

describe("an environment that has changed", function()
  local CHANGE = [[
    local uv = require("luv")
    local function change(name, value)
      if value then
        uv.os_setenv("LUA_TCP_" .. name, value)
      else
        uv.os_unsetenv("LUA_TCP_" .. name)
      end
    end
    local function again()
      package.loaded.tcp, package.loaded["tcp.core"] = nil, nil
      collectgarbage()
      return pcall(require, "tcp")
    end
  ]]

  local function changed(claim, lines, script, environment)
    it(claim, function()
      if not has_luv then
        return pending("the environment is changed by luv: apt-get install lua-luv")
      end
      assert.equal(table.concat(lines, "\n") .. "\n", run(CHANGE .. script, with(environment)))
    end)
  end

  changed("does not loosen what it forbade when the module was loaded", { "denied", "denied", "denied" }, [[
    print(reach("connect", "127.0.0.1", 1))
    for _, value in ipairs { "*", false } do
      change("ALLOW_NET", value or nil)
      again()
      print(reach("connect", "127.0.0.1", 1))
    end
  ]], { ALLOW_NET = "" })

  changed("does not loosen what tcp.allow forbids", { "denied", "denied" }, [[
    tcp.allow { net = {} }
    change("ALLOW_NET", "*")
    again()
    print(reach("connect", "127.0.0.1", 1))
    print(select(2, require("tcp").try_connect("127.0.0.1", 1)).kind)
  ]], {})

  changed("cannot be made bad to lose what holds", { "denied", "denied" }, [[
    for _, name in ipairs { "ALLOW_NET", "DENY" } do
      change(name, "a:b:c")
      again()
      print(reach("connect", "127.0.0.1", 1))
    end
  ]], { ALLOW_NET = "localhost" })
end)
