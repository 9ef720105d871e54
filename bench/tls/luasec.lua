-- One job of bench/tls.lua, done with LuaSec: `luasec.lua JOB PORT COUNT`. Prints what was done, and the CPU seconds.

local socket = require("socket")
local ssl = require("ssl")

local job, port, count = arg[1], tonumber(arg[2]), tonumber(arg[3])
local CHUNK = 256 * 1024
-- It checks the chain; the name it never does.
local context = assert(ssl.newcontext({ mode = "client", protocol = "any", verify = "peer", options = "all",
  cafile = "build/certificates/ca.pem" }))

local function connect()
  local conn = assert(socket.tcp())
  assert(conn:connect("localhost", port))
  conn:setoption("tcp-nodelay", true)
  conn = assert(ssl.wrap(conn, context))
  conn:sni("localhost")
  assert(conn:dohandshake())
  return conn
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

connect():close()
local before = os.clock()
print(jobs[job](), os.clock() - before)
