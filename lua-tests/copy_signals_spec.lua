-- Ctrl-C in the middle of tcp.copy and conn:send_file.

local copies = require("support.copies")
local support = require("support")

local BYTES = copies.bytes(1000003)

local function test(name, body)
  it(name, copies.cleanly(body))
end

-- The pairs that a script connects are narrow in one direction: the first end has to wait for the second.
local START = [[
  package.path = "lua-tests/?.lua;lua-tests/?/init.lua;" .. package.path
  local over = require("support.transports").%s
  local tcp = require("tcp.core")
  local path, kept = "%s", {}
  local function pair()
    local near, far = over.pair()
    near:set_option("send_buffer", 65536)
    far:set_option("recv_buffer", 65536)
    kept[#kept + 1] = { near, far }
    return near, far
  end
  local function silent() return (pair()) end
  local function stalled() return (pair()) end
  local function file(mode, name) return assert(io.open(name or path, mode or "rb")) end
  local function endless() return ("x"):rep(10000) end
  local function sink() end
  local function waiting()
    print("waiting")
    io.stdout:flush()
  end
]]

-- What never ends by itself.
local CALLS = {
  ["a copy that waits for its source"] = "tcp.copy(silent(), stalled())",
  ["a copy that waits for its source, to a file"] = "tcp.copy(silent(), file('wb', '/dev/null'))",
  ["a copy that waits for its target"] = "tcp.copy(endless, stalled())",
  ["a copy that waits for its target, from a file"] = "tcp.copy(file('rb', '/dev/zero'), stalled())",
  ["a try_copy that waits"] = "tcp.try_copy(silent(), stalled())",
  ["a copy that waits in its source"] = "tcp.copy(function() tcp.sleep(60) end, sink)",
  ["a copy that waits in its target"] = "tcp.copy(endless, function() tcp.sleep(60) end)",
  ["a copy that waits in its progress"] = "tcp.copy(endless, sink, { progress = function() tcp.sleep(60) end })",
  ["a copy that never waits"] = "tcp.copy(endless, sink)",
  ["a copy between files that never waits"] = "tcp.copy(file('rb', '/dev/zero'), file('wb', '/dev/null'))",
  ["send_file of a path"] = "stalled():send_file('/dev/zero')",
  ["try_send_file of a file"] = "stalled():try_send_file(file('rb', '/dev/zero'))",
}

--- Waits until a process sleeps in the kernel, or gives up on one that is busy.
local function wait_until_asleep(pid, is_busy)
  for _ = 1, is_busy and 10 or 2000 do
    local stat = copies.contents("/proc/" .. pid .. "/stat")
    if stat:match("%) (%a)") == "S" then
      return
    end
    os.execute("sleep 0.005")
  end
  assert(is_busy, "the process did not wait")
end

describe("Ctrl-C", function()
  after_each(copies.clean)

  --- What a script prints that says "waiting" and is interrupted then.
  local function interrupted(over, script, is_busy)
    local rest
    support.with_child(START:format(over, copies.path(BYTES)) .. script, function(output, pid)
      assert.equal("waiting", output:read("*l"))
      wait_until_asleep(pid, is_busy)
      os.execute("kill -INT " .. pid)
      rest = output:read("*a")
    end)
    return rest
  end

  local function is_interrupted(over, run, name, call)
    assert.equal("false\tinterrupted!\n", interrupted(over, ([[
      local function wait()
        waiting()
        %s
        print("came back")
      end
      local ok, err = pcall(function() %s end)
      print(ok, tostring(err):match("interrupted!$"))
      os.exit(0)
    ]]):format(call, run), name:find("never", 1, true)))
  end

  for name, call in pairs(CALLS) do
    for place, run in pairs { ["in the main program"] = "wait()", ["in a task"] = "tcp.run(wait)" } do
      test(("interrupts %s, %s"):format(name, place), function()
        is_interrupted("plain", run, name, call)
      end)
    end
    if call:find("silent", 1, true) or call:find("stalled", 1, true) then
      test(("interrupts %s, over TLS"):format(name), function()
        is_interrupted("tls", "wait()", name, call)
      end)
    end
  end

  test("in the middle of a copy loses nothing of its source", function()
    assert.equal("false\ntrue\n", interrupted("plain", [[
      local near, far = pair()
      local bytes = file():read("*a"):rep(5)
      tcp.spawn(function() near:try_write(bytes) near:try_shutdown("send") end)
      local target, target_far = pair()
      waiting()
      print((pcall(tcp.copy, far, target)))
      target:close()
      local got = target_far:read_str()
      local rest = far:read_str()
      print(got .. rest == bytes)
    ]]))
  end)

  test("in the middle of a copy from a file leaves it behind what was sent", function()
    assert.equal("false\ntrue\n", interrupted("plain", [[
      local bytes = file():read("*a"):rep(5)
      local from = io.tmpfile()
      from:write(bytes)
      from:seek("set", 0)
      local target, target_far = pair()
      waiting()
      print((pcall(tcp.copy, from, target)))
      target:close()
      local got = target_far:read_str()
      print(#got > 0 and got .. from:read("*a") == bytes)
    ]]))
  end)
end)
