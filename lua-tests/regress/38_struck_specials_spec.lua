-- What an error from outside (Ctrl-C) left when it struck between two instructions: a source that was busy for ever, a
-- task that never began and that every later `run` waited for, and connections without methods, if it had struck while
-- the first one was made. And a pipe that was closed while a copy used it waited for ever for its process.

local tcp = require("tcp.core")
local copies = require("support.copies")
local strikes = require("support.strikes")
local support = require("support")

describe("after an error from outside", function()
  after_each(copies.clean)

  it("the source of a copy can be read from", copies.cleanly(function()
    local n = 0
    repeat
      n = n + 1
      local near, far = copies.pair("a connection")
      local target = copies.pair("a connection")
      far:write("bytes")
      local has_struck = strikes.at(n, strikes.here, function() tcp.copy(near, target, { limit = 5 }) end)
      far:write("more")
      local bytes, err = near:try_recv(100, { timeout = 10 })
      assert.is_truthy(bytes, n .. ": " .. tostring(err))
    until not has_struck
    assert.is_true(n > 40)
  end))

  it("nobody waits for ever for a task whose spawn was cut", function()
    local n = 0
    repeat
      n = n + 1
      local has_struck = strikes.at(n, strikes.here, function() tcp.spawn(function() end) end)
      tcp.run()
    until not has_struck
    assert.is_true(n > 5)
  end)

  it("later connections have their methods, though it struck in the first one", function()
    for n = 1, 60, 3 do
      assert.equal("usable\n", support.child(([[
        package.path = "lua-tests/?.lua;" .. package.path
        local tcp = require("tcp.core")
        local strikes = require("support.strikes")
        local function attempt()
          local listener = tcp.listen("127.0.0.1", 0)
          local near = tcp.connect("127.0.0.1", listener:local_port())
          local far = listener:accept()
          far:write(near:local_port())
          tcp.udp_listen("127.0.0.1", 0):close()
        end
        strikes.at(%d, strikes.here, attempt)
        print(pcall(attempt) and "usable" or "broken")
        os.exit(0)
      ]]):format(n)), n)
    end
  end)
end)

describe("a pipe that is closed while a copy", function()
  after_each(copies.clean)

  it("writes to it ends its process, and the copy fails with closed", copies.cleanly(function()
    local source, source_far = copies.pair("a connection")
    local pipe, copied = io.popen("cat > /dev/null", "w"), 0
    local copying = tcp.spawn(function()
      local _, err = tcp.try_copy(source, pipe, { progress = function(total) copied = total end })
      return err
    end)
    source_far:write("bytes")
    copies.wait_until(function() return copied == 5 end)
    pipe:close()
    source_far:write("more")
    assert.equal("closed", copying:join(10).kind)
  end))

  it("reads from it ends its process, and the copy fails with closed", copies.cleanly(function()
    local pipe, queue, has_begun = io.popen("yes"), tcp.queue(), false
    local copying = tcp.spawn(function()
      local _, err = tcp.try_copy(pipe, function()
        has_begun = true
        queue:pop()
      end)
      return err
    end)
    copies.wait_until(function() return has_begun end)
    pipe:close()
    queue:close()
    assert.equal("closed", copying:join(10).kind)
  end))
end)
