-- A listener had woken one of several who waited for a connection; when that one was cancelled before it ran, the
-- others slept on, although the connection was there.

local tcp = require("tcp.core")
local tasks = require("support.tasks")
local transports = require("support.transports")

local PATIENCE = 10

describe("a connection that comes while one who accepts is cancelled", function()
  after_each(tasks.finish_all)

  it("goes to another who waits", function()
    for round = 1, 10 do
      local listener = tcp.listen("127.0.0.1", 0)
      local near, far = transports.plain.pair()
      local canceller, first
      canceller = tasks.spawn(function()
        far:read_line()
        first:cancel()
      end)
      first = tasks.spawn(listener.accept, listener)
      local second = tasks.spawn(listener.accept, listener)
      tcp.sleep(0)
      -- Both arrive before the loop looks again.
      near:write("now\n")
      local client = tcp.connect("127.0.0.1", listener:local_port(), 0)
      canceller:join(PATIENCE)
      local conn = first:try_join(PATIENCE) or second:join(PATIENCE)
      assert.equal(client:local_addr(), conn:remote_addr(), round)
      second:cancel()
      transports.close_all(listener, near, far, client, conn)
    end
  end)
end)
