-- Thousands of clients of one server, which is one thread. Three crowds of 10,000 take some seconds.

local crowds = require("support.crowds")
local transports = require("support.transports")

local ROUNDS = 3

-- tools/serve-memory.sh has 10,000 come over TLS, too.
local CROWDS = {
  { over = transports.plain, count = 10000, kib = 4 },
  { over = transports.tls, count = 1000, kib = 30 },
}

--- Asserts that a number is at most a tenth larger than another.
local function assert_no_more(old, new)
  assert.is_true(new <= 1.1 * old, ("%d bytes, then %d"):format(old, new))
end

for _, crowd in ipairs(CROWDS) do
  describe(crowd.count .. " clients of one server" .. crowd.over.suffix, function()
    it(("cost at most %d KiB each while they are idle, and leave no more each time"):format(crowd.kib), function()
      local obstacle = crowds.obstacle(crowd.count)
      if obstacle then
        return pending(obstacle)
      end
      local rounds = crowds.measure(crowd.over, crowd.count, ROUNDS)
      local first = rounds[1]
      for _, memory in ipairs(rounds) do
        local each = (memory.resident.idle - memory.resident.before) / crowd.count
        assert.is_true(each <= crowd.kib * 1024, each .. " bytes each")
        -- The allocator gives little back to the system, but what one crowd has left the next one uses.
        assert_no_more(first.resident.idle, memory.resident.idle)
        assert_no_more(first.lua.after, memory.lua.after)
        -- What Lua keeps is tables that were large once.
        local given_back = (memory.lua.idle - memory.lua.after) / (memory.lua.idle - memory.lua.before)
        assert.is_true(given_back >= 0.9, given_back .. " of Lua's memory has come back")
      end
    end)
  end)
end
