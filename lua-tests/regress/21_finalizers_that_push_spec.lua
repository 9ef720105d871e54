-- LuaJIT runs finalizers between any two instructions of compiled code, also in the middle of a queue's own: values
-- that they pushed were lost.

local support = require("support")

describe("values that finalizers push", function()
  it("are all popped", function()
    assert.equal("20000\t200010000\n", support.child([[
      local tcp = require("tcp")
      local queue, COUNT = tcp.queue(), 20000
      local function finalized(i)
        local function push() queue:push(i) end
        if _VERSION == "Lua 5.1" then
          local proxy = newproxy(true)
          getmetatable(proxy).__gc = push
          return proxy
        end
        return setmetatable({}, { __gc = push })
      end
      local popped, sum = 0, 0
      local popper = tcp.spawn(function()
        while popped < COUNT do
          sum = sum + queue:pop()
          popped = popped + 1
        end
      end)
      for i = 1, COUNT do
        finalized(i)
        if i % 100 == 0 then tcp.sleep(0) end
      end
      while popped < COUNT do
        collectgarbage()
        tcp.sleep(0)
      end
      popper:join()
      print(("%d\t%d"):format(popped, sum))
    ]], "timeout 60"))
  end)
end)
