#!/usr/bin/env lua
-- Joins the room of chat_server.lua: one task prints what others say, another sends what is typed.
--
-- Usage: lua chat_client.lua NAME [HOST [PORT]]     ends with Ctrl-D

local tcp = require("tcp")

local function main()
  local name = arg[1] or "anonymous"
  local conn = tcp.connect(arg[2] or "127.0.0.1", tonumber(arg[3] or 7001))
  conn:write_json_packet({ name = name })

  local function listen()
    local message, err = conn:try_read_json_packet()
    while message do
      print(message.name .. ": " .. message.text)
      io.stdout:flush()
      message, err = conn:try_read_json_packet()
    end
    if not tcp.is_error(err, "cancelled") then
      print("the server has gone: " .. err)
      os.exit(1)
    end
  end

  local listening = tcp.spawn(listen)

  tcp.run(function()
    local keyboard = tcp.stdin()
    local line = keyboard:try_read_line()
    while line do
      conn:write_json_packet({ text = line })
      line = keyboard:try_read_line()
    end
    listening:cancel()
  end)
  conn:close()
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
