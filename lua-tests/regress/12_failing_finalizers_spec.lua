-- On Lua 5.1 to 5.3 and LuaJIT the error of a finalizer comes out of whatever allocates. Out of a read it left the
-- connection locked for ever, or ended the process.

local peers = require("support.peers")
local support = require("support")

-- In an interpreter of its own: the last finalizers fail whenever they like.
local SCRIPT = [[
  local tcp = require("tcp")
  local function fail()
    error("a finalizer fails")
  end
  local function litter()
    if newproxy then
      getmetatable(newproxy(true)).__gc = fail
    else
      setmetatable({}, { __gc = fail })
    end
  end

  local conn = tcp.connect("127.0.0.1", %d)
  local line, reads, strikes, other = ("x"):rep(999), 0, 0, nil
  -- One step of the collector is a whole cycle, finalizers included.
  collectgarbage("setpause", 1)
  collectgarbage("setstepmul", 1000000)

  -- The collector runs from "restart" on: within the read, which is the first to allocate then.
  local function attempt(number)
    if number %% 2 == 0 then
      litter()
    end
    collectgarbage("restart")
    local read = conn:read_line()
    collectgarbage("stop")
    assert(read == line)
    reads = reads + 1
  end
  collectgarbage("stop")
  for number = 1, 40 do
    local ok, err = pcall(attempt, number)
    collectgarbage("stop")
    if not ok and tostring(err):find("a finalizer fails") then
      strikes = strikes + 1
    elseif not ok then
      other = err
    end
  end
  conn:close()
  print(reads > 0, strikes > 0, conn:is_closed(), other)
  io.stdout:flush()
  os.exit(0)
]]

describe("a finalizer that fails during a read", function()
  it("leaves a connection that can be used and closed", function()
    local peer = peers.start("accept", { "repeat", 100, ("x"):rep(999) .. "\n" }, "close")
    -- From Lua 5.4 on such an error is a warning, and comes out of nothing.
    local strikes = tostring(_VERSION < "Lua 5.4")
    assert.equal("true\t" .. strikes .. "\ttrue\tnil\n", support.child(SCRIPT:format(peer.port)))
  end)
end)
