-- An echo server in cqueues' coroutines.

local cqueues = require("cqueues")
local socket = require("cqueues.socket")

local loop = cqueues.new()
local server = socket.listen { host = "127.0.0.1", port = 0, nodelay = true }
server:listen()
print((select(3, server:localname())))
io.stdout:flush()

local function echo(conn)
  conn:setmode("bn", "bn")
  conn:onerror(function(_, _, code) return code end)
  local data = conn:read(-8192)
  while data do
    conn:write(data)
    data = conn:read(-8192)
  end
  conn:close()
end

loop:wrap(function()
  for conn in server:clients() do
    loop:wrap(echo, conn)
  end
end)
assert(loop:loop())
