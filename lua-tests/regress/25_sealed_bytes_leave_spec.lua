-- Bytes that TLS had sealed and the system had not taken stayed where they were until the next write: also while a
-- reader was waiting that had begun before, and where nobody did anything with the connection.

local tcp = require("tcp.core")
local transports = require("support.transports")

local PATIENCE = 10

describe("what TLS has sealed", function()
  local near, far

  before_each(function()
    near, far = transports.tls.pair()
    near:set_option("send_buffer", 16384)
    far:set_option("recv_buffer", 16384)
  end)

  after_each(function()
    transports.close_all(near, far)
  end)

  local function take(count)
    local got = 0
    while got < count do
      local chunk, err = far:try_recv(65536, { timeout = 2 })
      assert.is_nil(err)
      got = got + #chunk
    end
    assert.equal(count, got)
  end

  it("leaves beside a reader that had begun to wait before", function()
    local reading = tcp.spawn(near.try_read_line, near, { timeout = PATIENCE })
    tcp.sleep(0.01)
    local written = 0
    near:set_write_timeout(0.02)
    for _ = 1, 3 do
      local _, err = near:try_write(("x"):rep(1000000))
      written = written + err.written
    end
    take(written)
    far:write("heard\n")
    assert.equal("heard", reading:join(PATIENCE))
  end)

  it("of send_some has left when it is said to be taken, unless time ran out", function()
    local taken = 0
    near:set_write_timeout(0.02)
    while true do
      local count = near:try_send_some(("x"):rep(60000))
      if not count then
        break
      end
      assert.is_true(count <= 16384)
      taken = taken + count
    end
    near:set_write_timeout(nil)
    -- Nobody does anything with `near` any more, but the next one that is taken.
    local sending = tcp.spawn(near.send_some, near, "last")
    take(taken + 4)
    assert.equal(4, sending:join(PATIENCE))
  end)

  it("does not keep a reader from reading, over any socket", function()
    local path = os.tmpname()
    os.remove(path)
    local over = transports.tls.tcp
    local listener = over.listen("unix:" .. path)
    for _, size in ipairs { 4096, 65536, 200000 } do
      local accepting = tcp.spawn(function()
        local conn = listener:accept()
        conn:handshake()
        return conn
      end)
      local one = over.connect("unix:" .. path)
      local two = accepting:join(PATIENCE)
      one:set_option("send_buffer", size)
      local writing = tcp.spawn(one.write, one, ("x"):rep(4000000))
      local reading = tcp.spawn(one.read, one, 1000000, { timeout = PATIENCE })
      two:write(("y"):rep(1000000))
      assert.equal(4000000, #two:read(4000000, { timeout = PATIENCE }))
      assert.equal(1000000, #reading:join(PATIENCE))
      writing:join(PATIENCE)
      transports.close_all(one, two)
    end
    listener:close()
  end)
end)
