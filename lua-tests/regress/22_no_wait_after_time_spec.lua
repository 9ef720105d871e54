-- A read that the loop had told that nothing was there did not ask the system any more once its scope was over or its
-- task cancelled, although bytes had come.

local tcp = require("tcp.core")
local transports = require("support.transports")

for _, over in ipairs(transports.all) do
  describe("what needs no wait" .. over.suffix, function()
    local function after_a_watched_read(use)
      local near, far = over.pair()
      tcp.run(function()
        local writer = tcp.spawn(function() near:write("one\n") end)
        assert.equal("one", far:read_line())
        writer:join()
        use(near, far)
      end)
      near:close()
      far:close()
      tcp.run()
    end

    it("succeeds in a with_timeout that is over", function()
      after_a_watched_read(function(near, far)
        near:write("two\n")
        assert.equal("two", tcp.with_timeout(0, function()
          local line = far:read_line()
          return line
        end))
      end)
    end)

    it("succeeds in a task that was cancelled", function()
      after_a_watched_read(function(near, far)
        local line
        local reader
        reader = tcp.spawn(function()
          near:write("two\n")
          reader:cancel()
          line = far:try_read_line()
        end)
        reader:try_join()
        assert.equal("two", line)
      end)
    end)
  end)
end
