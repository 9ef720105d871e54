#!/usr/bin/env lua
-- Asks a name server for the IPv4 addresses of a name: a datagram there and one back (RFC 1035, section 4).
--
-- Usage: lua dns_query.lua SERVER PORT NAME [SECONDS]

local tcp = require("tcp")

local ATTEMPTS = 3

--- What a function gives that may fail, or the end with its reason.
local function check(value, reason)
  if not value then
    error(reason, 0)
  end
  return value
end

--- The number that two bytes are.
local function number_at(bytes, at)
  local high, low = bytes:byte(at, at + 1)
  check(low, "the answer is cut off")
  return high * 256 + low
end

local function query_for(name)
  local labels = (name:gsub("%.$", "") .. "."):gsub("([^.]*)%.", function(label)
    check(#label >= 1 and #label <= 63, "that is not a name")
    return string.char(#label) .. label
  end)
  -- Nobody is to guess the id that an answer has to have.
  local random = check(io.open("/dev/urandom", "rb"))
  local id = random:read(2)
  random:close()
  -- The server may ask others; one question: the addresses (type 1) of a name in the Internet (class 1).
  return id .. "\1\0\0\1\0\0\0\0\0\0" .. labels .. "\0\0\1\0\1"
end

--- The first answer with the query's id and question. Any other is late, or a lie.
local function ask(socket, query, seconds)
  local answer, err
  for _ = 1, ATTEMPTS do
    check(socket:try_send(query))
    local patience = tcp.now() + seconds
    repeat
      answer, err = socket:try_recv{ timeout = math.max(0, patience - tcp.now()) }
      if answer and answer:sub(1, 2) == query:sub(1, 2) and answer:sub(13, #query) == query:sub(13) then
        return answer
      end
    until err or tcp.now() > patience
  end
  error(err or "nothing but other answers came", 0)
end

--- Prints what stands in the records at this position, and gives how many there are.
local function print_addresses(answer, at)
  local flags, found = number_at(answer, 3), 0
  check(math.floor(flags / 512) % 2 == 0, "the answer is too long for a datagram")
  check(flags % 16 ~= 3, "there is no such name")
  check(flags % 16 == 0, "the server answers with code " .. flags % 16)
  for _ = 1, number_at(answer, 7) do
    -- The record's name: labels behind their lengths, up to an empty one or a pointer to where the rest stands.
    while answer:byte(at) ~= 0 and number_at(answer, at) < 0xc000 do
      at = at + 1 + answer:byte(at)
    end
    at = at + (answer:byte(at) == 0 and 1 or 2)
    local kind, length = number_at(answer, at), number_at(answer, at + 8)
    at = at + 10 + length
    check(#answer >= at - 1, "the answer is cut off")
    if kind == 1 and length == 4 then
      print(table.concat({ answer:byte(at - 4, at - 1) }, "."))
      found = found + 1
    end
  end
  return found
end

local server, port, name, seconds = arg[1], tonumber(arg[2]), arg[3], tonumber(arg[4] or 2)
local ok, problem = pcall(function()
  check(name, "usage: lua dns_query.lua SERVER PORT NAME [SECONDS]")
  local query = query_for(name)
  local socket = check(tcp.try_udp(server, port))
  local answer = ask(socket, query, seconds)
  socket:close()
  check(print_addresses(answer, #query + 1) > 0, "the name has no such address")
end)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
