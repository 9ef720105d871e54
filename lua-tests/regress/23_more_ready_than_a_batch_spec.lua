-- Of more than 1,024 connections that had become ready, the others were taken for those whose time was up.

local tcp = require("tcp.core")

describe("readers that are ready in time", function()
  it("do not time out, however many they are", function()
    local COUNT = 1300
    local listener = tcp.listen("127.0.0.1", 0)
    local near, readers, got = {}, {}, 0
    for i = 1, COUNT do
      near[i] = tcp.connect("127.0.0.1", listener:local_port())
      local far = listener:accept()
      readers[i] = tcp.spawn(function()
        if far:try_read(1, { timeout = 0.5 }) then
          got = got + 1
        end
        far:close()
      end)
    end
    tcp.sleep(0)
    for i = 1, COUNT do
      near[i]:write("x")
    end
    -- Nobody runs until everybody's time is up.
    local busy = tcp.now() + 0.6
    repeat until tcp.now() > busy
    for i = 1, COUNT do
      readers[i]:join()
      near[i]:close()
    end
    listener:close()
    assert.equal(COUNT, got)
  end)
end)
