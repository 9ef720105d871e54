-- Tasks that were cancelled before they began stayed in the queue of those to be run, for ever if no other task came.

local tcp = require("tcp.core")

describe("tasks that are cancelled before they begin", function()
  it("cost nothing afterwards", function()
    local function use()
      for _ = 1, 10000 do
        tcp.spawn(print):cancel()
      end
      tcp.run()
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    local before = use()
    assert.is_true(use() < before + 100)
  end)
end)
