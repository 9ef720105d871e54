-- Run by busted before the specs: after every test its peers are ended and nothing may be left open.

local busted = require("busted")
local lfs = require("lfs")
local peers = require("support.peers")

-- The loop's own descriptor stays open as long as the process.
require("tcp.core").pollfd()

local descriptors = peers.descriptors
local linux = lfs.attributes("/proc/self/fd") ~= nil
local before

busted.subscribe({ "test", "start" }, function()
  if linux then
    collectgarbage()
    collectgarbage()
    before = descriptors()
  end
  return nil, true
end)

busted.subscribe({ "test", "end" }, function(element, _, status)
  peers.finish_all()
  -- A test that failed half-way could not close what it had opened.
  if linux and status == "success" then
    collectgarbage()
    collectgarbage()
    local left = descriptors() - before
    if left > 0 then
      io.stderr:write(("%d descriptors left open by: %s\n"):format(left, element.name))
      os.exit(1)
    end
  end
  return nil, true
end, { priority = 1 })

return true
