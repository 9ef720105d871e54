#!/usr/bin/env lua
-- Sends a request as a JSON packet (4-byte length, then the text) and prints the answer.
--
-- Usage: lua json_request.lua HOST PORT [COMMAND]

local tcp = require("tcp")

local function main()
  local host, port = arg[1] or "localhost", tonumber(arg[2] or 8080)

  local conn = tcp.connect(host, port, { timeout = 5, read_timeout = 10 })
  conn:write_json_packet({ command = arg[3] or "update", values = { 10, 20, 30 } })

  local answer, err = conn:try_read_json_packet()
  conn:close()
  if not answer then
    io.stderr:write("no answer: " .. err .. "\n")
    os.exit(1)
  end
  print(tcp.json.encode(answer, { pretty = true }))
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
