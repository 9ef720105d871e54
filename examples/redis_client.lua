#!/usr/bin/env lua
-- Sends one command to a Redis server: lines for the types, exact reads for the values.
--
-- Usage: lua redis_client.lua HOST PORT COMMAND [ARGUMENT ...]

local tcp = require("tcp")

--- The command in Redis' own protocol: an array of byte strings.
local function request(...)
  local words = { ... }
  local parts = { ("*%d\r\n"):format(#words) }
  for _, word in ipairs(words) do
    parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#word, word)
  end
  return parts
end

local function read_reply(conn)
  local line = conn:read_line()
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == "-" then
    return "error: " .. rest
  elseif kind == "$" and rest ~= "-1" then
    local value = conn:read(tonumber(rest))
    conn:read_line()
    return value
  elseif kind == "*" then
    local list = {}
    for i = 1, tonumber(rest) do
      list[i] = read_reply(conn)
    end
    return table.concat(list, "\n")
  end
  return kind == "$" and "(nil)" or rest
end

local function main()
  local unpack = table.unpack or unpack
  local conn = tcp.connect(arg[1] or "localhost", tonumber(arg[2] or 6379))
  conn:set_timeout(5)
  conn:write(request(unpack(arg, 3)))
  local reply = read_reply(conn)
  conn:close()
  print(reply)
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
