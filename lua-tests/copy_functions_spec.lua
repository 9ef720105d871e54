-- tcp.copy with functions that fail, and with files that do.

local tcp = require("tcp.core")
local copies = require("support.copies")
local support = require("support")

local copy, try_copy = tcp.copy, tcp.try_copy
local fails, child = support.fails, support.child
local BYTES = copies.bytes(300007)
local PREFIX = "timeout 20"

local function test(name, body)
  it(name, copies.cleanly(body))
end

--- Gives "ab", then what `fn` gives.
local function then_calls(fn)
  local is_begun = false
  return function()
    if is_begun then
      return fn()
    end
    is_begun = true
    return "ab"
  end
end

-- What functions may raise. It comes out as it is.
local RAISED = {
  ["a string"] = "plain", ["a table"] = {}, ["a number"] = 7, ["false"] = false, ["a function"] = print,
  ["an error object"] = select(2, tcp.json.try_decode("[")),
}

-- What functions may call a problem, and its text.
local PROBLEMS = {
  { "no more paper", "no more paper" }, { 7, "7" }, { false, "false" },
  { setmetatable({}, { __tostring = function() return "described" end }), "described" },
}

describe("a function of copy", function()
  after_each(copies.clean)

  for place, run in pairs(copies.PLACES) do
    for name, value in pairs(RAISED) do
      test(("that raises %s ends it with that, %s"):format(name, place), function()
        local function fail() error(value, 0) end
        local target, got = copies.target("a connection")
        local calls = {
          source = { then_calls(fail), target },
          target = { function() return "x" end, fail },
          progress = { function() return "ab" end, target, { progress = fail } },
        }
        for which, given in pairs(calls) do
          local ok, err = run(try_copy, given[1], given[2], given[3])
          assert.is_nil(ok)
          assert.is_true(rawequal(value, err), which)
        end
        for which, given in pairs(calls) do
          local ok, err = pcall(run, copy, which == "source" and then_calls(fail) or given[1], given[2], given[3])
          assert.is_false(ok)
          assert.is_true(rawequal(value, err), which)
        end
        assert.equal("abababab", got())
      end)
    end

    test("may fail with a problem of its own, " .. place, function()
      for _, problem in ipairs(PROBLEMS) do
        local value, text = problem[1], problem[2]
        local target, got = copies.target("a connection")
        local err = fails("system", run(try_copy, then_calls(function() return nil, value end), target))
        assert.equal("copy", err.op)
        assert.equal(2, err.written)
        assert.matches(text, err.message, 1, true)
        assert.is_nil(err.errno)
        assert.equal("ab", got())

        local total = 0
        err = fails("system", run(try_copy, function() return "abc" end, function(chunk)
          if total == 6 then
            return nil, value
          end
          total = total + #chunk
        end))
        assert.equal("copy", err.op)
        assert.equal(6, err.written)
        assert.matches(text, err.message, 1, true)
        err = fails("system", run(try_copy, function() return "abc" end, function() return false, value end))
        assert.equal(0, err.written)
        err = support.raises("system", run, copy, function() return nil, value end, print)
        assert.equal(0, err.written)
      end
    end)

    test("may fail with an error object, which is passed on, " .. place, function()
      local value = RAISED["an error object"]
      for _, given in ipairs {
        { function() return nil, value end, print },
        { function() return "x" end, function() return nil, value end },
        { function() return "x" end, function() return false, value end },
      } do
        local ok, err = run(try_copy, given[1], given[2])
        assert.is_nil(ok)
        assert.is_true(rawequal(value, err))
        ok, err = pcall(run, copy, given[1], given[2])
        assert.is_false(ok)
        assert.is_true(tcp.is_error(err, "json"))
      end
    end)

    test("that gives something else than a string breaks the law, and says so, " .. place, function()
      for name, value in pairs { table = {}, ["function"] = print, userdata = io.stdout, boolean = true,
        thread = coroutine.create(function() end) } do
        for _, form in ipairs { copy, try_copy } do
          local target, got = copies.target("a connection")
          local ok, err = pcall(run, form, then_calls(function() return value end), target)
          assert.is_false(ok, name)
          assert.equal("string", type(err))
          assert.matches("'" .. (form == copy and "copy" or "try_copy") .. "' %(string expected.*got " .. name, err)
          assert.equal("ab", got())
        end
      end
    end)
  end

  test("takes the end of another try_ function as its end: closed, or whatever it was", function()
    local near, far = copies.pair("a connection")
    far:write("line\nrest")
    far:shutdown("send")
    local lines = {}
    local err = fails("closed", try_copy(function() return near:try_read_line() end, function(line)
      lines[#lines + 1] = line
    end))
    assert.equal("read_line", err.op)
    assert.same({ "line" }, lines)
  end)
end)

describe("a file of copy", function()
  after_each(copies.clean)

  test("on a full disk fails with system, however little it was", function()
    for _, from in ipairs(copies.KINDS) do
      for _, bytes in ipairs { "a", BYTES } do
        local full = assert(io.open("/dev/full", "wb"))
        local err = fails("system", try_copy(copies.source(from, bytes), full))
        full:close()
        assert.equal("copy", err.op)
        assert.equal(28, err.errno, from)
        assert.equal(0, err.written, from)
        assert.matches("[Nn]o space", err.message)
      end
    end
  end)

  test("on a disk that gets full fails with system, and says how much is there", function()
    if not support.succeeds("unshare -m true") then
      return pending("a small disk needs a mount namespace of its own (root)")
    end
    local folder, source = copies.path(), copies.path(BYTES)
    local script = ([[
      local tcp = require("tcp")
      local near, far
      do
        local listener = tcp.listen("127.0.0.1", 0)
        near = tcp.connect("127.0.0.1", listener:local_port())
        far = listener:accept()
        listener:close()
      end
      local bytes = io.open("%s", "rb"):read("*a")
      tcp.spawn(function() far:try_write(bytes) far:try_shutdown("send") end)
      local path = "%s/file"
      for _, source in ipairs { near, io.open("%s", "rb"), coroutine.wrap(function() coroutine.yield(bytes) end) } do
        local file = io.open(path, "wb")
        local ok, err = tcp.try_copy(source, file)
        local size = file:seek("end")
        file:close()
        local written = io.open(path, "rb")
        local there = written:read("*a")
        -- An open file keeps its place on the disk.
        written:close()
        print(ok, err.kind, err.errno, err.written == size, err.written == #there, #there > 0 and #there < #bytes,
          bytes:sub(1, #there) == there)
        if source == near then
          local rest = near:read_str()
          print(rest == bytes:sub(err.written + 1))
        end
        os.remove(path)
      end
    ]]):format(source, folder, source)
    local mount = PREFIX .. " unshare -m sh -c 'mkdir %s && mount -t tmpfs -o size=128k none %s && \"$@\"; " ..
      "umount %s; rmdir %s' sh"
    local line = "nil\tsystem\t28\ttrue\ttrue\ttrue\ttrue\n"
    assert.equal(line .. "true\n" .. line .. line, child(script, (mount:gsub("%%s", folder))))
  end)

  -- In interpreters of their own: what goes wrong here ends the process.
  local START = [[
    local tcp = require("tcp")
    local function pair()
      local listener = tcp.listen("127.0.0.1", 0)
      local near = tcp.connect("127.0.0.1", listener:local_port())
      local far = listener:accept()
      listener:close()
      near:set_option("send_buffer", 16384)
      far:set_option("recv_buffer", 16384)
      return near, far
    end
    local path = "%s"
    local function result(value, err)
      return value or type(err) == "string" and "misuse" or err.kind
    end
  ]]

  local function prints(script)
    return child(START:format(copies.path(BYTES)) .. script, PREFIX)
  end

  test("closed by another task meanwhile harms nothing but the copy", function()
    local ends = "closed\ttrue\n"
    -- The next file gets the descriptor of the closed one.
    assert.equal(ends .. ends, prints [[
      for _, is_reopened in ipairs { false, true } do
        local near, far = pair()
        local bytes = ("x"):rep(20000000)
        local big = os.tmpname()
        local file = io.open(big, "w+b")
        file:write(bytes)
        file:seek("set", 0)
        local copying = tcp.spawn(function() return result(tcp.try_copy(file, near)) end)
        far:peek(1)
        for _ = 1, 10 do tcp.sleep(0) end
        file:close()
        local other = is_reopened and io.open(path, "rb")
        local reader = tcp.spawn(function() return (far:read_str(2 ^ 40)) end)
        local outcome = copying:join(10)
        near:shutdown("send")
        local got = reader:join(10)
        print(outcome, got == bytes:sub(1, #got))
        if other then other:close() end
        os.remove(big)
      end
    ]])
    assert.equal("closed\n", prints [[
      local near, far = pair()
      local file = io.open(path, "wb")
      local copying = tcp.spawn(function() return result(tcp.try_copy(far, file)) end)
      near:write("abc")
      for _ = 1, 10 do tcp.sleep(0) end
      file:close()
      local other = io.open(path, "wb")
      near:write("def")
      near:close()
      print(copying:join(10))
      other:close()
    ]])
  end)

  test("closed by a function of the copy harms nothing but the copy", function()
    assert.equal("closed\nclosed\nclosed\n", prints [[
      local file = io.open(path, "rb")
      print(result(tcp.try_copy(file, function() file:close() end)))
      file = io.open(path, "rb")
      print(result(tcp.try_copy(file, function() end, { progress = function() file:close() end })))
      file = io.open(os.tmpname(), "wb")
      print(result(tcp.try_copy(function()
        if io.type(file) == "file" then file:close() end
        return "x"
      end, file)))
    ]])
  end)

  test("that nobody else holds is not collected in the middle", function()
    assert.equal("300007\ttrue\n", prints [[
      local near, far = pair()
      local bytes = io.open(path, "rb"):read("*a")
      local copying = tcp.spawn(tcp.copy, io.open(path, "rb"), near)
      tcp.sleep(0)
      for _ = 1, 4 do collectgarbage() tcp.sleep(0) end
      local got = far:read(#bytes)
      print(copying:join(10), got == bytes)
    ]])
  end)
end)
