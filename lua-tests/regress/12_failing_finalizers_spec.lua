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
  local line, lines, values, attempts, other = ("x"):rep(999), 0, 0, 0, nil

  -- Nothing allocates between a read that succeeded and its count.
  local function attempt()
    attempts = attempts + 1
    if attempts %% 4 == 0 then
      litter()
    end
    if lines < 50 then
      assert(conn:read_line() == line)
      lines = lines + 1
    else
      assert(conn:read_json()[3][1] == 3)
      values = values + 1
    end
  end
  local function check(err)
    if not tostring(err):find("a finalizer fails") then
      other = err
    end
  end
  while values < 50 and not other do
    local ok, err = pcall(attempt)
    if not ok then
      pcall(check, err)
    end
  end
  while not conn:is_closed() do
    pcall(conn.close, conn)
  end
  while not pcall(print, lines, values, other) do end
  io.stdout:flush()
  os.exit(0)
]]

describe("a finalizer that fails during a read", function()
  it("loses nothing, and leaves a connection that can be used and closed", function()
    local peer = peers.start("accept", { "repeat", 50, ("x"):rep(999) .. "\n" }, { "repeat", 50, "[[1],[2],[3]]\n" },
      "close")
    local output = support.child(SCRIPT:format(peer.port))
    -- Lua 5.4 and later warn about such finalizers, if asked to.
    assert.equal("50\t50\tnil\n", output)
  end)
end)
