-- The last line could be one byte over max_line if that byte was a CR.

local transports = require("support.transports")

for _, over in ipairs(transports.all) do
  describe("lines" .. over.suffix, function()
    local tcp, connect_to = over.tcp, over.connect_to

    it("keep to max_line at the end of the stream, too", function()
      local conn = connect_to({ max_line = 10 }, "accept", { "send", ("x"):rep(10) .. "\r" }, "close")
      local ok, err = pcall(function()
        for _ in conn:lines() do
          error("a line came")
        end
      end)
      assert.is_false(ok)
      assert.is_true(tcp.is_error(err, "too_large"), tostring(err))
      assert.equal(("x"):rep(10) .. "\r", conn:read(11))
      conn:close()
    end)
  end)
end
