-- TLS servers under the same load, in turn: full handshakes, and lines sent back; what the server costs.
--
-- Usage: LUA_PATH="bench/?.lua;;" lua5.4 bench/tls_servers.lua [ROUNDS [SECONDS]]; see tools/bench-tls.sh
--
-- The load shares the machine with the server, and with few cores limits the rates: the CPU time tells more.

local measure = require("measure")

local rounds, seconds = tonumber(arg[1] or 5), tonumber(arg[2] or 2)

local GOAL = 2
local LOADS = {
  { "handshakes", 16, title = "full handshakes, each with a line sent back, 16 at once" },
  { "echo", 1, title = "lines of 64 bytes sent back, 1 connection" },
  { "echo", 100, title = "lines of 64 bytes sent back, 100 connections" },
}
local CONTENDERS = {
  { "tcp", script = "tcp" },
  { "LuaSec + copas", script = "copas", needs = "copas", package = "lua-copas" },
  { "cqueues", script = "cqueues", needs = "openssl.ssl.context", package = "lua-luaossl" },
}

--- The contenders that can be had on this Lua; the others are named.
local function present(lua)
  local list = {}
  for _, contender in ipairs(CONTENDERS) do
    if not contender.needs or os.execute(measure.command(lua, ("-e 'require(%q)' 2>/dev/null"):format(contender.needs)))
    then
      list[#list + 1] = contender
    else
      print(("%s on %s is left out: it needs the package %s"):format(contender[1], lua, contender.package))
    end
  end
  return list
end

--- How many a second, and the server's CPU microseconds for one.
local function run(lua, contender, load)
  local server <close> = measure.start(measure.command(lua, ("bench/tls/servers/%s.lua"):format(contender.script)))
  local process = assert(io.popen(("%s load-tls %s %s %d %g"):format(measure.PEER, load[1], server.port, load[2],
    seconds)))
  assert(process:read("*l") == "begun", contender[1] .. " has failed")
  local before = measure.cpu(server.pid)
  local rate, done = process:read("*n", "*n")
  local cpu = measure.cpu(server.pid) - before
  assert(process:close() and done > 0, contender[1] .. " has failed")
  return rate, cpu / done * 1e6
end

local function report(lua, contenders, load)
  local rates, costs = {}, {}
  for _, contender in ipairs(contenders) do
    rates[contender], costs[contender] = {}, {}
  end
  for round = 1, rounds do
    for _, contender in ipairs(contenders) do
      rates[contender][round], costs[contender][round] = run(lua, contender, load)
    end
  end
  local our_rate, our_cost
  for _, contender in ipairs(contenders) do
    local rate, rate_text = measure.median(rates[contender], "%.0f")
    local cost, cost_text = measure.median(costs[contender], "%.1f")
    local line = ("  %-7s %-14s %s  %s us"):format(lua, contender[1], rate_text, cost_text)
    if our_rate then
      line = line .. ("  tcp: %.2f times the rate, %s; %.2f times for a CPU second, %s"):format(our_rate / rate,
        measure.verdict(our_rate / rate, GOAL), cost / our_cost, measure.verdict(cost / our_cost, GOAL))
    else
      our_rate, our_cost = rate, cost
    end
    print(line)
  end
end

local contenders = {}
for _, lua in ipairs(measure.LUAS) do
  contenders[lua] = present(lua)
end
for _, load in ipairs(LOADS) do
  print(("TLSv1.3, %s, %d rounds of %g s: a second (lowest-highest), the server's CPU for one"):format(load.title,
    rounds, seconds))
  for _, lua in ipairs(measure.LUAS) do
    report(lua, contenders[lua], load)
  end
end
