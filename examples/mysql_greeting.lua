#!/usr/bin/env lua
-- Prints what a MySQL or MariaDB server says of itself before anybody logs in.
--
-- Usage: lua mysql_greeting.lua [HOST [PORT]]

local tcp = require("tcp")

--- The number that these bytes are, the lowest first.
local function number_at(bytes, first, last)
  local number = 0
  for i = last, first, -1 do
    number = number * 256 + bytes:byte(i)
  end
  return number
end

local function is_set(capabilities, bit)
  return math.floor(capabilities / bit) % 2 == 1
end

--- The server's first packet. A head of 4 bytes comes first: the length of the rest in 3 of them, and a counter.
local function try_read_greeting(host, port)
  local conn, err = tcp.try_connect(host, port, { timeout = 5, read_timeout = 10 })
  if not conn then
    return nil, err
  end
  local head, greeting
  head, err = conn:try_read(4)
  if head then
    greeting, err = conn:try_read(number_at(head, 1, 3))
  end
  conn:close()
  return greeting, err
end

local function fail(...)
  io.stderr:write(...)
  io.stderr:write("\n")
  os.exit(1)
end

local function main()
  local greeting, err = try_read_greeting(arg[1] or "localhost", tonumber(arg[2] or 3306))
  if not greeting then
    fail("no greeting: ", tostring(err))
  elseif greeting:byte() == 255 and #greeting >= 3 then
    fail(("error %d: %s"):format(number_at(greeting, 2, 3), greeting:sub(4)))
  end
  local version, rest = greeting:match("^\10(%Z*)%z(.*)$")
  if not version or #rest < 31 then
    fail("that is not a greeting of MySQL's protocol 10")
  end
  local capabilities = number_at(rest, 14, 15) + number_at(rest, 19, 20) * 65536
  print("version      " .. version)
  print("connection   " .. number_at(rest, 1, 4))
  print("offers TLS   " .. (is_set(capabilities, 0x800) and "yes" or "no"))
  if is_set(capabilities, 0x80000) then
    -- Behind the rest of the challenge that a password is hashed with.
    print("logs in by   " .. (rest:match("^%Z*", 32 + math.max(13, rest:byte(21) - 8)) or "?"))
  end
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
