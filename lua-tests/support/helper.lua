-- Run by busted before the specs: after every test its peers are ended and nothing may be left open.

local busted = require("busted")
local lfs = require("lfs")
local peers = require("support.peers")

local tcp = require("tcp.core")

-- The loop's own descriptor stays open as long as the process.
tcp.pollfd()

local descriptors = peers.descriptors
local linux = lfs.attributes("/proc/self/fd") ~= nil
local before

-- Closed connections linger until their peers have ended, at most 2 s.
local LINGERING = 3

--- How many descriptors are left once nothing lingers and no garbage holds one.
local function left_open()
  local patience = tcp.now() + LINGERING
  local left = descriptors() - before
  while left > 0 and tcp.now() < patience do
    collectgarbage()
    collectgarbage()
    left = descriptors() - before
    if left > 0 and not pcall(tcp.step, 0.01) then
      break
    end
  end
  return left
end

busted.subscribe({ "test", "start" }, function()
  if linux then
    -- No garbage holds one: the last test has seen to it.
    before = descriptors()
  end
  return nil, true
end)

busted.subscribe({ "test", "end" }, function(element, _, status)
  peers.finish_all()
  -- Later tests rely on it. Plain Lua 5.1 does not tell.
  local is_told, is_running = pcall(collectgarbage, "isrunning")
  if is_told and not is_running then
    io.stderr:write(("the collector was left stopped by: %s\n"):format(element.name))
    os.exit(1)
  end
  -- A test that failed half-way could not close what it had opened.
  if linux and status == "success" then
    local left = left_open()
    if left > 0 then
      io.stderr:write(("%d descriptors left open by: %s\n"):format(left, element.name))
      os.exit(1)
    end
  end
  return nil, true
end, { priority = 1 })

return true
