#!/usr/bin/env lua
-- Tells how far away a game's server is: datagrams with a number each, and how long each takes to come back. Those that
-- do not come back in time are lost.
--
-- Usage: lua game_ping.lua HOST PORT [COUNT [SECONDS]]
--        lua game_ping.lua serve HOST PORT               the other side

local tcp = require("tcp")

local function serve(host, port)
  local socket = tcp.udp_listen(host, port)
  print("listening on " .. socket:local_addr())
  io.stdout:flush()
  while true do
    local data, from, from_port = socket:recv_from()
    local number = data:match("^ping (%d+)$")
    if number then
      -- Somebody who cannot be answered is no reason to end.
      socket:try_send_to("pong " .. number, from, from_port)
    end
  end
end

--- The seconds that a ping took, or nil and why it did not come back.
local function ping(socket, number, seconds)
  local began = tcp.now()
  local answer, err = socket:try_send("ping " .. number)
  while answer and answer ~= "pong " .. number do
    -- What else comes is the answer to an earlier ping, and too late.
    answer, err = socket:try_recv{ timeout = math.max(0, began + seconds - tcp.now()) }
  end
  return answer and tcp.now() - began, err
end

local function main()
  if arg[1] == "serve" then
    serve(arg[2], tonumber(arg[3]))
  end
  local host, port = arg[1] or "localhost", tonumber(arg[2] or 27015)
  local count, seconds = tonumber(arg[3] or 4), tonumber(arg[4] or 1)
  local socket, err = tcp.try_udp(host, port)
  if not socket then
    io.stderr:write(tostring(err), "\n")
    os.exit(1)
  end
  local came, least, most, sum = 0, math.huge, 0, 0
  for number = 1, count do
    local took, problem = ping(socket, number, seconds)
    if took then
      came, least, most, sum = came + 1, math.min(least, took), math.max(most, took), sum + took
      print(("%d: %.1f ms"):format(number, took * 1000))
    else
      print(("%d: %s"):format(number, problem.kind == "timeout" and "lost" or problem.kind))
    end
  end
  socket:close()
  print(("%d of %d came back"):format(came, count))
  if came == 0 then
    os.exit(1)
  end
  print(("%.1f ms at least, %.1f on average, %.1f at most"):format(least * 1000, sum / came * 1000, most * 1000))
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
