-- shutdown("recv") lost what had arrived and was not read yet.

local tcp = require("tcp.core")
local support = require("support")

describe("shutdown of the receiving side", function()
  it("leaves what had arrived", function()
    local conn = support.connect_to("accept", { "send", "hello\nworld" }, "stall")
    tcp.sleep(0.1)
    conn:shutdown("recv")
    assert.equal("hello", conn:read_line())
    assert.equal("world", conn:read_str())
    assert.is_nil(conn:recv())
    conn:close()
  end)
end)
