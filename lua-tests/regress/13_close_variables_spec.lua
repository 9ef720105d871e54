-- What a task or a wrapped coroutine that failed was to close stayed open: its coroutine was never closed.

local support = require("support")

local SCRIPT = [[
  local tcp = require("tcp")
  local function guard(name)
    return setmetatable({}, { __close = function() print("closed", name) end })
  end
  local failing = tcp.spawn(function() local _ <close> = guard("failing") tcp.sleep(0) error("boom", 0) end)
  print(failing:try_join())
  local cancelled = tcp.spawn(function() local _ <close> = guard("cancelled") tcp.sleep(60) end)
  tcp.sleep(0)
  cancelled:cancel()
  print(cancelled:try_join())
  print(pcall(tcp.wrap(function() local _ <close> = guard("wrapped") error("boom", 0) end)))
]]

describe("variables that are to be closed", function()
  it("are closed when their task fails or is cancelled, and when a wrapped coroutine fails", function()
    if not coroutine.close then
      -- This Lua has no such variables.
      assert.is_true(_VERSION < "Lua 5.4")
      return
    end
    assert.equal("closed\tfailing\nnil\tboom\nclosed\tcancelled\nnil\tjoin: the task was cancelled\n"
      .. "closed\twrapped\nfalse\tboom\n", support.child(SCRIPT))
  end)
end)
