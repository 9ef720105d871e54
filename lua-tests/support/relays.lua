-- Between a client and a server: what changes the records of TLS on their way (RFC 8446, section 5.1).

local tcp = require("tcp.core")

local PATIENCE = 10

local relays = {}

--- Carries records over until an end: `change(record, number)` gives what goes on in their place, one string or a list
-- of segments; nil: what came.
local function carry(from, to, change)
  local number = 0
  local head = from:try_read(5, { timeout = PATIENCE })
  while head do
    local body = from:try_read(head:byte(4) * 256 + head:byte(5), { timeout = PATIENCE })
    if not body then
      break
    end
    number = number + 1
    local segments = change and change(head .. body, number) or head .. body
    if type(segments) == "string" then
      segments = { segments }
    end
    for _, segment in ipairs(segments) do
      if not to:try_write(segment) then
        break
      end
      if #segments > 1 then
        -- So that they are no one segment.
        tcp.sleep(0.001)
      end
    end
    head = from:try_read(5, { timeout = PATIENCE })
  end
  to:try_shutdown("send")
end

--- A relay for one connection to the port: its own port, and the task. `changes.client` and `changes.server` change
-- what the one says.
function relays.start(port, changes)
  local listener = tcp.listen("127.0.0.1", 0)
  local task = tcp.spawn(function()
    local near = listener:accept(PATIENCE)
    listener:close()
    local far = tcp.connect("127.0.0.1", port)
    near:set_option("nodelay", true)
    local there = tcp.spawn(carry, near, far, changes.client)
    carry(far, near, changes.server)
    there:join(2 * PATIENCE)
    near:close()
    far:close()
  end)
  return listener:local_port(), task
end

return relays
