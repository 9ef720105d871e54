-- What most specs need.

local assert = require("luassert")
local tcp = require("tcp.core")
local peers = require("support.peers")

local support = {}

--- Connects to a new peer that plays the given actions. A table without a name in front is for `connect`.
function support.connect_to(first, ...)
  if type(first) == "table" and first[1] == nil then
    local peer = peers.start(...)
    return tcp.connect(peer.host, peer.port, first), peer
  end
  local peer = peers.start(first, ...)
  return tcp.connect(peer.host, peer.port), peer
end

--- Whether the interpreter finds a module, without loading it here.
function support.has_module(name)
  return support.child(("print((pcall(require, %q)))"):format(name)) == "true\n"
end

--- Asserts that a `try_` form answered nil and an error object of this kind, and gives the object.
function support.fails(kind, value, err)
  assert.is_nil(value)
  assert.is_true(tcp.is_error(err), "an error object expected, got " .. tostring(err))
  assert.equal(kind, err.kind, tostring(err))
  return err
end

--- Gives what a call that has to raise an error object of this kind raises.
function support.raises(kind, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok, "nothing was raised")
  return support.fails(kind, nil, err)
end

--- Asserts that a call raises a string that ends with `text` after the position of the call.
function support.misuse(text, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok, "misuse was accepted: " .. text)
  assert.equal("string", type(err))
  assert.equal(text, (err:gsub("^[^:]+:%d+: ", "")))
end

-- The interpreter that runs the specs: tools/rock.lua tells.
local LUA = os.getenv("TCP_LUA") or "lua"
support.LUA = LUA

local function read_all(command)
  local process = assert(io.popen(command, "r"))
  local output = process:read("*a")
  process:close()
  return output
end

--- Writes a script into a file that is gone after `use(path)`.
local function with_script(text, use)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  local ok, result = pcall(use, path)
  os.remove(path)
  if not ok then
    error(result, 0)
  end
  return result
end

--- Runs a script in an interpreter of its own and gives what it printed, errors included, and ` exit N` if it
--- failed. `prefix` are words of the shell in front. With `times`, so often, one after the other.
function support.child(script, prefix, times)
  return with_script(script, function(path)
    local command = ("%s %s %s 2>&1 || echo exit $?"):format(prefix or "", LUA, path)
    if times then
      command = ("for i in $(seq %d); do %s; done"):format(times, command)
    end
    return read_all(command)
  end)
end

--- The same for a process that is under way: `use` gets its output as a file, and its id.
function support.with_child(script, use, prefix)
  return with_script(script, function(path)
    local process = assert(io.popen(("echo $$; exec %s %s %s 2>&1"):format(prefix or "", LUA, path), "r"))
    local pid = process:read("*l")
    local ok, err = pcall(use, process, pid)
    os.execute("kill -9 " .. pid .. " 2>/dev/null")
    process:close()
    if not ok then
      error(err, 0)
    end
  end)
end

--- Calls `use` with words of the shell that put these texts, by path, in the place of the system's own files. They need
-- a mount namespace of their own. `setup`: commands for the network namespace that they then have, too.
function support.with_files(texts, use, setup)
  local commands, paths = { setup }, {}
  for name, text in pairs(texts) do
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    paths[#paths + 1] = path
    commands[#commands + 1] = ("mount --bind %s %s"):format(path, name)
  end
  local namespaces = setup and "unshare -rmn" or "unshare -m"
  local prefix = ("%s sh -c '%s && exec \"$@\"' sh"):format(namespaces, table.concat(commands, " && "))
  local ok, result = pcall(use, prefix)
  for _, path in ipairs(paths) do
    os.remove(path)
  end
  if not ok then
    error(result, 0)
  end
  return result
end

--- The same for words that make the system's resolver ask the name server at `address`, and wait for it.
function support.with_nameserver(address, use)
  local text = "nameserver " .. address .. "\noptions timeout:30 attempts:1\n"
  return support.with_files({ ["/etc/resolv.conf"] = text }, use)
end

--- Waits until a process sleeps in the kernel, where a signal has to reach it.
function support.wait_until_asleep(pid)
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

--- Whether a command of the shell succeeds here.
function support.succeeds(command)
  return read_all("{ " .. command .. "; } >/dev/null 2>&1 && echo yes") == "yes\n"
end

--- Iterates over what a `try_` method gives until nil. For Lua 5.1, too, where an iterator may not wait.
function support.each(conn, method)
  return function()
    return (conn[method](conn))
  end
end

return support
