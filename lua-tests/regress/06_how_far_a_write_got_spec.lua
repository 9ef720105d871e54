-- err.written was nil for writes that had not begun.

local support = require("support")
local transports = require("support.transports")
local fails = support.fails

for _, over in ipairs(transports.all) do
  describe("err.written" .. over.suffix, function()
    local connect_to = over.connect_to

    it("is 0 for every write that did not begin", function()
      local conn = connect_to({ max_packet = 3 }, "accept", "stall")
      assert.equal(0, fails("too_large", conn:try_write_packet("abcd")).written)
      assert.equal(0, fails("too_large", conn:try_write_json_packet("abcd")).written)
      assert.equal(0, fails("json", conn:try_write_json(print)).written)
      conn:set_write_timeout(0)
      local err
      repeat
        local sent
        sent, err = conn:try_send_some(("x"):rep(1000000))
      until not sent
      assert.equal("timeout", err.kind)
      assert.equal(0, err.written)
      conn:close()
      for _, name in ipairs { "write", "send", "send_some", "write_line", "write_packet", "write_json" } do
        assert.equal(0, fails("closed", conn["try_" .. name](conn, "x")).written)
      end
    end)
  end)
end
