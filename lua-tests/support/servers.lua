-- Real servers for specs: each in a directory and on a port of 127.0.0.1 of its own.

local lfs = require("lfs")
local tcp = require("tcp.core")

local servers = {}

local TEMPORARY = os.getenv("TMPDIR") or "/tmp"
-- Below the ports that systems hand out themselves.
local FIRST_PORT, LAST_PORT = 20000, 20999
local ATTEMPTS = 5
local PATIENCE = 10

-- Runs beside the server: says that it has ended, and outlives this process to end it and remove its directory.
local KEEPER = [[
trap "" INT
cd %s || exit
exec 3<&0
%s </dev/null 3<&- >log 2>&1 &
server=$!
echo $server >pid.new && mv pid.new pid
{ cat; [ -e ended ] || kill $server; } <&3 2>/dev/null &
wait $server 2>/dev/null
echo $? >ended
wait
cd / && rm -rf %s
]]

local function quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

local function contents(path)
  local file = io.open(path, "rb")
  if not file then
    return nil
  end
  local bytes = file:read("*a")
  file:close()
  return bytes
end

local function wait_until(condition)
  local deadline = tcp.now() + PATIENCE
  repeat
    if condition() then
      return true
    end
    tcp.sleep(0.01)
  until tcp.now() > deadline
  return false
end

local Server = {}
Server.__index = Server

function Server:has_ended()
  return lfs.attributes(self.dir .. "/ended") ~= nil
end

function Server:accepts()
  local conn = tcp.try_connect(self.host, self.port, 1)
  if conn then
    conn:close()
  end
  return conn ~= nil
end

--- Starts the program and waits until it accepts. Gives its log if it ends instead.
function Server:launch(program, words)
  local command = { quote(assert(servers.find(program))) }
  for i, word in ipairs(words) do
    command[i + 1] = quote(word)
  end
  local dir = quote(self.dir)
  self.keeper = assert(io.popen(KEEPER:format(dir, table.concat(command, " "), dir), "w"))
  assert(wait_until(function()
    self.pid = tonumber(contents(self.dir .. "/pid") or "")
    return self.pid
  end), "no shell to start the server")
  local ready = wait_until(function()
    return self:has_ended() or self:accepts()
  end)
  if ready and not self:has_ended() then
    return nil
  end
  local log = contents(self.dir .. "/log")
  self:stop()
  return log
end

--- Ends the server, and its directory with it.
function Server:stop()
  local function ended()
    return self:has_ended()
  end
  for _, signal in ipairs { "TERM", "KILL" } do
    if not ended() then
      os.execute(("kill -%s %d 2>/dev/null"):format(signal, self.pid))
      wait_until(ended)
    end
  end
  assert(ended(), "the server does not end")
  self.keeper:close()
  assert(not self:has_ended(), "the server's directory is left")
end

--- The path of a program, or nil if it is not installed.
function servers.find(program)
  local process = io.popen("PATH=$PATH:/usr/sbin:/usr/local/sbin; command -v " .. program .. " 2>/dev/null", "r")
  local path = process:read("*l")
  process:close()
  return path
end

-- Only one can make the directory: other runs of the specs leave the port alone.
local function claim(port)
  local dir = ("%s/tcp-spec-%d"):format(TEMPORARY, port)
  if not lfs.mkdir(dir) then
    return nil
  end
  local server = setmetatable({ host = "127.0.0.1", port = port, dir = dir }, Server)
  if server:accepts() then
    lfs.rmdir(dir)
    return nil
  end
  return server
end

--- Starts a program that listens on `server.host` and `server.port`, and returns when it accepts: a table with
-- `host`, `port`, `dir`, `pid` and `stop()`. `prepare(server)` may write into `server.dir`, where the program
-- will run, and gives a list of the program's arguments.
function servers.start(program, prepare)
  local failures = 0
  for port = FIRST_PORT, LAST_PORT do
    local server = claim(port)
    if server then
      local log = server:launch(program, prepare(server))
      if not log then
        return server
      end
      failures = failures + 1
      assert(failures < ATTEMPTS, ("%s does not start: %s"):format(program, log))
    end
  end
  error("no free port for " .. program)
end

return servers
