-- tcp.copy where nothing goes wrong: what comes from each kind of source gets to each kind of target.

local tcp = require("tcp.core")
local copies = require("support.copies")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local copy, try_copy = tcp.copy, tcp.try_copy
local fails, wait = support.fails, require("support.waits").wait
local BYTES = copies.bytes(1000003)
local PATIENCE = 20

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

--- A source that gives these, one after the other.
local function giving(...)
  local chunks, at = { ... }, 0
  return function()
    at = at + 1
    return chunks[at]
  end
end

describe("copy", function()
  after_each(copies.clean)

  for _, from in ipairs(copies.KINDS) do
    for _, to in ipairs(copies.KINDS) do
      test(("carries everything from %s to %s, and says how much"):format(from, to), function()
        for place, run in pairs(copies.PLACES) do
          for _, form in ipairs { copy, try_copy } do
            local target, got = copies.target(to)
            assert.equal(#BYTES, run(form, copies.source(from, BYTES), target), place)
            assert.is_true(got() == BYTES, place)
          end
        end
      end)
    end
  end

  for _, from in ipairs(copies.KINDS) do
    test("of nothing, of a byte and of round numbers is as exact from " .. from, function()
      for _, to in ipairs(copies.KINDS) do
        for _, size in ipairs { 0, 1, 8192, 65536 } do
          local bytes = BYTES:sub(1, size)
          local target, got = copies.target(to)
          local totals = {}
          assert.equal(size, copy(copies.source(from, bytes), target, { progress = function(total)
            totals[#totals + 1] = total
          end }))
          assert.is_true(got() == bytes, to)
          assert.equal(size > 0 and size or nil, totals[#totals], "progress is told of bytes only")
        end
      end
    end)

    test("stops at its limit, and the rest stays in " .. from, function()
      for _, limit in ipairs { 0, 1, 65536, #BYTES - 1, #BYTES, #BYTES + 1, 2 ^ 53, math.huge, "7", 9.0 } do
        local count = math.min(tonumber(limit), #BYTES)
        local source = copies.source(from, BYTES)
        local target, chunks = collector()
        assert.equal(count, copy(source, target, { limit = limit }))
        assert.is_true(table.concat(chunks) == BYTES:sub(1, count), limit)
        -- Of a function's last piece nobody keeps the rest.
        if from ~= "a function" then
          target, chunks = collector()
          assert.equal(#BYTES - count, copy(source, target))
          assert.is_true(table.concat(chunks) == BYTES:sub(count + 1), limit)
        end
      end
    end)
  end

  for _, to in ipairs(copies.KINDS) do
    test("puts not a byte more than its limit into " .. to, function()
      for _, from in ipairs(copies.KINDS) do
        local target, got = copies.target(to)
        assert.equal(77777, copy(copies.source(from, BYTES), target, { limit = 77777 }))
        assert.is_true(got() == BYTES:sub(1, 77777), from)
      end
    end)
  end

  for _, kind in ipairs(copies.CONNECTIONS) do
    test("begins with what was buffered, from " .. kind, function()
      for _, to in ipairs(copies.KINDS) do
        local source, far = copies.pair(kind)
        far:write("first\nsecond\nthird")
        assert.equal("first", source:read_line())
        assert.is_true(source:buffered() > 0)
        local target, got = copies.target(to)
        assert.equal(3, copy(source, target, { limit = 3 }))
        assert.equal("ond", source:read_line())
        assert.equal("third", source:peek(10))
        copies.feed(far, BYTES)
        assert.equal(7, copy(source, target, { limit = 7 }))
        assert.equal(#BYTES - 2, copy(source, target))
        assert.is_true(got() == "secthird" .. BYTES, to)
      end
    end)

    test("leaves what comes after its limit to reads, from " .. kind, function()
      local source, far = copies.pair(kind)
      far:write("0123456789line\r\n")
      local target = collector()
      -- Nothing more comes: it may not wait for it.
      assert.equal(10, copy(source, target, { limit = 10 }))
      assert.equal("line", source:read_line({ timeout = PATIENCE }))
      far:write("0123456789")
      assert.equal(10, copy(source, target, { limit = 10 }))
      assert.equal(0, source:buffered())
      assert.equal(0, copy(source, target, { limit = 0 }))
    end)

    test("ends nothing: both sides of " .. kind .. " go on", function()
      local source, source_far = copies.pair(kind)
      local target, target_far = copies.pair(kind)
      copies.feed(source_far, "all of it")
      assert.equal(9, copy(source, target))
      assert.is_false(source:is_closed() or target:is_closed())
      target:write(", and more")
      assert.equal("all of it, and more", target_far:read(19, { timeout = PATIENCE }))
      target_far:write("answer")
      assert.equal("answer", target:read(6, { timeout = PATIENCE }))
      source:write("thanks")
      assert.equal("thanks", source_far:read(6, { timeout = PATIENCE }))
      assert.is_nil(source:recv())
      assert.equal(0, copy(source, target))
      source_far:close()
      assert.equal(0, copy(source, target))
    end)

    test("passes on what has come before more comes, from " .. kind, function()
      local source, far = copies.pair(kind)
      local seen = tcp.queue()
      local copying = tcp.spawn(copy, source, function(chunk) seen:push(chunk) end)
      for _, word in ipairs { "one", "two", "three" } do
        far:write(word)
        assert.equal(word, seen:pop(PATIENCE))
      end
      far:shutdown("send")
      assert.equal(11, copying:join(PATIENCE))
    end)

    test("of a connection to itself is an echo, over " .. kind, function()
      local near, far = copies.pair(kind)
      local echo = tcp.spawn(function()
        local count = copy(near, near)
        near:shutdown("send")
        return count
      end)
      copies.feed(far, BYTES)
      assert.is_true(far:read_str() == BYTES)
      assert.equal(#BYTES, echo:join(PATIENCE))
    end)

    test("goes both ways at once between two of " .. kind, function()
      local near, near_far = copies.pair(kind)
      local other, other_far = copies.pair(kind)
      local begun = { tcp.spawn(copy, near, other), tcp.spawn(copy, other, near) }
      copies.feed(near_far, BYTES)
      copies.feed(other_far, BYTES:reverse())
      local reader = tasks.trying(other_far, "read", #BYTES)
      assert.is_true(near_far:read(#BYTES) == BYTES:reverse())
      assert.is_true(tasks.succeeds(reader) == BYTES)
      assert.equal(#BYTES, begun[1]:join(PATIENCE))
      assert.equal(#BYTES, begun[2]:join(PATIENCE))
    end)
  end

  test("completes the handshakes of accepted connections", function()
    local tls = transports.tls.tcp
    local listener = tls.listen("127.0.0.1", 0)
    local clients = {}
    for i = 1, 2 do
      clients[i] = tcp.spawn(function()
        local client = tls.connect("127.0.0.1", listener:local_port())
        if i == 1 then
          client:write(BYTES)
          client:shutdown("send")
        end
        local bytes = client:read_str()
        client:close()
        return bytes
      end)
      tcp.sleep(0)
    end
    local source, target = listener:accept(PATIENCE), listener:accept(PATIENCE)
    assert.equal(#BYTES, copy(source, target))
    source:close()
    target:close()
    listener:close()
    assert.equal("", clients[1]:join(PATIENCE))
    assert.is_true(clients[2]:join(PATIENCE) == BYTES)
  end)

  test("tells its progress: rising sums, each as soon as the bytes are there", function()
    for _, from in ipairs(copies.KINDS) do
      local count, last = 0, 0
      assert.equal(#BYTES, copy(copies.source(from, BYTES), function(chunk)
        count = count + #chunk
      end, { progress = function(...)
        assert.equal(1, select("#", ...))
        local total = ...
        assert.is_true(total > last and total == count, from)
        last = total
      end }))
      assert.equal(#BYTES, last)
    end
  end)

  for place, run in pairs(copies.PLACES) do
    test("lets its functions wait, " .. place, function()
      local waited = 0
      local function waiting(fn)
        return function(...)
          local result = fn(...)
          waited = waited + 1
          tcp.sleep(0)
          wait()
          return result
        end
      end
      local target, chunks = collector()
      for _, form in ipairs { copy, try_copy } do
        assert.equal(5, run(form, waiting(giving("ab", "", "cde")), waiting(target),
          { progress = waiting(function() end) }))
      end
      assert.equal("abcdeabcde", table.concat(chunks))
      assert.equal(2 * (4 + 2 + 2), waited)
    end)

    test("goes from queue to queue, " .. place, function()
      local from, to = tcp.queue(1), tcp.queue(1)
      tcp.spawn(function()
        for i = 1, 20 do
          from:push(tostring(i))
        end
        from:close()
      end)
      local popped = tcp.spawn(function()
        local all = ""
        for _ = 1, 20 do
          all = all .. to:pop(PATIENCE)
        end
        return all
      end)
      assert.equal(9 + 22, run(copy, function()
        local word = from:pop()
        return word
      end, function(chunk)
        to:push(chunk)
      end))
      assert.equal("1234567891011121314151617181920", popped:join(PATIENCE))
    end)
  end

  test("asks a source for more only while it may take it, and without arguments", function()
    local calls = 0
    local function source(...)
      assert.equal(0, select("#", ...))
      calls = calls + 1
      return calls < 4 and "abc" or nil
    end
    assert.equal(0, copy(source, collector(), { limit = 0 }))
    assert.equal(0, calls)
    assert.equal(6, copy(source, collector(), { limit = 6 }))
    assert.equal(2, calls)
    assert.equal(3, copy(source, collector()))
    assert.equal(4, calls, "the end is the end")
    calls = 0
    local target, chunks = collector()
    assert.equal(4, copy(source, target, { limit = 4 }))
    assert.same({ "abc", "a" }, chunks)
  end)

  test("passes over empty pieces, and gives a target none", function()
    local target, chunks = collector()
    assert.equal(3, copy(giving("", "a", "", "", "bc", ""), target))
    assert.same({ "a", "bc" }, chunks)
    assert.equal(0, copy(giving(""), target))
    assert.equal(2, #chunks)
    local near, far = copies.pair("a TLS connection")
    assert.equal(1, copy(giving("", "x"), near))
    assert.equal("x", far:recv())
  end)

  test("does not mind what a target gives back, as long as it has no problem", function()
    for _, results in ipairs { {}, { nil }, { false }, { true }, { 1, "fine" }, { "x" } } do
      local unpack = table.unpack or unpack
      assert.equal(2, copy(giving("a", "b"), function() return unpack(results) end))
    end
  end)

  test("takes whatever gives pieces: iterators of files, connections and coroutines", function()
    local _, path = copies.open("rb", "one\ntwo\n")
    local target, chunks = collector()
    assert.equal(6, copy(io.lines(path), target))
    assert.equal(2, copy(coroutine.wrap(function()
      coroutine.yield("a")
      coroutine.yield("b")
    end), target))
    local near = copies.source("a connection", "chunks")
    assert.equal(6, copy(near:chunks(3), target))
    assert.same({ "one", "two", "a", "b", "chu", "nks" }, chunks)
  end)

  test("writes each piece whole, however long it is", function()
    local long = BYTES:rep(3)
    for _, to in ipairs(copies.KINDS) do
      local target, got = copies.target(to)
      assert.equal(2 * #long + 1, copy(giving(long, "x", long), target))
      assert.is_true(got() == long .. "x" .. long, to)
    end
  end)

  test("may be called in coroutines that may wait", function()
    local function transfer()
      local target, got = copies.target("a connection")
      local count = copy(copies.source("a connection", BYTES), target)
      return count, got() == BYTES
    end
    local results = {}
    coroutine.wrap(function() results = { transfer() } end)()
    assert.same({ #BYTES, true }, results)
    results = { tcp.run(function()
      local wrapped = tcp.wrap(transfer)
      return wrapped()
    end) }
    assert.same({ #BYTES, true }, results)
  end)

  for place, run in pairs(copies.PLACES) do
    test("lets other tasks run, though it never waits itself, " .. place, function()
      local zeros = copies.opens(assert(io.open("/dev/zero", "rb")))
      local null = copies.opens(assert(io.open("/dev/null", "wb")))
      local function x() return "x" end
      for _, ends in ipairs { { zeros, null }, { zeros, false }, { x, null }, { x, false } } do
        local ticks = 0
        local ticker = tcp.spawn(function()
          while ticks < 100 do
            tcp.sleep(0)
            ticks = ticks + 1
          end
        end)
        -- It ends when the others have had their turns.
        local ok, err = run(try_copy, ends[1], ends[2] or function() end, { progress = function()
          return ticks >= 100 and error("enough", 0)
        end })
        assert.is_nil(ok)
        assert.equal("enough", err)
        ticker:join(PATIENCE)
      end
    end)
  end

  test("is an error object's op, and knows where it was called", function()
    local near = copies.pair("a connection")
    near:close()
    local line = debug.getinfo(1, "l").currentline + 1
    local ok, err = pcall(function() return (copy(near, print)) end)
    assert.is_false(ok)
    assert.equal("copy", fails("closed", nil, err).op)
    assert.matches("copy_spec%.lua:" .. line .. "$", err.where)
    err = fails("closed", try_copy(near, print))
    assert.is_nil(err.where)
  end)
end)

describe("misuse of copy", function()
  local NOT_ENDS = { ["nil"] = false, string = "path", number = 5, boolean = true, table = {}, thread = true,
    userdata = tcp.null }
  NOT_ENDS.thread = coroutine.create(function() end)

  --- Both forms raise a text that begins so, after the position of the call.
  local function raises(text, ...)
    for name, form in pairs { copy = copy, try_copy = try_copy } do
      local ok, err = pcall(form, ...)
      assert.is_false(ok, "accepted: " .. text)
      assert.equal("string", type(err), tostring(err))
      local expected = text:format(name)
      assert.equal(expected, err:gsub("^[^:]+:%d+: ", ""):sub(1, #expected))
    end
  end

  test("is what is no source or no target", function()
    for name, value in pairs(NOT_ENDS) do
      raises("bad argument #1 to '%s' (", value or nil, print)
      raises("bad argument #2 to '%s' (", print, value or nil)
      local _, err = pcall(copy, value or nil, print)
      assert.matches("expected, got " .. (name == "userdata" and "%a+" or name), err)
    end
    local listener, queue = tcp.listen("127.0.0.1", 0), tcp.queue()
    for _, value in ipairs { listener, queue, tcp.spawn(function() end) } do
      raises("bad argument #1 to '%s' (", value, print)
      raises("bad argument #2 to '%s' (", print, value)
    end
    listener:close()
    tcp.step(0)
  end)

  test("is a closed file", function()
    local file = copies.open("rb", "x")
    file:close()
    raises("bad argument #1 to '%s' (", file, print)
    raises("bad argument #2 to '%s' (", print, file)
  end)

  test("is an option that there is not, or that is none", function()
    raises("bad argument #3 to '%s' (", print, print, 5)
    raises("bad argument #3 to '%s' (", print, print, "x")
    raises("bad option 'limt' to '%s' (did you mean 'limit'?)", print, print, { limt = 5 })
    raises("bad option 'progres' to '%s' (did you mean 'progress'?)", print, print, { progres = print })
    raises("bad option 'timeout' to '%s'", print, print, { timeout = 5 })
    for _, limit in ipairs { -1, 1.5, 0 / 0, -math.huge, "x", {}, true } do
      raises("bad option 'limit' to '%s' (", print, print, { limit = limit })
    end
    for _, progress in ipairs { 5, "x", {}, true } do
      raises("bad option 'progress' to '%s' (", print, print, { progress = progress })
    end
  end)

  test("leaves the source as it was", function()
    local source = copies.source("a file", "untouched")
    raises("bad option 'limit' to '%s' (", source, print, { limit = -1 })
    raises("bad argument #2 to '%s' (", source, nil)
    assert.equal(0, source:seek())
  end)
end)
