-- One job of bench/tls.lua, done with this module: `tcp.lua JOB PROTOCOL PORT COUNT`. Prints what was done, the CPU
-- seconds and the seconds.

local tcp = require("tcp.core")

local job, protocol, port, count = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
local options = { tls = { ca_bundle = "build/certificates/ca.pem", sni = "localhost", protocols = { protocol } } }
local CHUNK = 256 * 1024

local function connect(resumed)
  local conn = tcp.connect_tls("127.0.0.1", port, options)
  assert(conn:protocol() == protocol and conn:resumed() == resumed, "not the handshake that was meant")
  return conn
end

local function fetch_a_byte(conn)
  conn:write("receive 1\n")
  assert(conn:read(1) == "x")
  conn:close()
end

local jobs = {}

function jobs.full()
  for _ = 1, count do
    connect(false):close()
  end
  return count
end

function jobs.resumed()
  for _ = 1, count do
    fetch_a_byte(connect(true))
  end
  return count
end

function jobs.receive()
  local conn, got = connect(false), 0
  conn:write("receive " .. count .. "\n")
  local chunk = conn:recv(CHUNK)
  while chunk do
    got = got + #chunk
    chunk = conn:recv(CHUNK)
  end
  conn:close()
  return got
end

function jobs.send()
  local conn, chunk = connect(false), ("x"):rep(CHUNK)
  conn:write("send " .. count .. "\n")
  for _ = 1, count / CHUNK do
    conn:write(chunk)
  end
  assert(conn:read(2) == "ok")
  conn:close()
  return count
end

fetch_a_byte(connect(false))
local cpu, wall = os.clock(), tcp.now()
print(jobs[job](), os.clock() - cpu, tcp.now() - wall)
