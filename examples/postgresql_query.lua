#!/usr/bin/env lua
-- Asks a PostgreSQL server one question over TLS and prints the rows. The server is asked for TLS (SSLRequest) before
-- anything else is said, and has to show a certificate for HOST.
--
-- Usage: lua postgresql_query.lua HOST PORT USER DATABASE QUERY
-- From the environment, as for psql: PGPASSWORD; PGSSLROOTCERT, a PEM file that is trusted instead of the system's
-- authorities; PGSSLCERT and PGSSLKEY, the client's own certificate.

local tcp = require("tcp")

local SSL_REQUEST, PROTOCOL_3 = "\4\210\22\47", "\0\3\0\0"

local function int32(number)
  local shifted = math.floor(number / 65536)
  return string.char(math.floor(shifted / 256), shifted % 256, math.floor(number / 256) % 256, number % 256)
end

local function number_at(bytes, first, last)
  local number = 0
  for i = first, last do
    number = number * 256 + bytes:byte(i)
  end
  return number
end

--- A letter, which the first two messages lack, and a length that counts itself.
local function send(conn, kind, ...)
  local payload = table.concat({ ... })
  conn:write(kind, int32(#payload + 4), payload)
end

local function print_row(row)
  local values, position = {}, 3
  for i = 1, number_at(row, 1, 2) do
    local first = position + 4
    local length = number_at(row, position, first - 1)
    local is_null = length == 0xffffffff
    position = is_null and first or first + length
    values[i] = is_null and "NULL" or row:sub(first, position - 1)
  end
  print(table.concat(values, "\t"))
end

--- Handles messages up to the one that says that the server is ready for more.
local function until_ready(conn)
  local kind
  repeat
    kind = conn:read(1)
    local payload = conn:read(number_at(conn:read(4), 1, 4) - 4)
    if kind == "D" then
      print_row(payload)
    elseif kind == "E" then
      error("the server says: " .. (payload:match("%zM(%Z*)") or "nothing"), 0)
    elseif kind == "R" and number_at(payload, 1, 4) == 3 then
      send(conn, "p", os.getenv("PGPASSWORD") or "", "\0")
    elseif kind == "R" and number_at(payload, 1, 4) ~= 0 then
      error("the server wants a way to log in that this example does not know", 0)
    end
  until kind == "Z"
end

local function ask(host, port, user, database, query)
  local conn = tcp.connect(host, port, { timeout = 10, read_timeout = 60 })
  send(conn, "", SSL_REQUEST)
  -- Else it says "N", or "E" and an error, which is not shown: anybody on the way may have written it.
  if conn:read(1) ~= "S" then
    error("the server offers no TLS", 0)
  end
  conn:start_tls({ ca_bundle = os.getenv("PGSSLROOTCERT"), client_cert = os.getenv("PGSSLCERT"),
    client_key = os.getenv("PGSSLKEY") })
  send(conn, "", PROTOCOL_3, table.concat({ "user", user, "database", database, "", "" }, "\0"))
  until_ready(conn)
  send(conn, "Q", query, "\0")
  until_ready(conn)
  send(conn, "X")
  conn:close()
end

if not arg[5] then
  io.stderr:write("usage: lua postgresql_query.lua HOST PORT USER DATABASE QUERY\n")
  os.exit(2)
end
local ok, err = pcall(ask, arg[1], tonumber(arg[2]), arg[3], arg[4], arg[5])
if not ok then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
