-- Ctrl-C whose hook struck in the middle of one of the module's functions in Rust arrived as an object of mlua's
-- instead of the string, and on LuaJIT it was taken for the failure of a task. A hook stands for it, at each call in
-- turn.

local tcp = require("tcp.core")
local strikes = require("support.strikes")
local support = require("support")
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
  ["a connection"] = function()
    local listener = tcp.listen("127.0.0.1", 0)
    local port = listener:local_port()
    return function() tcp.connect("127.0.0.1", port):close() end, function() listener:close() end
  end,
  ["malformed JSON"] = function()
    return function() return tcp.json.try_decode("[1,") end, function() end
  end,
  ["a small copy"] = function()
    local near, far = transports.plain.pair()
    far:write("bytes")
    far:shutdown("send")
    return function() return tcp.copy(near, function() end) end, function() near:close() far:close() end
  end,
}

describe("what a hook raises arrives as it was raised, out of", function()
  for name, prepare in pairs(CALLS) do
    local places = { [""] = strikes.here }
    -- On LuaJIT the hook is everybody's, and strikes in the loop, too, which may then lose the task.
    places[" in a task"] = not rawget(_G, "jit") and tcp.run or nil
    for place, run in pairs(places) do
      it(name .. place, function()
        local n = 0
        local has_struck, problem
        repeat
          n = n + 1
          local fn, clear_up = prepare()
          has_struck, problem = strikes.at(n, run, fn)
          clear_up()
          if has_struck then
            assert.equal("interrupted!", problem, "at call or return " .. n)
          end
        until not has_struck
        assert.is_true(n > 6, "the hook was called " .. n .. " times only")
      end)
    end
  end

  -- In a process of its own: each look-up that is given up keeps a thread, and its descriptor, for a while.
  it("the look-up of a name", function()
    for _, call in ipairs { "resolve('localhost')", "try_udp('localhost', 9)", "try_connect('localhost', 1)" } do
      assert.equal("interrupted!\n", support.child(([[
        package.path = "lua-tests/?.lua;" .. package.path
        local tcp = require("tcp.core")
        local strikes = require("support.strikes")
        local n, seen = 0, {}
        repeat
          n = n + 1
          local has_struck, problem = strikes.at(n, strikes.here, function() return tcp.%s end)
          if has_struck and not seen[tostring(problem)] then
            seen[tostring(problem)] = true
            print(problem)
          end
        until not has_struck
        os.exit(0)
      ]]):format(call)), call)
    end
  end)
end)
