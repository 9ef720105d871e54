-- A connect that succeeds at once never let other tasks run: an acceptor in the same program got no turn until its
-- backlog was full.

local tcp = require("tcp.core")

describe("connects that need no wait", function()
  for _, where in ipairs { "in a task", "outside tasks" } do
    it("let an acceptor run, " .. where, function()
      local listener = tcp.listen("127.0.0.1", 0, { backlog = 64 })
      local accepted = 0
      local acceptor = tcp.spawn(function()
        while true do
          listener:accept():close()
          accepted = accepted + 1
        end
      end)
      local function connect_often()
        for _ = 1, 300 do
          tcp.connect("127.0.0.1", listener:local_port(), 0.5):close()
        end
      end
      if where == "in a task" then
        tcp.run(connect_often)
      else
        connect_often()
      end
      assert.is_true(accepted > 200, accepted .. " accepted")
      acceptor:cancel()
      acceptor:try_join()
      listener:close()
    end)
  end
end)
