-- Ctrl-C whose hook struck in the middle of one of the module's functions in Rust arrived as an object of mlua's
-- instead of the string, and on LuaJIT it was taken for the failure of a task. A hook stands for it, at each call in
-- turn.

local tcp = require("tcp.core")
local transports = require("support.transports")

-- Name: makes what is called, and what clears up after it.
local CALLS = {
  ["a line that has arrived"] = function()
    local near, far = transports.plain.pair()
    near:write("line\n")
    far:peek(1)
    return function() return far:read_line() end, function() near:close() far:close() end
  end,
  ["a write of JSON"] = function()
    local near, far = transports.plain.pair()
    return function() near:write_json { 1, { a = "b" } } end, function() near:close() far:close() end
  end,
  ["a timeout"] = function()
    local near, far = transports.plain.pair()
    return function() return far:try_read(1, { timeout = 0 }) end, function() near:close() far:close() end
  end,
  ["a look at a connection"] = function()
    local near, far = transports.plain.pair()
    return function() return near:remote_addr() .. near:host() end, function() near:close() far:close() end
  end,
  ["a listener"] = function()
    return function() tcp.listen("127.0.0.1", 0):close() end, function() end
  end,
  ["a refused connection"] = function()
    local listener = tcp.listen("127.0.0.1", 0)
    local port = listener:local_port()
    listener:close()
    return function() return tcp.try_connect("127.0.0.1", port) end, function() end
  end,
  ["a datagram"] = function()
    local socket = tcp.udp_listen("127.0.0.1", 0)
    local port = socket:local_port()
    return function()
      socket:send_to("datagram", "127.0.0.1", port)
      return socket:recv_from(100, 10)
    end, function() socket:close() end
  end,
  ["a resolution"] = function()
    return function() return tcp.resolve("127.0.0.1") end, function() end
  end,
}

--- Calls `fn`, and has a hook raise at its `n`th call or return. Gives whether it struck, and what came of that.
local function interrupted(n, run, fn)
  local count, has_struck = 0, false
  local function strike()
    count = count + 1
    if count == n then
      debug.sethook()
      has_struck = true
      error("interrupted!", 0)
    end
  end
  local _, problem = pcall(run, function()
    debug.sethook(strike, "cr")
    fn()
    debug.sethook()
  end)
  debug.sethook()
  return has_struck, problem
end

describe("what a hook raises arrives as it was raised, out of", function()
  for name, prepare in pairs(CALLS) do
    for place, run in pairs { [""] = function(fn) return fn() end, [" in a task"] = tcp.run } do
      it(name .. place, function()
        local n = 0
        local has_struck, problem
        repeat
          n = n + 1
          local fn, clear_up = prepare()
          has_struck, problem = interrupted(n, run, fn)
          clear_up()
          if has_struck then
            assert.equal("interrupted!", problem, "at call or return " .. n)
          end
        until not has_struck
        assert.is_true(n > 6, "the hook was called " .. n .. " times only")
      end)
    end
  end
end)
