-- What the measurements share: medians with their spread, processes, and the CPU seconds of these.

local M = {}

M.PEER = "target/release/examples/bench-peer"
M.LUAS = { "lua5.4", "luajit" }

--- How a script is run: with the module that was built for this Lua. Debian has copas for 5.1 and 5.2 alone, but it is
-- plain Lua.
function M.command(lua, script, ...)
  local folder = lua:gsub("%.", "")
  return ("LUA_CPATH='./build/%s/?.so;;' LUA_PATH='bench/?.lua;;/usr/share/lua/5.2/?.lua' exec %s %s"):format(folder,
    lua, table.concat({ script, ... }, " "))
end

--- A server that prints its port: { pid, port }, to be kept in a `<close>` variable.
function M.start(command)
  local process = assert(io.popen("echo $$; " .. command, "r"))
  local server = { pid = process:read("*l"), port = process:read("*l") }
  assert(server.port, command .. " has not begun")
  return setmetatable(server, {
    __close = function()
      os.execute("kill " .. server.pid)
      process:close()
    end,
  })
end

--- The seconds that a process has computed so far, in steps of 10 ms.
function M.cpu(pid)
  local file = assert(io.open("/proc/" .. pid .. "/stat"))
  local user, system = file:read("*a"):match("%) %S+ " .. ("%S+ "):rep(10) .. "(%d+) (%d+)")
  file:close()
  return (user + system) / 100
end

--- The median, and `median (lowest-highest)`, each number written by `format`.
function M.median(list, format)
  table.sort(list)
  local middle = list[math.floor(#list / 2) + 1]
  return middle, (format .. " (" .. format .. "-" .. format .. ")"):format(middle, list[1], list[#list])
end

--- `goal <= 0.5: met`; what is below zero is a ceiling.
function M.verdict(ratio, goal)
  local met = goal < 0 and ratio <= -goal or goal > 0 and ratio >= goal
  return ("goal %s %g: %s"):format(goal < 0 and "<=" or ">=", math.abs(goal), met and "met" or "MISSED")
end

return M
