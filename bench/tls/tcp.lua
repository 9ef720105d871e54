-- One job of bench/tls.lua, done with this module: `tcp.lua JOB PORT COUNT`. Prints what was done, and the CPU seconds.

local tcp = require("tcp.core")

local job, port, count = arg[1], tonumber(arg[2]), tonumber(arg[3])
local options = { tls = { ca_bundle = "build/certificates/ca.pem" } }
local CHUNK = 256 * 1024

local function connect()
  return tcp.connect_tls("localhost", port, options)
end

local jobs = {}

function jobs.handshake()
  for _ = 1, count do
    connect():close()
  end
  return count
end

function jobs.receive()
  local conn, got = connect(), 0
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
  local conn, chunk = connect(), ("x"):rep(CHUNK)
  conn:write("send " .. count .. "\n")
  for _ = 1, count / CHUNK do
    conn:write(chunk)
  end
  assert(conn:read(2) == "ok")
  conn:close()
  return count
end

connect():close()
local before = os.clock()
print(jobs[job](), os.clock() - before)
