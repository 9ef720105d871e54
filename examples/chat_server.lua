#!/usr/bin/env lua
-- A chat room: what one client says, all the others get. JSON packets, each with a name and a text.
--
-- Usage: lua chat_server.lua [HOST [PORT]]     and then, twice: lua chat_client.lua NAME 127.0.0.1 7001

local tcp = require("tcp")

-- Each client has a queue of what it is to be sent. Whoever reads too slowly is dropped, so that nobody waits for it.
local BACKLOG = 100
-- What goes on to the others has to fit in their packets: a byte may take six in JSON. Whoever says more has to leave.
local MAX_PACKET, MAX_NAME, MAX_TEXT = 4096, 20, 600
local clients = {}

local function is_text(value, most)
  return type(value) == "string" and #value <= most
end

local function say(name, text, except)
  -- Clients may come and go while a push lets other tasks run: a table must not grow while it is traversed.
  local present = {}
  for conn in pairs(clients) do
    present[#present + 1] = conn
  end
  for _, conn in ipairs(present) do
    local outgoing = clients[conn]
    if outgoing and conn ~= except then
      if outgoing:count() < BACKLOG then
        outgoing:push({ name = name, text = text })
      else
        conn:close()
      end
    end
  end
end

local function send_all(conn, outgoing)
  local message = outgoing:pop()
  while message and conn:try_write_json_packet(message) do
    message = outgoing:pop()
  end
  conn:close()
end

local function talk(conn)
  local hello = conn:try_read_json_packet()
  if type(hello) == "table" and is_text(hello.name, MAX_NAME) then
    local name = hello.name
    clients[conn] = tcp.queue()
    tcp.spawn(send_all, conn, clients[conn])
    say(name, "has come", conn)
    local message = conn:try_read_json_packet()
    while type(message) == "table" and is_text(message.text, MAX_TEXT) do
      say(name, message.text, conn)
      message = conn:try_read_json_packet()
    end
    clients[conn]:close()
    clients[conn] = nil
    say(name, "has gone")
  end
  conn:close()
end

local function main()
  local listener = tcp.listen(arg[1] or "127.0.0.1", tonumber(arg[2] or 7001), { max_packet = MAX_PACKET })
  print("listening on " .. listener:addr())
  io.stdout:flush()

  tcp.run(function()
    while true do
      tcp.spawn(talk, listener:accept())
    end
  end)
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
