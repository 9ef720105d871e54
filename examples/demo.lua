#!/usr/bin/env lua
-- The module's main job, step by step, against a peer of its own; fails loudly if anything is not as it should be.
--
-- Usage: make demo

local tcp = require("tcp")
local null = tcp.null

local PEER = "build/peer/release/examples/peer"

--- Starts the other side: a process that plays `actions` for one connection on a port that it prints.
local function start_peer(actions)
  local peer = assert(io.popen(PEER .. " " .. actions, "r"))
  return peer, assert(tonumber(peer:read("*l"):match("^%d+")), "the peer did not start: run make demo")
end

local function hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

local function step(what, ok, result)
  print(("%-52s %s"):format(what, tostring(result)))
  if not ok then
    io.stderr:write("demo: that is not as it should be\n")
    os.exit(1)
  end
end

local answer = '{"status":"ok","values":[1,2,3],"next":null}'
local peer, port = start_peer(table.concat({
  "accept",
  "send", hex("220 ready\r\n"),
  "read 5",
  "send", hex("+PONG\r\n"),
  "read 24",
  "send", hex(("\0\0\0%c"):format(#answer) .. answer),
  "read 15",
  "send", hex("and the rest, up to the end"),
  "close",
}, " "))

local conn = tcp.connect("localhost", port)
step("connect to localhost", not conn:is_closed(), conn:remote_addr())

local line = conn:read_line()
step("read a line", line == "220 ready", line)

conn:write("PING\n")
line = conn:read_line()
step("write, and read the answer", line == "+PONG", line)
step("the peer got it", peer:read("*l") == "5" and peer:read(5) == "PING\n", "PING")

conn:write_json_packet({ command = "update" })
step("write a JSON packet", peer:read("*l") == "24" and peer:read(4) == "\0\0\0\20", peer:read(20))

local value = conn:read_json_packet()
step("read a JSON packet", value.status == "ok" and #value.values == 3 and value.next == null,
  tcp.json.encode(value))

local _, err = conn:try_read_line({ timeout = 0.2 })
step("nothing comes for 0.2 s", tcp.is_error(err, "timeout"), err)

-- The legacy face: the connection that was opened last. "send" and "recv" are globals.
send("legacy greeting")
step("send on the last connection", peer:read("*l") == "15", peer:read(15))
local first = recv()
local rest = first .. conn:read_str()
step("recv, and read_str up to the end", rest == "and the rest, up to the end", rest)
conn:close()
peer:close()

local ok
ok, err = pcall(connect, "127.0.0.1", port, 5)
step("a port where nobody listens", not ok and tcp.is_error(err, "refused"), "error: " .. err)

ok, err = pcall(connect, "localhost", 70000)
step("a mistake in the script", not ok and type(err) == "string", err)

print("all is as it should be")
