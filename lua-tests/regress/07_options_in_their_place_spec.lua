-- `read_line("l", 3)` ignored the 3, and waited without limit.

local support = require("support")
local transports = require("support.transports")

for _, over in ipairs(transports.all) do
  describe("a number where the table of options belongs" .. over.suffix, function()
    local connect_to = over.connect_to

    it("is misuse", function()
      local conn = connect_to("accept", "stall")
      local calls = {
        read = { 1 }, read_bytes = { 1 }, recv = { 1 }, read_line = { "l" }, read_until = { "x", 1 }, read_str = { 1 },
        read_all = { 1 }, read_json = {}, read_packet = {}, read_json_packet = {}, peek = { 1 }, lines = { "l" },
        chunks = { 1 }, packets = {}, json_packets = {}, json_values = {},
      }
      for name, arguments in pairs(calls) do
        local position = #arguments + 1
        arguments[position] = 3
        support.misuse(("bad argument #%d to '%s' (table (options) expected, got number)"):format(position, name),
          conn[name], conn, (table.unpack or unpack)(arguments))
      end
      conn:close()
    end)
  end)
end
