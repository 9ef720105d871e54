-- The module on Lua 5.5: the main job once, against the scripted peer.

assert(_VERSION == "Lua 5.5", _VERSION)
package.cpath = "build/lua55/?.so"
package.path = "lua-tests/?.lua"

local tcp = require("tcp")
local peers = require("support.peers")

assert(tcp == require("tcp.core") and connect == tcp.connect)

local peer = peers.start("accept", { "send", "hello\r\n\0\0\0\7[1,2.0]" }, "drain")
do
  local conn <close> = tcp.connect(peer.host, peer.port)
  assert(conn:read_line() == "hello")
  local value = conn:read_json_packet()
  assert(math.type(value[1]) == "integer" and math.type(value[2]) == "float")
  conn:write_json_packet({ command = "update" })
  conn:shutdown("send")
  local _, err = conn:try_read_line()
  assert(tcp.is_error(err, "closed"))
end
assert(peer:got() == '\0\0\0\20{"command":"update"}')

local ok, err = pcall(tcp.connect, peer.host, 70000)
assert(not ok and err:find("^lua%-tests/lua55/smoke%.lua:%d+: bad argument #2 to 'connect'"), err)
local refused = select(2, pcall(tcp.connect, "127.0.0.1", 1))
assert(("failed: " .. refused):find("connection refused$"), refused)
peers.finish_all()

-- Both ends in tasks, with for loops and a <close> that waits in them.
local listener <close> = tcp.listen("127.0.0.1", 0)
tcp.spawn(function()
  for client in listener:connections() do
    tcp.spawn(function()
      local conn <close> = client
      for line in conn do
        conn:write_line(line:upper())
      end
    end)
  end
end)
local clients = {}
for i = 1, 50 do
  clients[i] = tcp.spawn(function()
    local conn <close> = tcp.connect("127.0.0.1", listener:local_port())
    assert(pcall(conn.write_line, conn, "line " .. i))
    return conn:read_line()
  end)
end
for i, task in ipairs(clients) do
  assert(task:join() == "LINE " .. i)
end
local _, late = tcp.try_with_timeout(0.01, tcp.sleep, 10)
assert(tcp.is_error(late, "timeout"))
listener:close()
tcp.run()

-- A policy is its state's own, and gone with it: the next one listens and connects again.
local forbidden <close> = tcp.listen("127.0.0.1", 0)
tcp.allow { net = { "localhost" }, listen = {} }
assert(tcp.is_error(select(2, tcp.try_connect("127.0.0.1", forbidden:local_port())), "denied"))
assert(tcp.is_error(select(2, tcp.try_listen("127.0.0.1", 0)), "denied"))
package.loaded["tcp.core"] = nil
assert(tcp.is_error(select(2, require("tcp.core").try_connect("127.0.0.1", 1)), "denied"))
