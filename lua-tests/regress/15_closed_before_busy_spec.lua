-- A read from a connection that was closed while a task waited on it failed with `busy` until that task had run.

local support = require("support")
local transports = require("support.transports")

for _, over in ipairs(transports.all) do
  describe("a connection that is closed while a task reads" .. over.suffix, function()
    local tcp, connect_to = over.tcp, over.connect_to

    it("is closed for everybody at once", function()
      local conn = connect_to("accept", "stall")
      local reader = tcp.spawn(function()
        support.fails("closed", conn:try_read_line())
      end)
      tcp.sleep(0)
      support.fails("busy", conn:try_read(1))
      conn:close()
      support.fails("closed", conn:try_read(1))
      support.fails("closed", conn:try_recv())
      reader:join()
    end)
  end)
end
