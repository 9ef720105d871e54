-- A write that timed out and was not continued ended, at close or when the connection was collected, with TLS's closing
-- alert: the peer took a part for the whole.

local tcp = require("tcp.core")
local support = require("support")
local transports = require("support.transports")

local fails = support.fails
local LARGE = ("x"):rep(8000000)

describe("a write over TLS that timed out", function()
  local near, far

  before_each(function()
    -- Not the one that was dialled: the legacy functions keep that one.
    far, near = transports.tls.pair(nil, { write_timeout = 0.05 })
  end)

  local function cut()
    local err = fails("timeout", near:try_write(LARGE))
    assert.is_true(err.written > 0 and err.written < #LARGE)
    return err.written
  end

  it("is cut off for the peer if the connection is closed then", function()
    cut()
    near:close()
    fails("truncated", far:try_read_str({ timeout = 10 }))
    far:close()
  end)

  it("is cut off for the peer if the connection is forgotten then", function()
    cut()
    near = nil
    collectgarbage()
    collectgarbage()
    fails("truncated", far:try_read_str({ timeout = 10 }))
    far:close()
  end)

  it("is whole if the rest was written", function()
    local written = cut()
    near:set_write_timeout(10)
    local reading = tcp.spawn(far.read_str, far, { timeout = 10 })
    near:write(LARGE:sub(written + 1))
    near:close()
    assert.is_true(reading:join(10) == LARGE)
    far:close()
  end)
end)
