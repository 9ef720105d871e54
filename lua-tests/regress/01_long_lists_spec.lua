-- A list of more strings than Lua keeps references for (8,000 on 5.1) was cut, and the write succeeded.

local support = require("support")
local transports = require("support.transports")

for _, over in ipairs(transports.all) do
  describe("write" .. over.suffix, function()
    local connect_to = over.connect_to

    it("sends every string of a long list", function()
      local list = {}
      for i = 1, 1100000 do
        list[i] = "a"
      end
      local conn, peer = connect_to("accept", "drain")
      conn:write(list)
      conn:write({ "b" }, list, ("c"):rep(100000), list)
      conn:close()
      assert.equal(3 * #list + 100001, #peer:got())
    end)

    it("takes no list with holes or names", function()
      local conn, peer = connect_to("accept", "drain")
      for _, data in ipairs { { a = "x" }, { [2] = "x" }, { "a", nil, "c" }, { [0] = "x" }, { "a", n = 1 } } do
        support.misuse("bad argument #1 to 'write' (list expected, got a table with holes or names)",
          conn.write, conn, data)
      end
      conn:close()
      assert.equal("", peer:got())
    end)
  end)
end
