-- One job of bench/tls.lua, done with LuaSec: `luasec.lua JOB PROTOCOL PORT COUNT`. Prints what was done, the CPU
-- seconds and the seconds.

local socket = require("socket")
local ssl = require("ssl")

local job, protocol, port, count = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
local CHUNK = 256 * 1024
-- It checks the chain; the name it never does.
local context = assert(ssl.newcontext({ mode = "client", protocol = protocol:lower():gsub("%.", "_"), verify = "peer",
  options = "all", cafile = "build/certificates/ca.pem", ciphersuites = "TLS_AES_128_GCM_SHA256",
  cipher = "ECDHE-ECDSA-AES128-GCM-SHA256" }))

local function connect()
  local conn = assert(socket.tcp())
  assert(conn:connect("127.0.0.1", port))
  conn:setoption("tcp-nodelay", true)
  conn = assert(ssl.wrap(conn, context))
  conn:sni("localhost")
  assert(conn:dohandshake())
  return conn
end

local function fetch_a_byte(conn)
  assert(conn:send("receive 1\n"))
  assert(conn:receive(1) == "x")
  conn:close()
end

local jobs = {}

function jobs.full()
  for _ = 1, count do
    connect():close()
  end
  return count
end

--- It cannot resume: a full one.
function jobs.resumed()
  for _ = 1, count do
    fetch_a_byte(connect())
  end
  return count
end

function jobs.receive()
  local conn, got = connect(), 0
  assert(conn:send("receive " .. count .. "\n"))
  repeat
    local chunk, _, partial = conn:receive(CHUNK)
    got = got + #(chunk or partial)
  until not chunk
  conn:close()
  return got
end

function jobs.send()
  local conn, chunk = connect(), ("x"):rep(CHUNK)
  assert(conn:send("send " .. count .. "\n"))
  for _ = 1, count / CHUNK do
    assert(conn:send(chunk))
  end
  assert(conn:receive(2) == "ok")
  conn:close()
  return count
end

local first = connect()
assert(first:info("protocol") == protocol)
fetch_a_byte(first)
local cpu, wall = os.clock(), socket.gettime()
print(jobs[job](), os.clock() - cpu, socket.gettime() - wall)
