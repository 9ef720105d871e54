-- An error that struck between two instructions of a wait, as Ctrl-C or a debug hook of the script's does, left the
-- module believing in a timer that was never set: every later wait with a time limit hung.

local support = require("support")
local transports = require("support.transports")

local SCRIPT = [[
  local conn, far = require("support.transports").%s.pair()
  local tcp = require("tcp")
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
      if at %% 20 == 0 then
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
  for _, over in ipairs(transports.all) do
    it("leaves later waits as they should be" .. over.suffix, function()
      local script = SCRIPT:format(over.is_tls and "tls" or "plain")
      local found = "package.path = 'lua-tests/?.lua;lua-tests/?/init.lua;' .. package.path\n"
      assert.matches("^still there\tand runs\t[^f]", support.child(found .. script, "timeout 60"))
    end)
  end
end)
