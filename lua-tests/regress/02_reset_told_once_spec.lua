-- The system tells a reset once. When a write had met it, reads took the cut stream for a complete one.

local support = require("support")
local transports = require("support.transports")
local fails = support.fails

for _, over in ipairs(transports.all) do
  describe("reading after a write that met a reset" .. over.suffix, function()
    local tcp, connect_to = over.tcp, over.connect_to

    it("gives what had arrived, and then the reset", function()
      local conn = connect_to("accept", { "send", "unread\nhalf" }, { "sleep", 50 }, "reset")
      assert.equal("u", conn:peek(1))
      tcp.sleep(0.2)
      fails("reset", conn:try_write("x"))
      assert.equal("unread", conn:read_line())
      fails("reset", conn:try_read_line())
      fails("reset", conn:try_read_str())
      assert.equal("half", conn:read(4))
      fails("reset", conn:try_recv())
      conn:close()
    end)

    it("gives an orderly end if that came first", function()
      local conn = connect_to("accept", { "send", "all of it" }, "close")
      -- Wants more than there is: waits for the end, and takes nothing.
      fails("closed", conn:try_read(100))
      local deadline = tcp.now() + 10
      local ok, err = true, nil
      while ok and tcp.now() < deadline do
        ok, err = conn:try_write("x")
        tcp.sleep(0.01)
      end
      fails("reset", ok, err)
      assert.equal("all of it", conn:read_str())
      conn:close()
    end)
  end)
end
