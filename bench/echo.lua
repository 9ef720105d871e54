-- Echo servers under the same load, in turn: round trips per second and the servers' CPU seconds.
--
-- Usage: lua bench/echo.lua [ROUNDS [SECONDS]]; see tools/bench-echo.sh

local rounds, seconds = tonumber(arg[1] or 5), tonumber(arg[2] or 2)

local PEER = "target/release/examples/bench-peer"
local CONNECTIONS = { 1, 100, 1000 }

local SERVERS = { { name = "epoll loop", command = "exec " .. PEER .. " echo" } }
for _, lua in ipairs { "lua5.4", "luajit" } do
  for _, peer in ipairs { "tcp", "luv", "cqueues" } do
    local folder = lua:gsub("%.", "")
    local command = ("LUA_CPATH='./build/%s/?.so;;' exec %s bench/echo/%s.lua"):format(folder, lua, peer)
    SERVERS[#SERVERS + 1] = { name = peer .. ", " .. lua, command = command }
  end
end

local function cpu_of(pid)
  local file = assert(io.open("/proc/" .. pid .. "/stat"))
  local user, system = file:read("*a"):match("%) %S+ " .. ("%S+ "):rep(10) .. "(%d+) (%d+)")
  file:close()
  return (user + system) / 100
end

local function measure(server, connections)
  local process = assert(io.popen("echo $$; ulimit -n 4096; " .. server.command, "r"))
  local pid, port = process:read("*l"), process:read("*l")
  local before = cpu_of(pid)
  local load = assert(io.popen(("ulimit -n 4096; %s load %s %d %g"):format(PEER, port, connections, seconds)))
  local rate = assert(tonumber(load:read("*l")), server.name .. " failed")
  load:close()
  local cpu = cpu_of(pid) - before
  os.execute("kill " .. pid)
  process:close()
  return rate, cpu / (rate * seconds * 1.2) * 1e6
end

local function median(list)
  table.sort(list)
  return list[math.floor(#list / 2) + 1]
end

for _, connections in ipairs(CONNECTIONS) do
  local rates, costs = {}, {}
  for _, server in ipairs(SERVERS) do
    rates[server.name], costs[server.name] = {}, {}
  end
  for round = 1, rounds do
    for _, server in ipairs(SERVERS) do
      rates[server.name][round], costs[server.name][round] = measure(server, connections)
    end
  end
  print(("%d connections, %d rounds of %g s: trips per second (lowest-highest), CPU per trip"):format(
    connections, rounds, seconds))
  for _, server in ipairs(SERVERS) do
    local list = rates[server.name]
    local middle = median(list)
    print(("  %-18s %8.0f (%.0f-%.0f)  %5.2f us  %.2f of the epoll loop%s"):format(server.name, middle, list[1],
      list[#list], median(costs[server.name]), middle / median(rates["epoll loop"]),
      server.name:find("^tcp") and (", %.2f of luv"):format(middle / median(rates[server.name:gsub("tcp", "luv")]))
      or ""))
  end
end
