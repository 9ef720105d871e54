-- What a write has taken and the system has not yet: under TLS it is sealed and waits in the connection.

local support = require("support")
local transports = require("support.transports")

local fails = support.fails

local CHUNK = ("x"):rep(100000)
-- Within it a write that nothing hinders has left.
local PATIENCE = 5

for _, over in ipairs(transports.all) do
  describe("what a write has taken" .. over.suffix, function()
    local tcp = over.tcp
    local near, far

    --- Sends until nothing more is taken, and gives how much was.
    local function fill()
      local taken = 0
      local count, err = near:try_send_some(CHUNK)
      while count do
        taken = taken + count
        count, err = near:try_send_some(CHUNK)
      end
      fails("timeout", nil, err)
      assert.equal(0, err.written)
      return taken
    end

    --- Has a task read so much at the far end, and answer with a line.
    local function answer_after(count)
      return tcp.spawn(function()
        far:read(count, { timeout = PATIENCE })
        far:write_line("all of it")
      end)
    end

    before_each(function()
      near, far = over.pair()
      near:set_option("send_buffer", 16384)
      near:set_write_timeout(0)
    end)

    after_each(function()
      near:close()
      far:close()
    end)

    it("leaves while its sender reads", function()
      local answer = answer_after(fill())
      assert.equal("all of it", near:read_line({ timeout = PATIENCE }))
      answer:join()
    end)

    it("leaves while its sender reads in a task", function()
      local answer = answer_after(fill())
      assert.equal("all of it", tcp.run(function()
        local line = near:read_line({ timeout = PATIENCE })
        return line
      end))
      answer:join()
    end)

    it("leaves while its sender reads in a task that has waited before", function()
      far:write_line("before")
      assert.equal("all of it", tcp.run(function()
        near:read_line({ timeout = PATIENCE })
        fails("timeout", near:try_read_line({ timeout = 0.01 }))
        local answer = answer_after(fill())
        local line = near:read_line({ timeout = PATIENCE })
        answer:join()
        return line
      end))
    end)

    it("leaves while its sender reads, though the write timed out", function()
      local written = 0
      while true do
        local count = fails("timeout", near:try_write(CHUNK)).written
        if count == 0 then
          break
        end
        written = written + count
      end
      local answer = answer_after(written)
      assert.equal("all of it", near:read_line({ timeout = PATIENCE }))
      answer:join()
    end)

    it("arrives whole after close", function()
      local taken = fill()
      near:close()
      local bytes, err = far:try_read_str({ timeout = PATIENCE })
      assert.is_nil(err)
      assert.equal(taken, #bytes)
    end)

    it("arrives whole after shutdown, which may be tried again", function()
      local taken = fill()
      local reader = tcp.spawn(function()
        local bytes = far:read_str({ timeout = PATIENCE })
        return #bytes
      end)
      local deadline = tcp.now() + PATIENCE
      local ok, err = near:try_shutdown("send")
      while not ok do
        fails("timeout", ok, err)
        assert.equal("w", near:events())
        assert.is_true(tcp.now() < deadline, "it never ends")
        tcp.sleep(0.001)
        ok, err = near:try_shutdown("send")
      end
      assert.equal(taken, reader:join())
    end)
  end)
end

-- It has no tasks: its waits are plain ones.
local LISTENER = [[
  local tcp = require("tcp")
  local listener = tcp.listen("127.0.0.1", 0, { tls = {
    cert = "build/certificates/server.pem", key = "build/certificates/server.key" } })
  print(listener:local_port())
  io.stdout:flush()
  local conn = listener:accept()
  conn:set_option("recv_buffer", 16384)
  conn:handshake()
  os.execute("sleep 0.2")
  local count = 0
  local chunk = conn:try_recv(65536, { timeout = 0.5 })
  while chunk do
    count = count + #chunk
    chunk = conn:try_recv(65536, { timeout = 0.5 })
  end
  conn:write_line(count)
  conn:try_read_str({ timeout = 10 })
]]

it("what is sealed leaves while a program without tasks waits for the answer", function()
  support.with_child(LISTENER, function(output)
    local port = tonumber(output:read("*l"))
    local conn = transports.tls.tcp.connect("127.0.0.1", port)
    conn:set_option("send_buffer", 16384)
    conn:set_write_timeout(0.02)
    local written = 0
    for _ = 1, 3 do
      written = written + fails("timeout", conn:try_write(("x"):rep(1000000))).written
    end
    assert.equal(tostring(written), conn:read_line({ timeout = 10 }))
    conn:close()
  end)
end)
