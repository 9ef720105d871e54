-- A connection that floods a server keeps nobody else from his turn.

local floods = require("support.floods")
local serving = require("support.serving")
local tcp = require("tcp.core")

local MOST = 5
-- About a millisecond's.
local MOST_LINES = 4096

for _, over_name in ipairs { "plain", "tls" } do
  local over = serving[over_name]
  describe("a server" .. over.suffix, function()
    after_each(serving.clean)

    for _, name in ipairs(floods.NAMES) do
      it("lets a flood of " .. name .. " starve nobody", function()
        local with, without = floods.in_child(over_name, name)
        assert.is_true(with <= MOST * without, ("%.2f ms instead of %.2f ms"):format(with * 1000, without * 1000))
      end)
    end

    it("lets others have their turn after so many lines that have arrived", serving.cleanly(function()
      local lines, most, ended = 0, 0, false
      local server = over.serve(function(conn)
        while conn:try_read_line() do
          lines = lines + 1
        end
        ended = true
      end)
      local client = over.connect(server)
      local sending = tcp.spawn(function()
        local data = ("\n"):rep(65536)
        for _ = 1, 4 do
          client:write(data)
        end
        client:close()
      end)
      tcp.run(function()
        local last = 0
        while not ended do
          tcp.sleep(0)
          most, last = math.max(most, lines - last), lines
        end
      end)
      sending:join(10)
      assert.equal(4 * 65536, lines)
      assert.is_true(most <= MOST_LINES, most .. " lines in one turn")
    end))
  end)
end
