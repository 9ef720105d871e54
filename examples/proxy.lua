#!/usr/bin/env lua
-- Passes everything on to another server, both ways. An end is passed on as an end, so that either side may go on after
-- the other has said all; and a connection that broke as one that broke, so that nobody takes a part for the whole.
--
-- Usage: lua proxy.lua HOST PORT TARGET_HOST TARGET_PORT

local tcp = require("tcp")

local target_host, target_port = arg[3], tonumber(arg[4])
if not target_port then
  io.stderr:write("usage: lua proxy.lua HOST PORT TARGET_HOST TARGET_PORT\n")
  os.exit(2)
end

--- Closes a connection so that the other side sees a reset.
local function break_off(conn)
  conn:try_set_option("linger", 0)
  conn:close()
end

--- Passes on what comes from one side to the other, up to its end. Gives how many bytes that were.
local function pass_on(from, to, ending)
  local bytes, err = tcp.try_copy(from, to)
  if bytes then
    to:try_shutdown("send")
    return bytes
  end
  -- The other direction ends with this one: what broke first is the reason.
  ending.problem = ending.problem or err
  break_off(from)
  break_off(to)
  return err.written or 0
end

local function handle(client)
  local server, err = tcp.try_connect(target_host, target_port, 5)
  if not server then
    print(client:remote_addr() .. ": " .. err)
    break_off(client)
    return
  end
  local ending = {}
  local sending = tcp.spawn(pass_on, client, server, ending)
  local received = pass_on(server, client, ending)
  local sent = sending:join()
  server:close()
  print(("%s: %d bytes sent, %d received"):format(client:remote_addr(), sent, received)
    .. (ending.problem and ", then " .. ending.problem or ""))
end

local function main()
  local server = tcp.serve(arg[1], tonumber(arg[2]), handle)
  io.stdout:setvbuf("line")
  print("listening on " .. server:addr())
  tcp.run()
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
