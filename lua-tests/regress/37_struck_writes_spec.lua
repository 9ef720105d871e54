-- A copy that a hook (Ctrl-C) struck while it wrote to a Lua file left SIGPIPE blocked in the thread.

local strikes = require("support.strikes")
local tcp = require("tcp.core")

--- Signals that are blocked in this thread (proc(5)).
local function blocked()
  local status = io.open("/proc/thread-self/status")
  local mask = status and status:read("*a"):match("SigBlk:%s*(%x+)")
  if status then
    status:close()
  end
  return mask
end

--- Copies a little, and has a hook strike. Gives whether it did.
local function struck(n, target)
  return (strikes.at(n, strikes.here, function()
    local is_given = false
    tcp.copy(function()
      is_given = not is_given
      return is_given and "bytes" or nil
    end, target)
  end))
end

describe("a copy to a file that a hook strikes", function()
  it("leaves the thread's signals as they were", function()
    local before = blocked()
    if not before then
      return pending("no /proc/thread-self")
    end
    local n = 0
    repeat
      n = n + 1
      local target = io.tmpfile()
      local has_struck = struck(n, target)
      target:close()
      assert.equal(before, blocked(), "at call or return " .. n)
    until not has_struck
    assert.is_true(n > 40, "the hook was called " .. n .. " times only")
  end)
end)
