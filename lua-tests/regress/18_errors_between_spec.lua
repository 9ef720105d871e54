-- An error that struck between two instructions of a wait, as Ctrl-C or a debug hook of the script's does, left the
-- module believing in a timer that was never set: every later wait with a time limit hung.

local support = require("support")

local SCRIPT = [[
  local tcp = require("tcp")
  local listener = tcp.listen("127.0.0.1", 0)
  local conn = tcp.connect("127.0.0.1", listener:local_port())
  local far = listener:accept()
  local beside = 0
  -- Where hooks belong to all coroutines they would strike in the task itself.
  local ticker = not jit and tcp.spawn(function()
    while true do
      tcp.sleep(0.001)
      beside = beside + 1
    end
  end)
  local waits = {
    sleep = function() tcp.sleep(0.002) end,
    read = function() conn:try_read(1, { timeout = 0.002 }) end,
    run = function() tcp.run(function() tcp.sleep(0) end) end,
    pop = function() tcp.queue():try_pop(0.002) end,
  }
  if jit then
    -- It would strike in the loop itself, which then may lose what it was doing.
    waits.run, waits.pop = nil, nil
  end
  local function strike()
    debug.sethook()
    error("struck", 0)
  end
  for name, wait in pairs(waits) do
    for at = 1, 300 do
      pcall(function()
        debug.sethook(strike, "", at)
        wait()
        debug.sethook()
      end)
      if at % 20 == 0 then
        local began = tcp.now()
        tcp.sleep(0.003)
        local _, err = conn:try_read(1, { timeout = 0.003 })
        local taken = tcp.now() - began
        assert(err.kind == "timeout" and taken >= 0.006 and taken < 1, name .. " struck at " .. at .. ": " .. taken)
      end
    end
  end
  far:write("still there")
  print(conn:read(11), tcp.run(function() tcp.sleep(0.001) return "and runs" end), jit or beside > 100)
  if ticker then
    ticker:cancel()
    ticker:try_join()
  end
]]

describe("an error that strikes anywhere in a wait", function()
  it("leaves later waits as they should be", function()
    assert.matches("^still there\tand runs\t[^f]", support.child(SCRIPT, "timeout 60"))
  end)
end)
