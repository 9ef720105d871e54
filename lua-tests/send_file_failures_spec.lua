-- conn:send_file where something goes wrong: what it fails with, how far it got, and what is left.

local lfs = require("lfs")
local tcp = require("tcp.core")
local copies = require("support.copies")
local peers = require("support.peers")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local fails = support.fails
local trying, succeeds = tasks.trying, tasks.succeeds
-- Far more than the buffers on the way hold.
local BYTES = copies.bytes(3000017)
-- A wait long enough to strike, and how long anything may take at most.
local SHORT, PATIENCE = 0.03, 20

local function test(name, body)
  it(name, copies.cleanly(body))
end

--- A path and a Lua file of the same bytes.
local function files()
  local file, path = copies.open("rb", BYTES)
  return { path, file }
end

--- Asserts that the far end gets the first `written` bytes, and nothing else. Closes the near one.
local function got_exactly(kind, near, far, written)
  near:close()
  local result = trying(far, "read_str"):join(PATIENCE)
  local bytes = result.value or far:read(far:buffered())
  assert.is_true(bytes == BYTES:sub(1, #bytes), "other bytes")
  -- TLS encrypts before it sends: what the system had not taken of it is lost.
  assert.is_true(#bytes == written or kind == "a TLS connection" and #bytes < written)
  far:close()
end

--- Asserts that the position of an open file has moved with what was sent of it.
local function has_moved(file, written)
  if type(file) ~= "string" then
    assert.equal(written, file:seek())
  end
end

for _, kind in ipairs(copies.CONNECTIONS) do
  describe("send_file that fails to " .. kind, function()
    after_each(copies.clean)

    --- Nothing was sent: the connection is as good as new.
    local function is_unharmed(near, far)
      near:write("fine")
      assert.equal("fine", far:read(4, { timeout = PATIENCE }))
    end

    --- Its sending side has ended; reading goes on.
    local function has_ended(near, far)
      assert.equal(0, fails("closed", near:try_write("later")).written)
      assert.equal(0, fails("closed", near:try_send_file("/proc/version")).written)
      far:write("heard")
      assert.equal("heard", near:read(5, { timeout = PATIENCE }))
    end

    test("for want of the file says which, and sends nothing", function()
      local near, far = copies.pair(kind)
      local folder = copies.path()
      lfs.mkdir(folder)
      local open_folder = copies.opens(assert(io.open(folder, "rb")))
      local write_only = copies.open("wb", "")
      write_only:write("not to be read")
      write_only:seek("set", 0)
      for _, case in ipairs {
        { folder .. "/missing", 2 }, { folder, 21 }, { open_folder, 21 }, { write_only, 9 },
        { ("x"):rep(5000), 36 }, { folder .. "/missing/file", 2 }, { "/proc/version/file", 20 },
      } do
        local err = fails("system", near:try_send_file(case[1]))
        assert.equal(case[2], err.errno, tostring(case[1]))
        assert.equal(0, err.written)
        assert.equal("send_file", err.op)
        assert.equal(fails("timeout", near:try_read(1, { timeout = 0 })).peer, err.peer)
        if type(case[1]) == "string" then
          assert.is_truthy(err.message:find(case[1]:sub(1, 100), 1, true), err.message)
        end
        support.raises("system", near.send_file, near, case[1])
        is_unharmed(near, far)
      end
    end)

    test("does not take a path for another one: a zero byte ends it", function()
      local near, far = copies.pair(kind)
      local ok, value, err = pcall(near.try_send_file, near, "/proc/version\0.txt")
      assert.is_true(not ok or value == nil and err.written == 0)
      is_unharmed(near, far)
    end)

    test("when it is closed before", function()
      local near = copies.pair(kind)
      near:close()
      for _, file in ipairs(files()) do
        local err = fails("closed", near:try_send_file(file))
        assert.equal("send_file", err.op)
        assert.equal(0, err.written)
        has_moved(file, 0)
      end
    end)

    test("by a timeout or deadline half-way ends its sending side, and says how far it got", function()
      local all = {}
      for _, setter in ipairs { "set_write_timeout", "set_timeout", "set_write_deadline", "set_deadline" } do
        for _, file in ipairs(files()) do
          local near, far = copies.narrow(kind)
          near[setter](near, SHORT)
          all[#all + 1] = { setter = setter, file = file, near = near, far = far,
            sending = trying(near, "send_file", file) }
        end
      end
      for _, one in ipairs(all) do
        local err = tasks.fails("timeout", one.sending)
        one.near[one.setter](one.near, nil)
        assert.equal("send_file", err.op)
        assert.is_true(err.written > 0 and err.written < #BYTES)
        has_moved(one.file, err.written)
        has_ended(one.near, one.far)
        got_exactly(kind, one.near, one.far, err.written)
      end
    end)

    test("before its turn sends nothing and breaks nothing", function()
      local near, far = copies.narrow(kind)
      local first = trying(near, "write", BYTES)
      copies.arrives(far)
      local both = files()
      near:set_write_timeout(SHORT)
      local timed = { trying(near, "send_file", both[1]), trying(near, "send_file", both[2]) }
      tcp.sleep(0)
      near:set_write_timeout(nil)
      local cancelled = { trying(near, "send_file", both[1]), trying(near, "send_file", both[2]) }
      local last = trying(near, "write_line", "last")
      for i = 1, 2 do
        assert.equal(0, tasks.fails("timeout", timed[i]).written)
        cancelled[i]:cancel()
        fails("cancelled", cancelled[i]:try_join(PATIENCE))
      end
      has_moved(both[2], 0)
      local reader = trying(far, "read_str")
      assert.equal(near, succeeds(first))
      assert.equal(near, succeeds(last))
      near:close()
      assert.is_true(succeeds(reader) == BYTES .. "last\r\n")
    end)

    for _, way in ipairs { "cancel", "with_timeout" } do
      test("by " .. way .. " half-way ends its sending side, and says how far it got", function()
        for _, file in ipairs(files()) do
          local near, far = copies.narrow(kind)
          local err
          local function send()
            local _
            _, err = near:try_send_file(file)
          end
          local task = way == "cancel" and tcp.spawn(send) or tcp.spawn(tcp.try_with_timeout, 3 * SHORT, send)
          copies.arrives(far)
          local queued = trying(near, "write_line", "queued")
          tcp.sleep(0)
          if way == "cancel" then
            task:cancel()
          end
          task:try_join(PATIENCE)
          assert.equal("send_file", fails("cancelled", nil, err).op)
          assert.is_true(err.written > 0 and err.written < #BYTES)
          has_moved(file, err.written)
          assert.equal(0, tasks.fails("closed", queued).written)
          has_ended(near, far)
          got_exactly(kind, near, far, err.written)
        end
      end)
    end

    test("because another task closes it tells both who wait", function()
      for _, file in ipairs(files()) do
        local near, far = copies.narrow(kind)
        local sending = trying(near, "send_file", file)
        copies.arrives(far)
        local queued = trying(near, "send_file", file, 1)
        tcp.sleep(0)
        near:close()
        local err = tasks.fails("closed", sending)
        assert.is_true(err.written > 0 and err.written < #BYTES)
        has_moved(file, err.written)
        assert.equal(0, tasks.fails("closed", queued).written)
        got_exactly(kind, near, far, err.written)
      end
    end)

    test("leaves no descriptor of the file behind", function()
      local path = copies.path(BYTES)
      local before = peers.descriptors()
      for _ = 1, 5 do
        local near, far = copies.narrow(kind)
        local sending = trying(near, "send_file", path)
        copies.arrives(far)
        sending:cancel()
        sending:try_join(PATIENCE)
        fails("closed", near:try_send_file(path))
        near:close()
        far:close()
        near, far = copies.narrow(kind)
        near:set_write_timeout(0)
        fails("timeout", near:try_send_file(path))
        near:close()
        fails("closed", near:try_send_file(path))
        fails("system", far:try_send_file("/tmp"))
        far:close()
        -- Until nothing lingers.
        tcp.run()
      end
      assert.equal(before, peers.descriptors())
    end)
  end)
end

for _, over in ipairs(transports.all) do
  describe("send_file" .. over.suffix, function()
    after_each(copies.clean)

    test("to a peer that resets or closes fails with reset, and says how far it got", function()
      for _, ending in ipairs { "reset", "close" } do
        for _, file in ipairs(files()) do
          local conn = copies.opens(over.connect_to("accept", { "skip", 100000 }, ending))
          conn:set_option("send_buffer", 16384)
          local err = fails("reset", conn:try_send_file(file))
          assert.equal("send_file", err.op)
          assert.is_true(err.written >= 100000 and err.written < #BYTES)
          has_moved(file, err.written)
          assert.equal(0, fails("reset", conn:try_send_file(file, 1)).written)
          conn:close()
        end
      end
    end)

    test("to a peer that has half-closed goes on", function()
      for _, file in ipairs(files()) do
        local conn, peer = over.connect_to("accept", { "send", "end" }, "shutdown", "drain")
        assert.equal("end", conn:read_str())
        assert.equal(#BYTES, conn:send_file(file))
        conn:close()
        assert.is_true(peer:got() == BYTES)
      end
    end)
  end)
end

describe("send_file", function()
  after_each(copies.clean)

  test("takes its timeout anew whenever bytes move", function()
    local LIMIT, PAUSE, TIMES = 0.6, 0.1, 8
    local begun = {}
    for _, kind in ipairs(copies.CONNECTIONS) do
      for _, file in ipairs(files()) do
        local near, far = copies.narrow(kind)
        near:set_write_timeout(LIMIT)
        begun[#begun + 1] = trying(near, "send_file", file)
        tcp.spawn(function()
          for _ = 1, TIMES do
            tcp.sleep(PAUSE)
            far:try_read(math.floor(#BYTES / TIMES))
          end
          far:try_read_str()
        end)
      end
    end
    for _, task in ipairs(begun) do
      assert.equal(#BYTES, succeeds(task))
    end
  end)

  test("from standard input's connection is refused: it is for reading only", function()
    assert.equal("closed\t0\n", support.child([[
      local tcp = require("tcp")
      local _, err = tcp.stdin():try_send_file("/proc/version")
      print(err.kind, err.written)
    ]], "</dev/null"))
  end)

  test("of a file that must not be read says so", function()
    -- As the files' owner, but without root's right to read everything.
    local common = "setpriv --bounding-set=-dac_override,-dac_read_search"
    if not support.succeeds(common .. " true") then
      return pending("to do without root's rights needs setpriv, and root")
    end
    local path = copies.path("secret")
    os.execute("chmod 000 " .. path)
    assert.equal("system\t13\t0\ttrue\n", support.child(([[
      local tcp = require("tcp")
      local conn = tcp.connect("127.0.0.1", %d)
      local _, err = conn:try_send_file("%s")
      print(err.kind, err.errno, err.written, err.message:find("%s", 1, true) ~= nil)
    ]]):format(peers.start("accept", "stall").port, path, path), common))
  end)

  test("without a descriptor for the file fails with system, and sends nothing", function()
    assert.equal("system\t24\t0\t13\tfile contents\n", support.child(([[
      local tcp = require("tcp")
      local listener = tcp.listen("127.0.0.1", 0)
      local near = tcp.connect("127.0.0.1", listener:local_port())
      local far = listener:accept()
      local held = {}
      while true do
        local file = io.open("/dev/null")
        if not file then break end
        held[#held + 1] = file
      end
      local _, err = near:try_send_file("%s")
      io.write(err.kind, "\t", err.errno, "\t", err.written)
      held[1]:close()
      print("", near:send_file("%s"), far:recv())
    ]]):format(copies.path("file contents"), copies.path("file contents")), "ulimit -n 64;"))
  end)
end)
