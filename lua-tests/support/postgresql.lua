-- PostgreSQL for specs, and as much of its protocol (version 3.0) as they speak.

local assert = require("luassert")
local lfs = require("lfs")
local tcp = require("tcp.core")
local servers = require("support.servers")
local support = require("support")
local transports = require("support.transports")

local postgresql = {}

local PATIENCE = 10

local function output(command)
  local process = io.popen(command, "r")
  local text = process:read("*a")
  process:close()
  return text
end

-- It does not run for root, who lends it the user of its package.
local AS_USER = { "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups" }
if output("id -u") ~= "0\n" then
  AS_USER = { "env" }
end
-- Debian keeps it out of the path.
local FOLDER = output("ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V"):match("([^\n]+)\n$")
local PROGRAM = servers.find(FOLDER and FOLDER .. "/postgres" or "postgres")

--- Why it cannot run here, or nil.
function postgresql.problem()
  if not PROGRAM then
    return "is not installed: apt-get install postgresql"
  elseif not support.succeeds(table.concat(AS_USER, " ") .. " true") then
    return "does not run for root, and cannot be run for a user postgres"
  end
end

-- Its keys must be its own, and nobody else's to read.
local PREPARE = [[
set -e
cd $dir
mkdir data
[ $(id -u) != 0 ] || chown postgres . data
$as_user $initdb -D data -A trust --no-sync --locale=C -E UTF8 -U postgres
install -m 600 $certificates data
echo '$rules' >data/pg_hba.conf
[ $(id -u) != 0 ] || chown -R postgres data
]]
-- Who may come in, and how.
local RULES = [[
hostssl all client all cert
hostssl all verified all trust clientcert=verify-ca
hostssl all plain all password
hostssl all scrambled all scram-sha-256
hostssl all secure all trust
host all postgres all trust
]]
local USERS = "CREATE USER client; CREATE USER verified; CREATE USER secure; "
  .. "CREATE USER plain PASSWORD 'pass word'; CREATE USER scrambled PASSWORD 'pass word'"

local function prepare(server, name)
  local here = lfs.currentdir() .. "/"
  local files = { transports.certificate("ca"), transports.certificate(name), transports.certificate(name, "key") }
  local values = {
    dir = server.dir,
    as_user = table.concat(AS_USER, " "),
    initdb = PROGRAM:gsub("postgres$", "initdb"),
    certificates = here .. table.concat(files, " " .. here),
    rules = RULES,
  }
  local script = PREPARE:gsub("%$([%l_]+)", values)
  local log = output(("{ (%s) && echo done; } 2>&1"):format(script))
  assert(log:match("done\n$"), log)
end

--- Starts it with TLS and a certificate of the tests, or without any.
function postgresql.start(name)
  local server = servers.start(AS_USER[1], function(it)
    prepare(it, name or "server")
    local words = { select(2, (table.unpack or unpack)(AS_USER)) }
    for _, word in ipairs { PROGRAM, "-D", it.dir .. "/data", "-h", it.host, "-p", it.port, "-k", "", "-F" } do
      words[#words + 1] = word
    end
    if name then
      for _, setting in ipairs { "ssl=on", "ssl_ca_file=ca.pem", "ssl_cert_file=" .. name .. ".pem",
        "ssl_key_file=" .. name .. ".key" } do
        words[#words + 1] = "--" .. setting
      end
    end
    return words
  end)
  local deadline = tcp.now() + PATIENCE
  -- It accepts before it is ready.
  local ready, problem
  repeat
    local conn = tcp.connect(server.host, server.port, { read_timeout = PATIENCE })
    ready, problem = postgresql.begin(conn, "postgres")
    if ready then
      ready, problem = postgresql.query(conn, USERS)
    end
    conn:close()
    tcp.sleep(0.01)
  until ready or tcp.now() > deadline
  assert(ready, problem and problem.M)
  return server
end

local function int32(number)
  local high = math.floor(number / 65536)
  return string.char(math.floor(high / 256), high % 256, math.floor(number / 256) % 256, number % 256)
end

local function number_at(bytes, first, last)
  local number = 0
  for i = first, last do
    number = number * 256 + bytes:byte(i)
  end
  return number
end

--- A message: its kind (nothing for the first two), its length, which counts itself, and what is in it.
function postgresql.message(kind, payload)
  return kind .. int32(#payload + 4) .. payload
end

postgresql.SSL_REQUEST = postgresql.message("", int32(80877103))

--- The first message of a session.
function postgresql.startup(user)
  local words = { "user", user, "database", "postgres", "", "" }
  return postgresql.message("", int32(196608) .. table.concat(words, "\0"))
end

--- The fields of an error by their letters: C is the code, M the message.
local function read_error(payload)
  local fields = {}
  for letter, value in payload:gmatch("(%a)(%Z*)%z") do
    fields[letter] = value
  end
  return fields
end

local function read_row(payload)
  local row, position = {}, 3
  for i = 1, number_at(payload, 1, 2) do
    local first = position + 4
    position = first + number_at(payload, position, first - 1)
    row[i] = payload:sub(first, position - 1)
  end
  return row
end

--- Reads messages up to the one that says that it is ready, and gives their rows, in which there is no NULL; or nil and
-- the fields of an error.
local function read_answer(conn)
  local rows, problem = {}, nil
  repeat
    local head = conn:read(5)
    local kind, payload = head:sub(1, 1), conn:read(number_at(head, 2, 5) - 4)
    if kind == "E" then
      problem = read_error(payload)
    elseif kind == "D" then
      rows[#rows + 1] = read_row(payload)
    end
  until kind == "Z" or problem and problem.V == "FATAL"
  return not problem and rows or nil, problem
end

--- Begins a session; no user of these has a password.
function postgresql.begin(conn, user)
  conn:write(postgresql.startup(user))
  return read_answer(conn)
end

function postgresql.query(conn, text)
  conn:write(postgresql.message("Q", text .. "\0"))
  return read_answer(conn)
end

return postgresql
