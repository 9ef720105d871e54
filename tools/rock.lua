#!/usr/bin/env lua
-- Builds, installs and tests the module for the interpreter that runs this script.
--
-- Usage: lua tools/rock.lua build
--        lua tools/rock.lua install LIBDIR
--        lua tools/rock.lua test [busted's arguments]
--
-- LuaRocks calls it through the rockspec, and the Makefile for each interpreter. It needs cargo, and for `test`
-- busted, which may be a rock or the system's package.

local interpreter = arg[-1] or "lua"
local windows = package.config:sub(1, 1) == "\\"
local feature = jit and "luajit" or "lua" .. _VERSION:match("%d+%.%d+"):gsub("%.", "")
local folder = "build/" .. feature
local library = folder .. (windows and "/tcp.dll" or "/tcp.so")

local function fail(...)
  io.stderr:write("tcp: ", string.format(...), "\n")
  os.exit(1)
end

local function quote(word)
  if windows then
    return '"' .. word .. '"'
  end
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

local function run(command)
  local ok, _, code = os.execute(command)
  -- Lua 5.1 gives the status alone.
  if ok == 0 or ok == true then
    return
  end
  fail("this command failed%s: %s", type(code) == "number" and " (" .. code .. ")" or "", command)
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then
    file:close()
  end
  return file ~= nil
end

local function copy(from, to)
  local source = io.open(from, "rb") or fail("%s is missing", from)
  local bytes = source:read("*a")
  source:close()
  -- A new file instead of the old one's bytes: a process may have the old one loaded.
  os.remove(to)
  local target, reason = io.open(to, "wb")
  if not target then
    fail("%s", reason)
  end
  target:write(bytes)
  target:close()
end

local function make_folder(path)
  if windows then
    os.execute("if not exist " .. quote(path:gsub("/", "\\")) .. " mkdir " .. quote(path:gsub("/", "\\")))
  else
    run("mkdir -p " .. quote(path))
  end
end

local TARGET = "target/release/"
local LIBRARIES = { "libtcp.so", "libtcp.dylib", "tcp.dll" }

local function built_library()
  for _, name in ipairs(LIBRARIES) do
    if exists(TARGET .. name) then
      return TARGET .. name
    end
  end
  fail("cargo has built no library in %s: is CARGO_BUILD_TARGET set, or build.target in cargo's configuration?", TARGET)
end

-- LuaRocks tells which compiler it would take. Where that is the usual one it is not handed on: cargo would build all
-- that is C anew, each time that LuaRocks calls and each time that somebody else does.
local cargo = not windows and os.getenv("CC") == "gcc" and "env -u CC cargo" or "cargo"

local commands = {}

function commands.build()
  -- What an earlier build left must not be taken for this one's, should cargo be told to build elsewhere.
  for _, name in ipairs(LIBRARIES) do
    os.remove(TARGET .. name)
  end
  run(cargo .. " build --release --locked --lib --target-dir target --features " .. feature)
  make_folder(folder)
  copy(built_library(), library)
end

function commands.install(directory)
  if not directory then
    fail("install needs a directory")
  end
  make_folder(directory)
  copy(library, directory .. (windows and "/tcp.dll" or "/tcp.so"))
end

local function busted()
  for _, path in ipairs { os.getenv("BUSTED") or "", "/usr/bin/busted", "/usr/local/bin/busted" } do
    if exists(path) then
      return quote(path)
    end
  end
  local loader = io.popen(quote(interpreter) .. [[ -e "print(pcall(require, 'busted.runner'))" 2>&1]])
  local found = loader:read("*a"):match("^true")
  loader:close()
  if not found then
    fail("busted is missing: install the package lua-busted, or the rock busted")
  end
  return [[-e "require('busted.runner')({ standalone = false })"]]
end

function commands.test(...)
  commands.build()
  run(cargo .. " build --release --locked --example peer --target-dir target")
  if not windows then
    run("tools/certificates.sh build/certificates")
  end
  local words = { quote(interpreter), busted() }
  for _, word in ipairs { ... } do
    words[#words + 1] = quote(word)
  end
  -- The specs hold thousands of connections.
  local limit = "ulimit -S -n 8192 2>/dev/null || ulimit -S -n $(ulimit -H -n); "
  local environment = ("LUA_CPATH=%s TCP_LUA=%s "):format(quote("./" .. folder .. "/?.so;;"), quote(interpreter))
  run((windows and "" or limit .. environment) .. table.concat(words, " "))
end

local command = commands[arg[1]]
if not command then
  fail("one of build, install and test is expected")
end
command(select(2, ...))
