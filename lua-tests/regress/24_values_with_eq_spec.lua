-- What a task or a wrapped coroutine returned was compared with a table of the module's own, and its __eq was called.

local tcp = require("tcp.core")

describe("a value whose __eq fails", function()
  local function hostile()
    return setmetatable({}, { __eq = function() error("compared") end })
  end

  it("is returned by a task and by a wrapped coroutine as any other", function()
    local value = hostile()
    assert.is_true(rawequal(value, tcp.run(function() return value end)))
    assert.is_true(rawequal(value, tcp.run(function()
      local result = tcp.wrap(function() coroutine.yield(value) end)()
      return result
    end)))
    local task = tcp.spawn(function() error(value) end)
    local _, failure = task:try_join()
    assert.is_true(rawequal(value, failure))
  end)
end)
