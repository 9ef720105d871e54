-- tcp.copy and conn:send_file in interpreters of their own: SIGPIPE, too few descriptors, and what the kernel is asked
-- to do.

local copies = require("support.copies")
local support = require("support")

local child = support.child
local BYTES = copies.bytes(1000003)
local PREFIX = "timeout 20"

local function test(name, body)
  it(name, copies.cleanly(body))
end

-- The pairs that a script connects are narrow in one direction.
local START = [[
  package.path = "lua-tests/?.lua;lua-tests/?/init.lua;" .. package.path
  local over = require("support.transports").%s
  local tcp = require("tcp.core")
  local path = "%s"
  local function pair()
    local near, far = over.pair()
    near:set_option("send_buffer", 65536)
    far:set_option("recv_buffer", 65536)
    return near, far
  end
  local function file() return assert(io.open(path, "rb")) end
  local function endless() return ("x"):rep(10000) end
]]

describe("SIGPIPE", function()
  after_each(copies.clean)

  -- These interpreters have its default action: to end them. A peer resets in the middle.
  local CALLS = {
    ["a copy from a file"] = "tcp.try_copy(file(), near)",
    ["a copy from a connection"] = "tcp.try_copy(source, near)",
    ["a copy from a function"] = "tcp.try_copy(endless, near)",
    ["send_file of a path"] = "near:try_send_file(path)",
    ["send_file of a file"] = "near:try_send_file(file())",
    ["send_file of a pipe"] = "near:try_send_file(io.popen('cat ' .. path))",
  }
  for name, call in pairs(CALLS) do
    test("is not raised by " .. name, function()
      for _, over in ipairs { "plain", "tls" } do
        assert.equal(("reset\treset\n"):rep(5), child(START:format(over, copies.path(BYTES:rep(3))) .. ([[
          for round = 1, 5 do
            local near, far = pair()
            local source, source_far = pair()
            local feeding = tcp.spawn(function() while source_far:try_write(("x"):rep(100000)) do end end)
            local task = tcp.spawn(function()
              local _, err = %s
              return err.kind
            end)
            far:recv(100)
            for _ = 1, round do tcp.sleep(0) end
            far:set_option("linger", 0)
            far:close()
            local kind = task:join(10)
            local _, again = near:try_send_file(path)
            print(kind, again.kind)
            near:close()
            source:close()
            feeding:join(10)
            source_far:close()
          end
        ]]):format(call), PREFIX), over)
      end
    end)
  end

  test("is not raised by pipes whose reader has gone", function()
    for _, source in ipairs { "file()", "near", "endless" } do
      assert.equal("reset\tcopy\n", child(START:format("plain", copies.path(BYTES)) .. ([[
        local near, far = pair()
        tcp.spawn(function() while far:try_write(("x"):rep(100000)) do end end)
        local pipe = io.popen("true", "w")
        local err
        repeat
          local source = %s
          _, err = tcp.try_copy(source, pipe, { limit = 1000000 })
          tcp.sleep(0)
        until err
        print(err.kind, err.op)
      ]]):format(source), PREFIX), source)
    end
  end)
end)

describe("without a free descriptor", function()
  after_each(copies.clean)

  test("copies go on as without the kernel's help", function()
    for _, over in ipairs { "plain", "tls" } do
      assert.equal("true\ttrue\ttrue\n", child(START:format(over, copies.path(BYTES)) .. [[
        local bytes = file():read("*a")
        local function feeding(far)
          tcp.spawn(function() far:write(bytes) far:shutdown("send") end)
        end
        local function draining(far)
          return tcp.spawn(function() return (far:read(#bytes)) == bytes end)
        end
        local source, source_far = pair()
        local target, target_far = pair()
        local from = file()
        local to = io.tmpfile()
        tcp.step(0)
        collectgarbage()
        collectgarbage()
        local held = {}
        repeat
          local another = io.open("/dev/null")
          held[#held + 1] = another
        until not another
        feeding(source_far)
        local drained = draining(target_far)
        tcp.copy(source, target)
        local first = drained:join(10)
        drained = draining(target_far)
        tcp.copy(from, target)
        local second = drained:join(10)
        feeding(target_far)
        tcp.copy(target, to, { limit = #bytes })
        to:seek("set", 0)
        print(first, second, to:read("*a") == bytes)
      ]], "ulimit -n 64; " .. PREFIX), over)
    end
  end)
end)

describe("a copy that has ended", function()
  after_each(copies.clean)

  test("leaves no descriptors to the garbage collector", function()
    assert.equal("0\n", child(START:format("plain", copies.path(BYTES)) .. [[
      local peers = require("support.peers")
      collectgarbage()
      collectgarbage("stop")
      local source, source_far = pair()
      local target, target_far = pair()
      local function work()
        source_far:write("x")
        tcp.copy(source, target, { limit = 1 })
        local task = tcp.spawn(tcp.try_copy, source, target)
        tcp.sleep(0)
        task:cancel()
        task:try_join()
        target:send_file(path, 1, 5)
      end
      -- The loop's own ones are opened now.
      work()
      local before = peers.descriptors()
      for _ = 1, 10 do work() end
      print(peers.descriptors() - before)
    ]], PREFIX))
  end)
end)

-- Linux: bytes between files and plain sockets need not pass through the process.
describe("the kernel copies", function()
  after_each(copies.clean)

  local SIZE = 8 * 1024 * 1024
  local CALLS_OF_KERNEL = "sendfile,splice,copy_file_range"

  --- The sum of what those calls gave in a script.
  local function moved_by_kernel(over, call)
    local log = copies.path("")
    local script = START:format(over, copies.path(("x"):rep(SIZE))) .. ([[
      local size = %d
      local near, far = pair()
      local source, source_far = pair()
      local drain = tcp.spawn(function()
        local count = 0
        while count < size do count = count + #far:recv(65536) end
      end)
      local feed = tcp.spawn(function() source_far:write(("x"):rep(size)) source_far:shutdown("send") end)
      print(%s)
      near:close()
      source:close()
      drain:cancel()
      feed:cancel()
    ]]):format(SIZE, call)
    local output = child(script, ("timeout 60 strace -f -o %s -e trace=%s"):format(log, CALLS_OF_KERNEL))
    assert.equal(tostring(SIZE) .. "\n", output)
    local sum = 0
    for count in copies.contents(log):gmatch("%) += (%d+)") do
      sum = sum + tonumber(count)
    end
    return sum
  end

  for name, call in pairs {
    ["a path to a connection"] = "near:send_file(path)",
    ["an open file to a connection"] = "near:send_file(file())",
    ["a file to a connection"] = "tcp.copy(file(), near)",
    ["a connection to a connection"] = "tcp.copy(source, near)",
  } do
    test(name, function()
      if not support.succeeds("strace -o /dev/null true") then
        return pending("what the kernel is asked to do is told by strace, which is not there or not allowed")
      end
      assert.is_true(moved_by_kernel("plain", call) >= 0.9 * SIZE)
    end)
  end
end)
