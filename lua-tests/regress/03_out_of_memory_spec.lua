-- A peer that sends more than there is memory for ended the process, or left a connection that could not be closed.

local support = require("support")
local transports = require("support.transports")

for _, over in ipairs(transports.all) do
  describe("a stream larger than the memory" .. over.suffix, function()
    local options = over.is_tls and ("{ tls = { ca_bundle = %q } }"):format(transports.CLIENT.ca_bundle) or "nil"

    it("is an error of read_str, and the connection can be used and closed", function()
      local peer = over.start("accept", { "repeat", 10000, ("x"):rep(60000) }, "stall")
      local output = support.child(([[
        local tcp = require("tcp")
        local conn = tcp.connect("127.0.0.1", %d, %s)
        local ok, err = pcall(conn.read_str, conn)
        print(ok, not ok and (tostring(err):match("memory") or err))
        print(conn:is_closed(), conn:buffered() > 0, tostring(conn):match("^Connection"))
        print(#conn:read(5))
        conn:close()
        print(conn:is_closed())
      ]]):format(peer.port, options), "ulimit -v 400000;")
      assert.equal("false\tmemory\nfalse\ttrue\tConnection\n5\ntrue\n", output)
    end)

    it("is an error of read when Lua has no room for the string", function()
      local peer = over.start("accept", { "repeat", 3000, ("x"):rep(60000) }, "stall")
      local output = support.child(([[
        local tcp = require("tcp")
        local conn = tcp.connect("127.0.0.1", %d, %s)
        local ok, err = pcall(conn.read, conn, 150000000)
        print(ok, not ok and (tostring(err):match("memory") or err))
        print(conn:is_closed())
        conn:close()
        print(conn:is_closed())
      ]]):format(peer.port, options), "ulimit -v 350000;")
      assert.equal("false\tmemory\nfalse\ntrue\n", output)
    end)
  end)
end
