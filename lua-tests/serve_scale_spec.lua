-- Thousands of clients of one server, which is one thread. Three crowds of 10,000 take some seconds; over TLS, where a
-- handshake costs a millisecond on either side, 2,000 do. `make bench-memory` has 10,000 of both and shows the figures.

local crowds = require("support.crowds")
local transports = require("support.transports")

local ROUNDS = 3

-- Lua 5.1 has larger tables and stacks, and a closure for each C function that mlua calls.
local IS_51 = _VERSION == "Lua 5.1" and not jit

local CROWDS = {
  { over = transports.plain, count = 10000, kib = IS_51 and 5.5 or 4 },
  { over = transports.tls, count = 2000, kib = 30 },
}

--- How much of what a crowd took has come back.
local function given_back(memory)
  return (memory.idle - memory.after) / (memory.idle - memory.before)
end

--- Asserts that a number is at most a tenth larger than another.
local function assert_no_more(old, new)
  assert.is_true(new <= 1.1 * old, ("%d bytes, then %d"):format(old, new))
end

for _, crowd in ipairs(CROWDS) do
  describe(crowd.count .. " clients of one server" .. crowd.over.suffix, function()
    it(("cost at most %s KiB each while they are idle, and leave no more each time"):format(crowd.kib), function()
      local obstacle = crowds.obstacle(crowd.count)
      if obstacle then
        return pending(obstacle)
      end
      local rounds = crowds.measure(crowd.over, crowd.count, ROUNDS)
      local first = rounds[1]
      for _, memory in ipairs(rounds) do
        local each = (memory.resident.idle - memory.resident.before) / crowd.count
        assert.is_true(each <= crowd.kib * 1024, each .. " bytes each")
        assert_no_more(first.resident.idle, memory.resident.idle)
        assert_no_more(first.lua.after, memory.lua.after)
        -- What Lua keeps is tables that were large once, about 250 bytes for each of the crowd.
        local part = given_back(memory.lua)
        assert.is_true(part >= 0.85, part .. " of Lua's memory has come back")
        -- LuaJIT's own allocator keeps what it has for the next crowd.
        part = given_back(memory.resident)
        assert.is_true(jit ~= nil or part >= 0.85, part .. " of the memory has come back")
        assert_no_more(first.resident.idle, memory.resident.after)
      end
    end)
  end)
end
