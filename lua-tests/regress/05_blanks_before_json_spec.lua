-- White space before a document counted for max_json, or not, as the stream happened to be cut.

local support = require("support")
local transports = require("support.transports")

for _, over in ipairs(transports.all) do
  describe("white space before a document" .. over.suffix, function()
    local connect_to = over.connect_to

    it("is skipped however it is cut, and counts for no limit", function()
      for _, action in ipairs { { "send", (" "):rep(20) .. "[7]" }, { "dribble", 1, (" "):rep(20) .. "[7]" } } do
        local conn = connect_to({ max_json = 5 }, "accept", action, "close")
        assert.equal(7, conn:read_json()[1])
        conn:close()
      end
    end)

    it("costs no memory", function()
      local conn = connect_to("accept", { "repeat", 1000, (" \n"):rep(5000) }, { "sleep", 50 }, { "send", "[7]" },
        "close")
      assert.equal(7, conn:read_json({ timeout = 10 })[1])
      conn:close()
    end)

    it("is kept for other reads while it is little", function()
      local conn = connect_to("accept", { "send", "\n \n" }, "stall")
      support.fails("timeout", conn:try_read_json({ timeout = 0.05 }))
      assert.equal("\n \n", conn:read(3))
      conn:close()
    end)
  end)
end
