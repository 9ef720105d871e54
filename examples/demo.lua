#!/usr/bin/env lua
-- The module's main job, step by step, against a server that is a task of the same program; fails loudly if anything
-- is not as it should be.
--
-- Usage: make demo     or: lua demo.lua FOLDER, with the certificates that tools/certificates.sh makes there

local tcp = require("tcp")
local null = tcp.null
local certificates = arg[1] or "build/certificates"

local function step(what, ok, result)
  print(("%-52s %s"):format(what, tostring(result)))
  if not ok then
    io.stderr:write("demo: that is not as it should be\n")
    os.exit(1)
  end
end

local server_tls = { cert = certificates .. "/server.pem", key = certificates .. "/server.key" }
local secure = tcp.listen("127.0.0.1", 0, { tls = server_tls })
step("listen with TLS on a port that is free", secure:local_port() > 0, secure:addr())

--- The other side, for everybody who comes.
local function serve(client)
  local request, err = client:try_read_json_packet()
  if request then
    client:write_json_packet({ status = "ok", sum = request.values[1] + request.values[2] + request.values[3] })
    client:read_str()
  end
  client:close()
  return err
end
local answering = tcp.spawn(function()
  local served = serve(secure:accept())
  local refused = serve(secure:accept())
  return served, refused
end)

local db = tcp.connect_tls("localhost", secure:local_port(), { tls = { ca_bundle = certificates .. "/ca.pem" } })
step("connect with TLS; the certificate is verified", db:is_tls(), db)
db:write_json_packet({ command = "update", values = { 10, 20, 30 } })
local reply = db:read_json_packet()
step("a JSON request and its answer over TLS", reply.status == "ok" and reply.sum == 60, tcp.json.encode(reply))
db:close()

local none, untrusted = tcp.try_connect_tls("localhost", secure:local_port(), 5)
step("an authority that this system does not know", none == nil and untrusted.kind == "certificate", untrusted)
local served, refused = answering:join()
step("what that server saw", served == nil and refused.alert == "unknown_ca", refused)
secure:close()

local listener = tcp.listen("127.0.0.1", 0)
local port = listener:local_port()
step("listen without TLS", port > 0, listener:addr())

--- The other side. What it got is what it returns.
local server = tcp.spawn(function()
  local got = {}
  local client = listener:accept()
  client:write_line("220 ready")
  got.line = client:read_line()
  client:write_line("+PONG")
  got.packet = client:read_json_packet()
  client:write_json_packet({ status = "ok", values = { 1, 2, 3 }, next = null })
  got.greeting = client:read(15)
  client:write("and the rest, up to the end")
  client:close()
  return got
end)

local conn = tcp.connect("localhost", port)
step("connect to localhost", not conn:is_closed(), conn:remote_addr())

local line = conn:read_line()
step("read a line", line == "220 ready", line)

conn:write("PING\n")
line = conn:read_line()
step("write, and read the answer", line == "+PONG", line)

conn:write_json_packet({ command = "update" })
local value = conn:read_json_packet()
step("write and read JSON packets", value.status == "ok" and #value.values == 3 and value.next == null,
  tcp.json.encode(value))

local _, err = conn:try_read_line({ timeout = 0.2 })
step("nothing comes for 0.2 s", tcp.is_error(err, "timeout"), err)

-- The legacy face: the connection that was opened last. "send" and "recv" are globals.
send("legacy greeting")
local first = recv()
local rest = first .. conn:read_str()
step("send, recv, and read_str up to the end", rest == "and the rest, up to the end", rest)
conn:close()

local got = server:join()
step("join the server's task: what it got", got.line == "PING" and got.packet.command == "update", got.greeting)

-- A hundred clients at the same time, and a task for each of them on the server's side.
local acceptor = tcp.spawn(function()
  for _ = 1, 100 do
    tcp.spawn(function(client)
      client:write_line(client:read_line():upper())
      client:close()
    end, listener:accept())
  end
end)
local clients, answered = {}, 0
for i = 1, 100 do
  clients[i] = tcp.spawn(function()
    local client = tcp.connect("127.0.0.1", port)
    client:write_line("client " .. i)
    local answer = client:read_line()
    client:close()
    return answer == "CLIENT " .. i
  end)
end
for _, client in ipairs(clients) do
  answered = answered + (client:join() and 1 or 0)
end
acceptor:join()
step("a hundred clients at the same time", answered == 100, answered .. " answers")

_, err = tcp.try_with_timeout(0.1, function() listener:accept() end)
step("a time limit over whatever a function does", tcp.is_error(err, "timeout"), err)
listener:close()

local ok
ok, err = pcall(connect, "127.0.0.1", port, 5)
step("a port where nobody listens", not ok and tcp.is_error(err, "refused"), "error: " .. err)

ok, err = pcall(connect, "localhost", 70000)
step("a mistake in the script", not ok and type(err) == "string", err)

print("all is as it should be")
