-- tcp.copy from and to Lua files: positions, buffers, pipes, devices, the standard streams.

local tcp = require("tcp.core")
local copies = require("support.copies")
local peers = require("support.peers")
local support = require("support")

local copy, try_copy = tcp.copy, tcp.try_copy
local fails, child = support.fails, support.child
local BYTES = copies.bytes(300007)
local PREFIX = "timeout 10"

local function test(name, body)
  it(name, copies.cleanly(body))
end

--- A function that collects, and what it has got.
local function collector()
  local chunks = {}
  return function(chunk)
    chunks[#chunks + 1] = chunk
  end, chunks
end

describe("copy from a Lua file", function()
  after_each(copies.clean)

  for _, to in ipairs(copies.KINDS) do
    test("begins at its position, and leaves it behind what was copied, to " .. to, function()
      local file = copies.open("rb", "head\nline\n" .. BYTES .. "tail")
      local target, got = copies.target(to)
      assert.equal("head", file:read("*l"))
      assert.equal(3, copy(file, target, { limit = 3 }))
      assert.equal(8, file:seek())
      assert.equal("e", file:read(1))
      assert.equal(1 + #BYTES, copy(file, target, { limit = 1 + #BYTES }))
      assert.equal(10 + #BYTES, file:seek())
      assert.equal("tail", file:read("*a"))
      file:seek("set", 5)
      assert.equal(4, copy(file, target, { limit = 4 }))
      file:seek("end", -2)
      assert.equal(2, copy(file, target))
      assert.equal(0, copy(file, target))
      assert.is_true(got() == "lin\n" .. BYTES .. "lineil")
    end)

    test("that other code goes on writing, goes on itself, to " .. to, function()
      local file, path = copies.open("rb", "one")
      local more = copies.opens(assert(io.open(path, "ab")))
      local target, got = copies.target(to)
      assert.equal(3, copy(file, target))
      more:write("two")
      more:flush()
      assert.equal(3, copy(file, target))
      assert.equal("onetwo", got())
    end)

    test("gives what was just written to it, to " .. to, function()
      local file = copies.open("w+b", "")
      local target, got = copies.target(to)
      file:write("abcdef")
      file:seek("set", 2)
      assert.equal(4, copy(file, target))
      file:write("gh")
      file:seek("set", 6)
      assert.equal(2, copy(file, target))
      assert.equal("cdefgh", got())
    end)

    test("takes those that have no size: /proc, devices and pipes, to " .. to, function()
      local version = copies.contents("/proc/version")
      local target, got = copies.target(to)
      assert.equal(#version, copy(copies.opens(assert(io.open("/proc/version", "rb"))), target))
      assert.equal(100000, copy(copies.opens(assert(io.open("/dev/zero", "rb"))), target, { limit = 100000 }))
      assert.equal(0, copy(copies.opens(assert(io.open("/dev/null", "rb"))), target))
      local _, path = copies.open("rb", BYTES)
      local pipe = copies.opens(assert(io.popen("echo line; cat " .. path, "r")))
      assert.equal("line", pipe:read("*l"))
      assert.equal(10, copy(pipe, target, { limit = 10 }))
      assert.equal(BYTES:sub(11, 15), pipe:read(5))
      assert.equal(#BYTES - 15, copy(pipe, target))
      assert.is_true(got() == version .. ("\0"):rep(100000) .. BYTES:sub(1, 10) .. BYTES:sub(16))
    end)
  end

  test("of a pipe waits for no more than its limit", function()
    local target, chunks = collector()
    local pipe = copies.opens(assert(io.popen("echo $$; printf 0123456789; exec sleep 60", "r")))
    local pid = pipe:read("*l")
    assert.equal(10, copy(pipe, target, { limit = 10 }))
    assert.equal("0123456789", table.concat(chunks))
    os.execute("kill " .. pid)
  end)

  test("of a pipe passes on what there is before there is more", function()
    local fifo = copies.fifo()
    local script = ([[
      local tcp = require("tcp")
      local pipe = io.popen("exec timeout 10 cat %s", "r")
      local seen = tcp.queue()
      local copying = tcp.spawn(tcp.copy, pipe, function(chunk) seen:push(chunk) end)
      tcp.sleep(0)
      local fifo = io.open("%s", "w")
      for _, word in ipairs { "one", "two" } do
        fifo:write(word)
        fifo:flush()
        print(seen:pop(10))
      end
      fifo:close()
      print(copying:join(10))
    ]]):format(fifo, fifo)
    assert.equal("one\ntwo\n6\n", child(script, PREFIX))
  end)

  test("that cannot be read fails with system", function()
    local folder = copies.opens(assert(io.open("/tmp", "rb")))
    local written = copies.open("wb", "")
    written:write("not to be read")
    written:seek("set", 0)
    for _, to in ipairs(copies.KINDS) do
      local target, got = copies.target(to)
      local err = fails("system", try_copy(folder, target))
      assert.equal(21, err.errno)
      assert.equal(0, err.written)
      err = fails("system", try_copy(written, target))
      assert.equal(9, err.errno)
      assert.equal(0, err.written)
      assert.equal(4, copy(copies.pieces("fine"), target))
      assert.equal("fine", got())
    end
  end)
end)

describe("copy to a Lua file", function()
  after_each(copies.clean)

  for _, from in ipairs(copies.KINDS) do
    test("puts the bytes between those written before and after, from " .. from, function()
      for _, mode in ipairs { "no", "line", "full" } do
        local file, path = copies.open("wb", "")
        file:setvbuf(mode)
        file:write("head")
        assert.equal(#BYTES, copy(copies.source(from, BYTES), file))
        assert.equal(4 + #BYTES, file:seek())
        file:write("middle")
        assert.equal(3, copy(copies.source(from, "abc"), file))
        file:write("tail")
        file:close()
        assert.is_true(copies.contents(path) == "head" .. BYTES .. "middleabctail", mode)
      end
    end)

    test("writes in the middle, at the end, and where it was read, from " .. from, function()
      local file, path = copies.open("r+b", "0123456789")
      file:seek("set", 3)
      assert.equal(2, copy(copies.source(from, "ab"), file))
      assert.equal(5, file:seek())
      file:seek("cur", 0)
      assert.equal("56", file:read(2))
      -- C wants a seek between a read and a write.
      file:seek("cur", 0)
      assert.equal(1, copy(copies.source(from, "c"), file))
      file:close()
      file = copies.opens(assert(io.open(path, "ab")))
      assert.equal(1, copy(copies.source(from, "d"), file))
      file:close()
      assert.equal("012ab56c89d", copies.contents(path))
    end)

    test("lets it be read there at once, from " .. from, function()
      local file = copies.open("w+b", "")
      assert.equal(#BYTES, copy(copies.source(from, BYTES), file))
      file:seek("set", 0)
      assert.is_true(file:read("*a") == BYTES)
      local temporary = copies.opens(io.tmpfile())
      assert.equal(3, copy(copies.source(from, "abc"), temporary))
      temporary:seek("set", 1)
      assert.equal("bc", temporary:read("*a"))
    end)

    test("takes pipes and devices, from " .. from, function()
      local path = copies.path("")
      local pipe = copies.opens(assert(io.popen("cat >" .. path, "w")))
      pipe:write("head")
      assert.equal(#BYTES, copy(copies.source(from, BYTES), pipe))
      pipe:write("tail")
      pipe:close()
      assert.is_true(copies.contents(path) == "head" .. BYTES .. "tail")
      local null = copies.opens(assert(io.open("/dev/null", "wb")))
      assert.equal(#BYTES, copy(copies.source(from, BYTES), null))
    end)
  end

  test("that is only read fails with system, and the source keeps everything", function()
    for _, from in ipairs(copies.KINDS) do
      local file = copies.open("rb", "old")
      local source = copies.source(from, "abc")
      local err = fails("system", try_copy(source, file))
      assert.equal(9, err.errno, from)
      assert.equal(0, err.written, from)
      if from ~= "a function" then
        local target, chunks = collector()
        assert.equal(3, copy(source, target))
        assert.equal("abc", table.concat(chunks))
      end
    end
  end)
end)

-- In an interpreter of its own, that one wait of the whole process ends.
describe("a pipe that is slow", function()
  after_each(copies.clean)

  test("as a source disturbs nobody", function()
    local fifo = copies.fifo()
    assert.equal("waiting\t3\tabc\n", child(([[
      local tcp = require("tcp")
      local pipe = io.popen("exec timeout 10 cat %s", "r")
      local chunks = {}
      local copying = tcp.spawn(tcp.copy, pipe, function(chunk) chunks[#chunks + 1] = chunk end)
      for _ = 1, 10 do tcp.sleep(0) end
      -- Only now something comes.
      local status = copying:status()
      local fifo = io.open("%s", "w")
      fifo:write("abc")
      fifo:close()
      print(status, copying:join(10), table.concat(chunks))
      pipe:close()
    ]]):format(fifo, fifo), PREFIX))
  end)

  test("as a target disturbs nobody", function()
    local fifo, path = copies.fifo(), copies.path("")
    assert.equal("waiting\t1000000\n", child(([[
      local tcp = require("tcp")
      local pipe = io.popen("exec timeout 10 sh -c 'read line <%s; cat >%s' ", "w")
      local copying = tcp.spawn(tcp.copy, coroutine.wrap(function() coroutine.yield(("x"):rep(1000000)) end), pipe)
      for _ = 1, 10 do tcp.sleep(0) end
      -- Only now something is taken.
      local status = copying:status()
      local fifo = io.open("%s", "w")
      fifo:write("go\n")
      fifo:close()
      print(status, copying:join(10))
      pipe:close()
    ]]):format(fifo, path, fifo), PREFIX))
    assert.equal(("x"):rep(1000000), copies.contents(path))
  end)
end)

describe("copy from standard input", function()
  after_each(copies.clean)

  -- `drained` is a connection to somebody who takes everything.
  local START = [[
    local tcp = require("tcp")
    local drained = tcp.%s("127.0.0.1", %d%s)
    local function collector()
      local chunks = {}
      return function(chunk) chunks[#chunks + 1] = chunk end, chunks
    end
  ]]

  --- What a script prints with these words of the shell in front, and what it sends.
  local function run(script, prefix, tls)
    local peer = peers.start(tls and { "--tls", "server" } or "accept", tls and "accept" or "drain",
      tls and "drain" or nil)
    local start = tls and START:format("connect_tls", peer.port,
      ", { tls = { ca_bundle = 'build/certificates/ca.pem' } }") or START:format("connect", peer.port, "")
    local output = child(start .. script, prefix .. " " .. PREFIX)
    return output, peer:got()
  end

  for _, name in ipairs { "tcp.stdin()", "io.stdin" } do
    test(name .. ", a pipe, a file or nothing, goes to every kind of target", function()
      -- So many that whoever drains the connection can tell them at once.
      local bytes = BYTES:sub(1, 60001)
      local path = copies.path(bytes)
      local script = ([[
        local stdin = %s
        local target, chunks = collector()
        local path = os.tmpname()
        local file = io.open(path, "wb")
        print(tcp.copy(stdin, target, { limit = 5 }), tcp.copy(stdin, file, { limit = 20000 }))
        file:close()
        file = io.open(path, "rb")
        drained:write(table.concat(chunks))
        print(tcp.copy(file, drained), tcp.run(tcp.copy, stdin, drained), tcp.copy(stdin, drained))
        drained:close()
        os.remove(path)
      ]]):format(name)
      local rest = #bytes - 20005
      for _, prefix in ipairs { "<" .. path, "cat " .. path .. " |" } do
        for _, tls in ipairs { false, true } do
          local output, got = run(script, prefix, tls)
          assert.equal(("5\t20000\n20000\t%d\t0\n"):format(rest), output)
          assert.is_true(got == bytes, prefix)
        end
      end
      local output, got = run(script, "</dev/null")
      assert.equal("0\t0\n0\t0\t0\n", output)
      assert.equal("", got)
    end)

    test(name .. " goes on where a line was read, and lines where a copy ended", function()
      local script = ([[
        local stdin = %s
        local target, chunks = collector()
        local first = stdin:%s
        local count = tcp.copy(stdin, target, { limit = 4 })
        print(first, count, stdin:%s, tcp.copy(stdin, target), table.concat(chunks, "|"))
      ]]):format(name, name == "io.stdin" and "read('*l')" or "read_line()",
        name == "io.stdin" and "read('*l')" or "read_line()")
      local path = copies.path("one\ntwo three\nfour")
      for _, prefix in ipairs { "<" .. path, "cat " .. path .. " |",
        "{ printf 'one\\ntw'; sleep 0.1; printf 'o three\\nfour'; } |" } do
        local output = run(script, prefix)
        assert.matches("^one\t4\tthree\t4\t", output)
        assert.equal("twofour", (output:match("\t([^\t]*)\n$"):gsub("[| ]", "")))
      end
    end)

    test(name .. ", while it says nothing, disturbs nobody", function()
      local fifo = copies.fifo()
      assert.equal("waiting\t3\n", (run(([[
        local stdin = %s
        local target = collector()
        local copying = tcp.spawn(tcp.copy, stdin, target)
        for _ = 1, 10 do tcp.sleep(0) end
        local status = copying:status()
        io.open("%s", "w"):close()
        print(status, copying:join(10))
      ]]):format(name, fifo), "{ timeout 10 cat " .. fifo .. "; printf abc; } |")))
    end)
  end

  test("into itself is refused: it is for reading only", function()
    local output = run([[
      local _, err = tcp.try_copy(io.open("/proc/version", "rb"), tcp.stdin())
      print(err.kind, err.op, err.written)
    ]], "</dev/null")
    assert.equal("closed\tcopy\t0\n", output)
  end)
end)

describe("copy to standard output", function()
  after_each(copies.clean)

  test("comes between what is printed before and after", function()
    local path = copies.path(BYTES)
    local script = ([[
      local tcp = require("tcp")
      io.write("head")
      local count = tcp.copy(io.open("%s", "rb"), io.stdout)
      io.write("tail", count)
    ]]):format(path)
    local expected = "head" .. BYTES .. "tail" .. #BYTES
    assert.is_true(child(script, PREFIX) == expected)
    local output = copies.path("")
    child("io.stdout:setvbuf('full') " .. script, PREFIX .. " sh -c '\"$@\" >" .. output .. "' sh")
    assert.is_true(copies.contents(output) == expected)
  end)

  test("whose reader has gone fails with reset, and raises no SIGPIPE", function()
    local log = copies.path("")
    child(([[
      local tcp = require("tcp")
      local ok, err = tcp.try_copy(io.open("/dev/zero", "rb"), io.stdout)
      local log = io.open("%s", "w")
      log:write(tostring(ok), " ", err.kind, " ", err.op)
      log:close()
    ]]):format(log), PREFIX .. " sh -c '{ \"$@\"; echo $? >&2; } | head -c 1000 >/dev/null' sh")
    assert.equal("nil reset copy", copies.contents(log))
  end)
end)
