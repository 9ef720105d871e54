-- shutdown("recv") lost what had arrived and was not read yet.

local transports = require("support.transports")

for _, over in ipairs(transports.all) do
  describe("shutdown of the receiving side" .. over.suffix, function()
    local tcp, connect_to = over.tcp, over.connect_to

    it("leaves what had arrived", function()
      local conn = connect_to("accept", { "send", "hello\nworld" }, "stall")
      tcp.sleep(0.1)
      conn:shutdown("recv")
      assert.equal("hello", conn:read_line())
      assert.equal("world", conn:read_str())
      assert.is_nil(conn:recv())
      conn:close()
    end)
  end)
end
