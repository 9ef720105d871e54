-- The rows of one interpreter, see tools/serve-memory.sh.
--
-- Usage: TCP_LUA=INTERPRETER INTERPRETER bench/serve_memory.lua CLIENTS

local crowds = require("support.crowds")
local support = require("support")
local transports = require("support.transports")

local KIB, MIB = 1024, 1024 * 1024
local count = tonumber(arg[1])

local obstacle = crowds.obstacle(count)
if obstacle then
  io.stderr:write("tcp: ", obstacle, "\n")
  os.exit(1)
end
for _, over in ipairs(transports.all) do
  local each, after, luas, before = {}, {}, 0, 0
  for i, memory in ipairs(crowds.measure(over, count, 3)) do
    each[i] = ("%6.2f"):format((memory.resident.idle - memory.resident.before) / count / KIB)
    after[i] = ("%6.1f"):format(memory.resident.after / MIB)
    luas = (memory.lua.idle - memory.lua.before) / count / KIB
    before = memory.resident.before / MIB
  end
  print(("%-8s %-8s   %s  %6.2f       %6.1f %s"):format(support.LUA, over.is_tls and "over TLS" or "plain",
    table.concat(each, " "), luas, before, table.concat(after, " ")))
  io.stdout:flush()
end
