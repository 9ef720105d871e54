-- A task that fails in a tail call has no line of the script on its stack: the report did not say which task it was.
-- And the stack of a task that was joined was lost.

local support = require("support")
local tcp = require("tcp.core")

describe("the report of a failure", function()
  it("names the function of the task, and none of the module's own", function()
    local output = support.child([[
      local tcp = require("tcp")
      tcp.spawn(function()
        return tcp.connect("127.0.0.1", 1)
      end)
      tcp.run()
    ]])
    assert.matches("^tcp: a task %([^\n]*:2%) failed: [^\n]*connect 127%.0%.0%.1:1: connection refused\n", output)
    assert.is_nil(output:find("tcp/", 1, true), output)
  end)

  it("of a join goes on in the task, for tcp.traceback", function()
    local function inner()
      local nothing = nil -- luacheck: ignore
      return nothing.field
    end
    local function middle()
      local result = inner()
      return result
    end
    local _, text = xpcall(function()
      tcp.run(function()
        local result = middle()
        return result
      end)
    end, tcp.traceback)
    assert.matches("attempt to index .*nothing.*\nstack traceback:\n.*\nin its task:\n.*regress/16", text)
    assert.is_nil(tcp.traceback("something else"):find("in its task", 1, true))
  end)
end)
