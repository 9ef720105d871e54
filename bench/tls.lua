-- TLS clients against LuaSec's, in turn, from and to the same servers: what the client costs.
--
-- Usage: LUA_PATH="bench/?.lua;;" lua5.4 bench/tls.lua [ROUNDS [SCALE]]; see tools/bench-tls.sh
--
-- A full handshake is one with a server that never resumes; a client that looks sees that it has not. A ticket of TLS
-- 1.3 comes after the handshake: whoever wants to resume has to read, so each of these connections fetches a byte.
-- LuaSec keeps no sessions: its handshakes are full there too.

local measure = require("measure")

local rounds, scale = tonumber(arg[1] or 7), tonumber(arg[2] or 1)
local HANDSHAKES, MEGABYTES = math.ceil(500 * scale), math.ceil(512 * scale)

local JOBS = {
  { "full", "TLSv1.3", HANDSHAKES, goal = -0.5, title = "full handshake" },
  { "full", "TLSv1.2", HANDSHAKES, goal = -0.5, title = "full handshake" },
  { "resumed", "TLSv1.3", HANDSHAKES, goal = -0.3, title = "resumed handshake and a byte, LuaSec's full" },
  { "resumed", "TLSv1.2", HANDSHAKES, goal = -0.3, title = "resumed handshake and a byte, LuaSec's full" },
  { "receive", "TLSv1.3", MEGABYTES << 20, goal = 3, title = ("receiving %d MiB"):format(MEGABYTES) },
  { "send", "TLSv1.3", MEGABYTES << 20, goal = 3, title = ("sending %d MiB"):format(MEGABYTES) },
}

local plain <close> = measure.start("exec " .. measure.PEER .. " tls")
local ticketing <close> = measure.start("exec " .. measure.PEER .. " tls tickets")

--- CPU microseconds for one, or megabytes for a CPU second; then the same of wall time.
local function run(lua, contender, job)
  local name, protocol, count = table.unpack(job)
  local server = name == "resumed" and ticketing or plain
  local process = assert(io.popen(measure.command(lua, ("bench/tls/%s.lua"):format(contender), name, protocol,
    server.port, count)))
  local done, cpu, wall = process:read("*n", "*n", "*n")
  process:close()
  assert(done == count, contender .. " has not done its work")
  if job.goal < 0 then
    return cpu / done * 1e6, wall / done * 1e6
  end
  return done / cpu / 1e6, done / wall / 1e6
end

for _, job in ipairs(JOBS) do
  print(("%s, %s: %s, %d rounds: median (lowest-highest)"):format(job[2], job.title,
    job.goal < 0 and "us of CPU for one [of wall time]" or "MB for a CPU second [for a second]", rounds))
  for _, lua in ipairs(measure.LUAS) do
    local cpu, wall = { tcp = {}, luasec = {} }, { tcp = {}, luasec = {} }
    for round = 1, rounds do
      for _, contender in ipairs { "tcp", "luasec" } do
        cpu[contender][round], wall[contender][round] = run(lua, contender, job)
      end
    end
    local ours, our_text = measure.median(cpu.tcp, "%.0f")
    local theirs, their_text = measure.median(cpu.luasec, "%.0f")
    print(("  %-7s tcp %s [%.0f]  LuaSec %s [%.0f]  %.2f of LuaSec, %s"):format(lua, our_text,
      (measure.median(wall.tcp, "%.0f")), their_text, (measure.median(wall.luasec, "%.0f")), ours / theirs,
      measure.verdict(ours / theirs, job.goal)))
  end
end
