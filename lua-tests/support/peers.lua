-- The other side of a spec: a process of lua-tests/support/peer.rs that plays a script of actions.

local peers = {}

local has_lfs, lfs = pcall(require, "lfs")

local PROGRAM = "target/release/examples/peer"

local function hex(bytes)
  return (bytes:gsub(".", function(byte)
    return ("%02x"):format(byte:byte())
  end))
end

-- Which words of an action are bytes.
local BYTES = { send = 1, urgent = 1, wire = 1, ["repeat"] = 2, dribble = 2, trickle = 2 }

local started = {}

local Peer = {}
Peer.__index = Peer

--- Starts a peer. Each action is a name, or a table of a name and its words: `{ "send", "hello\n" }`.
function peers.start(...)
  local words = { PROGRAM }
  for _, action in ipairs { ... } do
    if type(action) == "string" then
      action = { action }
    end
    for i, word in ipairs(action) do
      if BYTES[action[1]] == i - 1 then
        word = "'" .. hex(word) .. "'"
      end
      words[#words + 1] = tostring(word)
    end
  end
  local process = assert(io.popen("exec " .. table.concat(words, " "), "r"))
  local port, pid = (process:read("*l") or ""):match("^(%d+) (%d+)$")
  assert(port, "the peer did not start")
  local peer = setmetatable({ process = process, port = tonumber(port), pid = pid, host = "127.0.0.1" }, Peer)
  started[#started + 1] = peer
  return peer
end

--- What the peer's `read` or `drain` got, in order; waits for it.
function Peer:got()
  local length = assert(tonumber(self.process:read("*l")), "the peer got nothing")
  local bytes = length == 0 and "" or assert(self.process:read(length))
  assert(#bytes == length)
  return bytes
end

--- Ends the peer, wherever it is. It stays unreaped until then, so its id is its own.
function Peer:finish()
  if self.process then
    os.execute("kill " .. self.pid .. " 2>/dev/null")
    self.process:close()
    self.process = nil
  end
end

--- Ends every peer that was started: `after_each` of the specs.
function peers.finish_all()
  for i = #started, 1, -1 do
    started[i]:finish()
    started[i] = nil
  end
end

--- How many descriptors this process has open (Linux).
function peers.descriptors()
  assert(has_lfs, "luafilesystem is missing")
  local count = 0
  for name in lfs.dir("/proc/self/fd") do
    if name ~= "." and name ~= ".." then
      count = count + 1
    end
  end
  return count
end

return peers
