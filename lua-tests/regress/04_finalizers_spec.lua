-- Lua collects garbage in the middle of a read. A finalizer that used the same connection then was told that it had
-- forgotten the colon.

local tcp = require("tcp.core")
local transports = require("support.transports")

--- Calls `finalize` when the collector finds what this made.
local function litter(finalize)
  if newproxy then -- luacheck: ignore
    local proxy = newproxy(true) -- luacheck: ignore
    getmetatable(proxy).__gc = finalize
  else
    setmetatable({}, { __gc = finalize })
  end
end

for _, over in ipairs(transports.all) do
  describe("a finalizer that uses a connection in use" .. over.suffix, function()
    local connect_to = over.connect_to

    it("gets busy, and disturbs nothing", function()
      local conn = connect_to("accept", { "repeat", 300, ("x"):rep(99) .. "\n" }, "shutdown", "drain")
      local kinds, count = {}, 0
      for line in conn:lines() do
        assert.equal(99, #line)
        count = count + 1
        litter(function()
          local _, err = conn:try_write("x")
          if err then
            kinds[err.kind] = true
            local ok, raised = pcall(conn.buffered, conn)
            assert(ok or tcp.is_error(raised, "busy"))
          end
        end)
        litter(function() conn:is_tls() end)
        collectgarbage("step")
      end
      assert.equal(300, count)
      kinds.busy, kinds.reset = nil, nil
      assert.is_nil(next(kinds))
      conn:close()
    end)
  end)
end
