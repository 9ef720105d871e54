-- conn:send_file where nothing goes wrong: which bytes are sent, in what order, and what is left of the file.

local tcp = require("tcp.core")
local copies = require("support.copies")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local fails, misuse = support.fails, support.misuse
local trying, succeeds = tasks.trying, tasks.succeeds
local BYTES = copies.bytes(300007)
-- Far more than the buffers on the way hold.
local LONG = BYTES:rep(10)
local PATIENCE = 20

local function test(name, body)
  it(name, copies.cleanly(body))
end

--- Lets every task get to where it waits.
local function settle()
  for _ = 1, 10 do
    tcp.sleep(0)
  end
end

for _, kind in ipairs(copies.CONNECTIONS) do
  describe("send_file to " .. kind, function()
    after_each(copies.clean)

    test("sends all of a file, by its path and open, and gives the number of bytes", function()
      for place, run in pairs(copies.PLACES) do
        local target, got = copies.target(kind)
        local expected = {}
        for _, size in ipairs { 0, 1, 8192, 65536, #BYTES } do
          local bytes = BYTES:sub(1, size)
          local file, path = copies.open("rb", bytes)
          for _, form in ipairs { target.send_file, target.try_send_file } do
            assert.equal(size, run(form, target, path), place)
            file:seek("set", 0)
            assert.equal(size, run(form, target, file), place)
          end
          expected[#expected + 1] = bytes:rep(4)
        end
        assert.is_true(got() == table.concat(expected), place)
      end
    end)

    test("sends a part of it", function()
      local file, path = copies.open("rb", BYTES)
      local target, got = copies.target(kind)
      local expected = {}
      for _, part in ipairs {
        { 1 }, { 2 }, { #BYTES }, { #BYTES + 1 }, { #BYTES + 1000 }, { 2 ^ 40 }, { 1, 0 }, { 1, 1 }, { 7, 100000 },
        { #BYTES - 1, 2 }, { #BYTES - 1, 3 }, { #BYTES, 2 ^ 40 }, { #BYTES + 1, 5 }, { 1, #BYTES }, { 1, #BYTES + 1 },
        { "3", "4" }, { 3.0, 4.0 }, { nil, 5 },
      } do
        local first, count = tonumber(part[1] or 1), math.min(tonumber(part[2] or #BYTES), #BYTES)
        local bytes = BYTES:sub(first, first + count - 1)
        file:seek("set", 0)
        assert.equal(#bytes, target:send_file(path, part[1], part[2]))
        assert.equal(#bytes, target:send_file(file, part[1], part[2]))
        expected[#expected + 1] = bytes .. bytes
      end
      assert.is_true(got() == table.concat(expected))
    end)

    test("goes on at the position of an open file, and leaves it behind what was sent", function()
      local file = copies.open("rb", "line\n0123456789")
      local target, got = copies.target(kind)
      assert.equal("line", file:read("*l"))
      assert.equal(3, target:send_file(file, nil, 3))
      assert.equal(8, file:seek())
      assert.equal("34", file:read(2))
      assert.equal(5, target:send_file(file))
      assert.equal(15, file:seek())
      assert.equal(0, target:send_file(file))
      assert.is_nil(file:read(1))
      file:seek("end", -1)
      assert.equal(1, target:send_file(file, nil, 100))
      assert.equal("012567899", got())
      assert.equal("file", io.type(file), "it stays open")
    end)

    test("sends what was just written to an open file", function()
      local file, path = copies.open("w+b", "")
      local near, far = copies.pair(kind)
      file:write("abcdef")
      assert.equal(6, near:send_file(file, 1))
      -- What is written over before it has arrived may arrive so.
      assert.equal("abcdef", far:read(6, { timeout = PATIENCE }))
      file:seek("set", 3)
      file:write("D")
      assert.equal(2, near:send_file(file))
      assert.equal(3, near:send_file(file, 3, 3))
      assert.equal(6, near:send_file(path))
      assert.equal("efcDeabcDef", far:read(11, { timeout = PATIENCE }))
    end)

    test("sends files that have no size: /proc, devices and pipes", function()
      local version = copies.contents("/proc/version")
      local target, got = copies.target(kind)
      assert.equal(#version, target:send_file("/proc/version"))
      assert.equal(#version - 3, target:send_file("/proc/version", 4))
      assert.equal(7, target:send_file("/proc/version", 4, 7))
      assert.equal(100000, target:send_file("/dev/zero", 1, 100000))
      assert.equal(0, target:send_file("/dev/null"))
      assert.equal(0, target:send_file("/dev/zero", 1, 0))
      local path = copies.path(BYTES)
      local pipe = copies.opens(assert(io.popen("echo line; cat " .. path, "r")))
      assert.equal("line", pipe:read("*l"))
      assert.equal(5, target:send_file(pipe, nil, "5"))
      assert.equal(BYTES:sub(6, 9), pipe:read(4))
      assert.equal(#BYTES - 9, target:send_file(pipe))
      local all = { version, version:sub(4), version:sub(4, 10), ("\0"):rep(100000), BYTES:sub(1, 5), BYTES:sub(10) }
      assert.is_true(got() == table.concat(all))
    end)

    test("keeps the writes of other tasks out, in order of arrival", function()
      local path, file_path = copies.path(LONG), copies.path("second file")
      local near, far = copies.narrow(kind)
      local begun = {
        trying(near, "write_line", "before"), trying(near, "send_file", path),
        trying(near, "write_packet", "between"), trying(near, "send_file", file_path, 3),
        trying(near, "write", { "a", LONG, "b" }), trying(near, "send_file", path, 1, 10),
        trying(near, "send_some", "x"), trying(near, "shutdown", "send"),
      }
      settle()
      local reader = trying(far, "read_str")
      local bytes = succeeds(reader)
      assert.is_true(bytes == "before\r\n" .. LONG .. "\0\0\0\7betweencond filea" .. LONG .. "b" .. BYTES:sub(1, 10)
        .. "x")
      for i, result in ipairs { near, #LONG, true, 9, near, 10, 1, true } do
        assert.equal(result, succeeds(begun[i]))
      end
    end)

    test("keeps them out of what comes from a device, too", function()
      local near, far = copies.narrow(kind)
      local sending = trying(near, "send_file", "/dev/zero", nil, #LONG)
      copies.arrives(far)
      local line, shutdown = trying(near, "write_line", "after"), trying(near, "shutdown", "send")
      settle()
      local reader = trying(far, "read_str")
      assert.is_true(succeeds(reader) == ("\0"):rep(#LONG) .. "after\r\n")
      assert.equal(#LONG, succeeds(sending))
      succeeds(line)
      succeeds(shutdown)
    end)

    test("leaves reading to another task meanwhile", function()
      local path = copies.path(LONG)
      local near, far = copies.narrow(kind)
      local sending = trying(near, "send_file", path)
      copies.arrives(far)
      for i = 1, 3 do
        far:write(i .. "\n")
        assert.equal(tostring(i), near:read_line({ timeout = PATIENCE }))
      end
      assert.equal("waiting", sending:status())
      local reader, other = trying(near, "read_str"), trying(far, "send_file", path)
      assert.is_true(far:read(#LONG) == LONG)
      assert.equal(#LONG, succeeds(sending))
      assert.equal(#LONG, succeeds(other))
      far:shutdown("send")
      assert.is_true(succeeds(reader) == LONG)
    end)

    test("sends one open file to many at once, each from where it begins", function()
      local file = copies.open("rb", BYTES)
      local all = {}
      for i = 1, 10 do
        local target, got = copies.target(kind)
        all[i] = { got = got, sending = trying(target, "send_file", file, i * 1000, 150000) }
      end
      for i, one in ipairs(all) do
        assert.equal(150000, succeeds(one.sending))
        assert.is_true(one.got() == BYTES:sub(i * 1000, i * 1000 + 149999))
      end
    end)

    test("ends where a file ends that shrinks meanwhile", function()
      local file, path = copies.open("r+b", LONG)
      local near, far = copies.narrow(kind)
      local sending = trying(near, "send_file", file, nil, #LONG + 1000)
      copies.arrives(far)
      -- All is gone but the first bytes, which were sent long ago.
      io.open(path, "wb"):close()
      local reader = trying(far, "read_str")
      local count = succeeds(sending)
      near:shutdown("send")
      local bytes = succeeds(reader)
      assert.equal(count, #bytes)
      assert.is_true(count < #LONG and bytes == LONG:sub(1, count))
    end)

    test("sends a file that grows: at least what there was, and what it says", function()
      local path = copies.path(LONG)
      local more = copies.opens(assert(io.open(path, "ab")))
      local near, far = copies.narrow(kind)
      local sending = trying(near, "send_file", path)
      local limited = trying(near, "send_file", path, 1, #LONG + 2)
      copies.arrives(far)
      more:write("more")
      more:close()
      local reader = trying(far, "read_str")
      local count = succeeds(sending)
      assert.is_true(count >= #LONG and count <= #LONG + 4)
      assert.equal(#LONG + 2, succeeds(limited))
      near:shutdown("send")
      assert.is_true(succeeds(reader) == (LONG .. "more"):sub(1, count) .. LONG .. "mo")
    end)

    test("sends bytes beyond the fourth gigabyte", function()
      local path = copies.sparse(2 ^ 32 + 20, "0123456789")
      local file = copies.opens(assert(io.open(path, "rb")))
      local target, got = copies.target(kind)
      assert.equal(10, target:send_file(path, 2 ^ 32 + 11))
      assert.equal(5, target:send_file(path, 2 ^ 32 + 11, 5))
      assert.equal(4, target:send_file(file, 2 ^ 32 + 17))
      file:seek("set", 2 ^ 32 + 8)
      assert.equal(12, target:send_file(file))
      assert.equal(0, target:send_file(path, 2 ^ 32 + 21))
      assert.equal("0123456789" .. "01234" .. "6789" .. "\0\0" .. "0123456789", got())
    end)

    test("has all arrive though it closes at once", function()
      for _ = 1, 5 do
        local path = copies.path(LONG)
        local near, far = copies.pair(kind)
        local reader = trying(far, "read_str")
        assert.equal(#LONG, near:send_file(path))
        near:close()
        assert.is_true(succeeds(reader) == LONG)
      end
    end)

    test("lets others run, however long the file and willing its reader", function()
      local near, far = copies.pair(kind)
      local drain = tcp.spawn(function()
        while far:try_recv(65536) do
          tcp.sleep(0)
        end
      end)
      local sending = trying(near, "send_file", "/dev/zero")
      for _ = 1, 100 do
        tcp.sleep(0)
      end
      assert.equal("waiting", sending:status())
      near:close()
      tasks.fails("closed", sending)
      drain:join(PATIENCE)
    end)
  end)
end

describe("send_file", function()
  after_each(copies.clean)

  test("completes the handshake of an accepted connection", function()
    local listener = transports.tls.tcp.listen("127.0.0.1", 0)
    local client = tcp.spawn(function()
      local conn = transports.tls.tcp.connect("127.0.0.1", listener:local_port())
      local bytes = conn:read_str()
      conn:close()
      return bytes
    end)
    local conn = listener:accept(PATIENCE)
    assert.equal(#BYTES, conn:send_file(copies.path(BYTES)))
    conn:close()
    listener:close()
    assert.is_true(client:join(PATIENCE) == BYTES)
  end)

  test("does not wait for the writer of a named pipe: its path is refused", function()
    local fifo = copies.fifo()
    assert.equal("system\t0\ttrue\tfine\n", support.child(([[
      local tcp = require("tcp")
      local listener = tcp.listen("127.0.0.1", 0)
      local near = tcp.connect("127.0.0.1", listener:local_port())
      local far = listener:accept()
      local path = "%s"
      local _, err = near:try_send_file(path)
      near:write("fine")
      print(err.kind, err.written, err.message:find(path, 1, true) ~= nil, far:read(4))
    ]]):format(fifo), "timeout 10"))
  end)

  for _, over in ipairs(transports.all) do
    test("sends 80 MiB to a slow reader in little memory" .. over.suffix, function()
      local MEBIBYTE = 1024 * 1024
      local SIZE = 80 * MEBIBYTE
      local peer = over.start("accept", { "skip", MEBIBYTE }, { "sleep", 100 }, { "skip", MEBIBYTE },
        { "sleep", 100 }, { "skip", SIZE - 2 * MEBIBYTE - 15 }, { "read", 15 }, "drain")
      local path = copies.sparse(SIZE, "the file's end.")
      local output = support.child(([[
        local tcp = require("tcp")
        local tls = %s and { ca_bundle = "build/certificates/ca.pem" }
        local conn = tcp.connect("127.0.0.1", %d, { tls = tls })
        print(conn:send_file("%s") == %d)
        conn:close()
        local peak = io.open("/proc/self/status"):read("*a"):match("VmHWM:%%s*(%%d+) kB")
        print(tonumber(peak) < 40000 or peak)
      ]]):format(tostring(over.is_tls), peer.port, path, SIZE), "timeout 60")
      assert.equal("true\ntrue\n", output)
      assert.equal("the file's end.", peer:got())
      assert.equal("", peer:got())
    end)
  end

  test("takes no other arguments", function()
    local near = copies.pair("a connection")
    local file, path = copies.open("rb", "x")
    for _, name in ipairs { "send_file", "try_send_file" } do
      local send_file = near[name]
      misuse(("bad self to '%s' (Connection expected, got string; use ':')"):format(name), send_file, path)
      for type, value in pairs { ["nil"] = false, boolean = true, table = {}, ["function"] = print } do
        local ok, err = pcall(send_file, near, value or nil)
        assert.is_false(ok)
        assert.matches(("bad argument #1 to '%s' %%(.*expected, got %s"):format(name, type), err)
      end
      for i, values in ipairs { { 0, -1, 1.5, "x", {}, -math.huge, 0 / 0 }, { -1, 1.5, "x", {}, 0 / 0 } } do
        for _, value in ipairs(values) do
          local first, count = value, nil
          if i == 2 then
            first, count = 1, value
          end
          for _, given in ipairs { path, file } do
            local ok, err = pcall(send_file, near, given, first, count)
            assert.is_false(ok, tostring(value))
            assert.equal("string", type(err))
            assert.matches(("bad argument #%d to '%s' %%("):format(i + 1, name), err)
          end
        end
      end
      file:close()
      local ok, err = pcall(send_file, near, file)
      assert.is_false(ok)
      assert.matches(("bad argument #1 to '%s' %%(.*closed"):format(name), err)
      file = copies.opens(assert(io.open(path, "rb")))
    end
    fails("timeout", near:try_read(1, { timeout = 0 }))
    copies.opens(near)
  end)
end)
