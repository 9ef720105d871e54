-- TLS against LuaSec, in turn, from and to the same server: what the client costs.
--
-- Usage: lua bench/tls.lua [ROUNDS]; see tools/bench-tls.sh

local rounds = tonumber(arg[1] or 7)

local JOBS = {
  { name = "handshake", count = 500, unit = "us", goal = "full handshakes: CPU of one" },
  { name = "receive", count = 512 * 2 ^ 20, unit = "MB/s", goal = "receiving 512 MiB: MB per CPU second" },
  { name = "send", count = 512 * 2 ^ 20, unit = "MB/s", goal = "sending 512 MiB: MB per CPU second" },
}

local server = assert(io.popen("echo $$; exec target/release/examples/bench-peer tls", "r"))
local pid, port = server:read("*l"), server:read("*l")

--- CPU microseconds for one, or megabytes for a CPU second; and megabytes for a second.
local function measure(lua, contender, job)
  local folder = lua:gsub("%.", "")
  local process = assert(io.popen(("LUA_CPATH='./build/%s/?.so;;' %s bench/tls/%s.lua %s %s %d"):format(folder, lua,
    contender, job.name, port, job.count)))
  local done, cpu = process:read("*n", "*n")
  process:close()
  assert(done == job.count, contender .. " has not done its work")
  return job.unit == "us" and cpu / done * 1e6 or done / cpu / 1e6
end

local function median(list)
  table.sort(list)
  return list[math.floor(#list / 2) + 1]
end

for _, job in ipairs(JOBS) do
  print(("%s, %d rounds: median (lowest-highest)"):format(job.goal, rounds))
  for _, lua in ipairs { "lua5.4", "luajit" } do
    local ours, theirs = {}, {}
    for round = 1, rounds do
      ours[round] = measure(lua, "tcp", job)
      theirs[round] = measure(lua, "luasec", job)
    end
    local a, b = median(ours), median(theirs)
    print(("  %-7s tcp %7.0f (%.0f-%.0f)  LuaSec %7.0f (%.0f-%.0f) %s  %.2f of LuaSec"):format(lua, a, ours[1],
      ours[rounds], b, theirs[1], theirs[rounds], job.unit, a / b))
  end
end
os.execute("kill " .. pid)
server:close()
