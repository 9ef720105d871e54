-- A script with the whole of Lua's libraries, debug included, against a policy that holds.

local lfs = require("lfs")
local tcp = require("tcp.core")
local policy = require("support.policy")

-- In front of every attack. `try(module)` says what connecting comes to; `print_all(modules)` prints what is new in
-- that. `walk(visit)` calls it with everything that can be reached from the module but is not Lua's own.
local TOOLS = [[
io.stdout:setvbuf("no")
local unpack = table.unpack or unpack
local function own(value, seen)
  if type(value) == "table" and not seen[value] then
    seen[value] = true
    for key, inner in next, value do
      own(key, seen)
      own(inner, seen)
    end
  elseif value ~= nil then
    seen[value] = true
  end
  return seen
end
local function lua_s_own()
  local loaded = package.loaded
  local seen = own(loaded, { [tcp] = true })
  seen[tcp] = nil
  return seen
end
local function walk(visit)
  local seen = lua_s_own()
  local function go(value)
    local kind = type(value)
    if value == nil or seen[value] or kind == "string" or kind == "number" or kind == "boolean" then
      return
    end
    seen[value] = true
    go(debug.getmetatable(value))
    if kind == "table" then
      for key, inner in next, value do
        go(key)
        go(inner)
      end
    elseif kind == "function" then
      for i = 1, 255 do
        local name, inner = debug.getupvalue(value, i)
        if not name then
          break
        end
        go(inner)
      end
    end
    if kind ~= "table" and (kind == "userdata" or getfenv) and (debug.getuservalue or debug.getfenv) then
      go((debug.getuservalue or debug.getfenv)(value))
    end
    visit(value, kind)
  end
  go(tcp)
  for key, value in pairs(debug.getregistry()) do
    if type(key) == "userdata" or tostring(key):find("^tcp%.") then
      go(value)
    end
  end
end
local function try(module)
  local ok, conn, err = pcall(module.try_connect, "127.0.0.1", PORT, 60)
  if not ok then
    return "broken"
  end
  return conn and "reached" or tcp.is_error(err) and err.kind or "broken"
end
local function print_all(modules)
  local said = {}
  for _, module in ipairs(modules) do
    local how = try(module)
    if not said[how] then
      said[how] = true
      print(how)
    end
  end
end
]]

--- Runs an attack in front of which `FORBID()` is a policy that forbids the listener of this test, and gives what it
-- printed and whether somebody reached the listener. Without `forbids` there is no policy.
local function under_attack(attack, forbids)
  local listener = tcp.listen("127.0.0.1", 0)
  local output = policy.run(("local PORT, FORBIDS = %d, %s\n"):format(listener:local_port(), tostring(forbids))
    .. TOOLS .. [[
      if FORBIDS then
        tcp.allow { net = { "127.0.0.9" }, listen = {}, files = false }
      end
    ]] .. attack, "timeout 60")
  local conn = listener:try_accept(0)
  if conn then
    conn:close()
  end
  listener:close()
  tcp.run()
  return output, conn ~= nil
end

--- Asserts that an attack that comes through where there is no policy finds that it is denied where there is one.
local function denies(attack)
  assert.same({ "reached\n", true }, { under_attack(attack, false) })
  assert.same({ "denied\n", false }, { under_attack(attack, true) })
end

--- Asserts that an attack that ends with "done" gets nowhere, whatever breaks.
local function survives(attack)
  local output, has_met = under_attack(attack, true)
  assert.is_false(has_met, output)
  assert.equal("done\n", output)
end

local function place_of_library()
  for template in package.cpath:gmatch("[^;]+") do
    local path = template:gsub("%?", "tcp")
    if lfs.attributes(path) then
      return path:sub(1, 1) == "/" and path or lfs.currentdir() .. "/" .. path
    end
  end
end

describe("a policy is not undone by", function()
  it("loading the module again", function()
    denies [[
      local modules = { tcp }
      for _ = 1, 3 do
        package.loaded.tcp, package.loaded["tcp.core"] = nil, nil
        collectgarbage()
        modules[#modules + 1] = require("tcp")
        modules[#modules + 1] = require("tcp.core")
        package.loaded = {}
        modules[#modules + 1] = require("tcp")
      end
      print_all(modules)
    ]]
  end)

  it("loading it by what searches for modules", function()
    denies [[
      local modules = { tcp }
      for _, search in ipairs(package.searchers or package.loaders) do
        for _, name in ipairs { "tcp", "tcp.core" } do
          local load, place = search(name)
          if type(load) == "function" then
            modules[#modules + 1] = load(name, place)
          end
        end
      end
      assert(#modules > 2)
      print_all(modules)
    ]]
  end)

  it("loading its library, under whatever name", function()
    local link = os.tmpname()
    os.remove(link)
    finally(function()
      os.remove(link)
    end)
    local library = place_of_library()
    assert(lfs.link(library, link, true))
    denies(([[
      local library, link = %q, %q
      local modules = { tcp }
      for _, path in ipairs { library, link, (library:gsub("/([^/]*)$", "/../%%0/../%%1")) } do
        for _, name in ipairs { "luaopen_tcp", "luaopen_tcp_core" } do
          local load = package.loadlib(path, name)
          modules[#modules + 1] = load and load(name)
        end
      end
      assert(#modules > 4)
      print_all(modules)
    ]]):format(library, link))
  end)

  it("loading it in a coroutine, with other globals", function()
    denies [[
      package.loaded.tcp, package.loaded["tcp.core"] = nil, nil
      local modules = { tcp }
      coroutine.wrap(function()
        if setfenv then
          setfenv(1, setmetatable({}, { __index = _G }))
        end
        modules[#modules + 1] = require("tcp.core")
        modules[#modules + 1] = coroutine.wrap(function() return require("tcp") end)()
      end)()
      collectgarbage()
      print_all(modules)
    ]]
  end)

  it("other functions in the place of Lua's own", function()
    denies [[
      for _, library in ipairs { "string", "table", "math", "coroutine" } do
        for name in pairs(_G[library]) do
          _G[library][name] = function() return "127.0.0.9" end
        end
      end
      debug.setmetatable("", { __index = function() return "127.0.0.9" end, __eq = function() return true end })
      debug.setmetatable(0, { __index = function() return 0 end })
      debug.setmetatable(nil, { __index = function() return "127.0.0.9" end })
      print_all { tcp }
    ]]
  end)
end)

-- What is in the registry, in the same order each time. Without Lua's metatable of files nothing can be printed; and no
-- interpreter lives without its globals and its threads, to which the module has added some.
local KEYS = [[
  local registry, keys = debug.getregistry(), {}
  for key, value in pairs(registry) do
    if key ~= "FILE*" and value ~= _G and type(value) ~= "thread" then
      keys[#keys + 1] = key
    end
  end
  table.sort(keys, function(one, other)
    return type(one) .. tostring(one) < type(other) .. tostring(other)
  end)
]]

describe("a policy is not undone by removing from the registry", function()
  local AND_THEN = [[
    for _ = 1, 5 do
      collectgarbage()
    end
    local modules = { tcp }
    if package and package.loaded then
      package.loaded.tcp, package.loaded["tcp.core"] = nil, nil
    end
    for _, name in ipairs { "tcp", "tcp.core" } do
      local ok, module = pcall(require, name)
      modules[#modules + 1] = ok and type(module) == "table" and module or nil
      for _, load in ipairs(package.searchers or package.loaders) do
        ok, module = pcall(function() return load(name)(name) end)
        modules[#modules + 1] = ok and type(module) == "table" and module or nil
      end
    end
    collectgarbage()
    for _, module in ipairs(modules) do
      local how = try(module)
      assert(how == "denied" or how == "broken", how)
    end
    print("done")
  ]]

  it("any one of its keys", function()
    local count = tonumber((under_attack(KEYS .. "print(#keys)", true)))
    assert.is_true(count > 10)
    for i = 1, count do
      survives(KEYS .. ("registry[keys[%d]] = nil\n"):format(i) .. AND_THEN)
    end
  end)

  it("all that the module has put there", function()
    survives(KEYS .. [[
      for _, key in ipairs(keys) do
        if type(key) == "userdata" or tostring(key):find("^tcp%.") then
          registry[key] = nil
        end
      end
    ]] .. AND_THEN)
  end)

  it("all of its keys", function()
    survives(KEYS .. [[
      for _, key in ipairs(keys) do
        -- Without these, Lua 5.1 cannot collect the garbage that this makes.
        if key ~= "_LOADLIB" then
          registry[key] = nil
        end
      end
    ]] .. AND_THEN)
  end)

  it("anything, and putting other things there", function()
    survives(KEYS .. [[
      for _, key in ipairs(keys) do
        local before = registry[key]
        for _, other in ipairs { true, {}, print, setmetatable({}, { __index = function() return true end }) } do
          registry[key] = other
          local how = try(tcp)
          registry[key] = before
          assert(how == "denied" or how == "broken", how)
        end
      end
      print("done")
    ]])
  end)
end)

describe("a policy is not undone by changing", function()
  local OTHERS = [[
    local others = { false, true, {}, function() end, function(...) return ... end, function() return true end, 0, "" }
    others[#others + 1] = setmetatable({}, {
      __index = function() return function() return true end end, __call = function() return true end })
    local changes = 0
    local connect = tcp.try_connect
    local function check()
      changes = changes + 1
      pcall(connect, "127.0.0.1", PORT, 60)
    end
  ]]
  local AND_THEN = [[
    assert(changes > 100, changes)
    print("done")
  ]]

  it("an upvalue", function()
    survives(OTHERS .. [[
      local all = {}
      walk(function(value, kind)
        if kind == "function" then
          all[#all + 1] = value
        end
      end)
      for _, fn in ipairs(all) do
        local i = 1
        local name, before = debug.getupvalue(fn, i)
        -- Those of functions in C have no name, and are no values of Lua's.
        while name do
          if name ~= "" and type(before) ~= "string" then
            for _, other in ipairs(others) do
              debug.setupvalue(fn, i, other)
              check()
            end
            debug.setupvalue(fn, i, before)
          end
          i = i + 1
          name, before = debug.getupvalue(fn, i)
        end
      end
    ]] .. AND_THEN)
  end)

  it("a field of a table", function()
    survives(OTHERS .. [[
      local all = {}
      walk(function(value, kind)
        if kind == "table" then
          all[#all + 1] = value
        end
      end)
      for _, it in ipairs(all) do
        local keys = {}
        for key, before in next, it do
          keys[#keys + 1] = type(before) ~= "string" and key or nil
        end
        for _, key in ipairs(keys) do
          local before = rawget(it, key)
          for _, other in ipairs(others) do
            rawset(it, key, other)
            check()
          end
          rawset(it, key, before)
        end
      end
    ]] .. AND_THEN)
  end)

  it("a metatable", function()
    survives(OTHERS .. [[
      local all = {}
      walk(function(value, kind)
        if kind == "table" or kind == "function" then
          all[#all + 1] = value
        end
      end)
      for _, it in ipairs(all) do
        local before = debug.getmetatable(it)
        for _, other in ipairs(others) do
          if type(other) == "table" then
            debug.setmetatable(it, other)
            check()
          end
        end
        debug.setmetatable(it, before)
      end
    ]] .. AND_THEN)
  end)

  -- The values that a call has checked are those that it uses.
  it("a local variable while it is used", function()
    survives [[
      tcp.allow { net = { "127.0.0.9" } }
      local ALLOWED, CHANGES = "127.0.0.9", 400
      local count
      local function change()
        count = count - 1
        if count > 0 then
          return
        end
        debug.sethook()
        for level = 2, 20 do
          if not debug.getinfo(level, "l") then
            return
          end
          for i = 1, 200 do
            local name, value = debug.getlocal(level, i)
            if not name then
              break
            elseif value == ALLOWED then
              debug.setlocal(level, i, "127.0.0.1")
            end
          end
        end
      end
      for _, events in ipairs { "l", "c", "r", "" } do
        for at = 1, CHANGES do
          count = at
          debug.sethook(change, events, events == "" and 1 or 0)
          pcall(tcp.try_connect, ALLOWED, PORT, 0)
          debug.sethook()
          if count > 0 then
            break
          end
        end
      end
      print("done")
    ]]
  end)
end)

describe("a policy holds", function()
  -- What the module's functions are made of is called, too, and what has been begun is gone on with.
  it("in every step that connects, listens or sends", function()
    survives [[
      local steps, count = {}, 0
      walk(function(value, kind)
        for name, fn in next, kind == "table" and value or {} do
          if type(fn) == "function" and type(name) == "string" and debug.getinfo(fn, "S").what == "C" then
            steps[name], count = fn, count + 1
          end
        end
      end)
      assert(count > 100 and steps.dial and steps.udp_send_to and steps.outcome)
      local socket = tcp.udp()
      local function call(name, ...)
        local results = { pcall(steps[name], ...) }
        local _, under_way
        pcall(function()
          _, _, under_way = steps.outcome()
        end)
        for _, go_on in ipairs { "dial_on", "listen_on", "udp_on", "udp_send_on", "resolve_on" } do
          pcall(steps[go_on], under_way)
          pcall(steps[go_on], socket, "x", under_way)
        end
        return results
      end
      for _, host in ipairs { "127.0.0.1", "localhost", "127.1" } do
        for name in pairs(steps) do
          if name:find("dial") or name:find("listen") or name:find("serve") or name:find("udp") then
            call(name, host, PORT)
            call(name, host, PORT, {})
            call(name, socket, "x", host, PORT)
          end
        end
      end
      print("done")
    ]]
  end)

  -- Objects are finalized in the opposite order of their making. Some that the module keeps is made to be made anew.
  it("while the state is being closed", function()
    local output, has_met = under_attack([[
      local registry = debug.getregistry()
      local function finalize()
        package.loaded.tcp, package.loaded["tcp.core"] = nil, nil
        for key in pairs(registry) do
          if tostring(key):find("^tcp%.") then
            registry[key] = nil
          end
        end
        local ok, module = pcall(require, "tcp.core")
        io.stdout:write(ok and try(module) or "broken", "\n")
      end
      if newproxy then
        kept = newproxy(true)
        getmetatable(kept).__gc = finalize
      else
        kept = setmetatable({}, { __gc = finalize })
      end
      for key, value in pairs(registry) do
        if type(value) == "userdata" and tostring(key):find("^tcp%.") then
          registry[key] = nil
        end
      end
      collectgarbage()
      collectgarbage()
    ]], true)
    assert.is_false(has_met, output)
    assert.is_true(output == "denied\n" or output == "broken\n", output)
  end)
end)
