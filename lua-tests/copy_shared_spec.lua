-- tcp.copy beside other tasks that use the same connections: who may, who is refused, and in what order.

local tcp = require("tcp.core")
local copies = require("support.copies")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local copy, try_copy = tcp.copy, tcp.try_copy
local fails = support.fails
local trying = tasks.trying
-- Far more than the buffers on the way hold.
local BYTES = copies.bytes(3000017)
local PATIENCE = 20

local function test(name, body)
  it(name, copies.cleanly(body))
end

--- A task that tries to copy. Its join gives a table of `value` and `err`.
local function copying(...)
  return tcp.spawn(function(...)
    local value, err = try_copy(...)
    return { value = value, err = err }
  end, ...)
end

--- Lets every task get to where it waits.
local function settle()
  for _ = 1, 10 do
    tcp.sleep(0)
  end
end

describe("the source of a copy", function()
  after_each(copies.clean)

  for _, from in ipairs(copies.CONNECTIONS) do
    --- Every other reader is refused.
    local function is_busy(source)
      for _, name in ipairs { "read", "peek", "read_until" } do
        assert.equal(name, fails("busy", source["try_" .. name](source, 1)).op)
      end
      for _, name in ipairs { "recv", "read_line", "read_str" } do
        fails("busy", source["try_" .. name](source))
      end
      for _, target in ipairs { function() error("it was read") end, (copies.pair("a connection")) } do
        local err = fails("busy", try_copy(source, target))
        assert.equal("copy", err.op)
        assert.equal(0, err.written)
        assert.equal(fails("busy", source:try_recv()).peer, err.peer)
      end
    end

    test("is busy for other readers while it is waited for: " .. from, function()
      for _, to in ipairs(copies.KINDS) do
        local source, far = copies.pair(from)
        local target, got = copies.target(to)
        local first = copying(source, target)
        settle()
        is_busy(source)
        tcp.run(is_busy, source)
        copies.feed(far, "abc")
        assert.equal(3, tasks.succeeds(first))
        assert.equal("abc", got())
        assert.is_nil(source:recv())
      end
    end)

    test("is busy while the target is waited for, too: " .. from, function()
      for _, to in ipairs(copies.CONNECTIONS) do
        local source = copies.source(from, BYTES)
        local target, far = copies.narrow(to)
        local first = copying(source, target)
        copies.arrives(far)
        settle()
        is_busy(source)
        local reader = trying(far, "read", #BYTES)
        assert.equal(#BYTES, tasks.succeeds(first))
        assert.is_true(tasks.succeeds(reader) == BYTES)
        assert.is_nil(source:recv())
      end
    end)

    test("is busy while a target function or the progress waits: " .. from, function()
      for _, waiter in ipairs { "target", "progress" } do
        local source = copies.source(from, "abc")
        local queue = copies.opens(tcp.queue())
        local function wait() queue:pop() end
        local first = copying(source, waiter == "target" and wait or function() end,
          { progress = waiter == "progress" and wait or nil })
        settle()
        is_busy(source)
        queue:push("go on")
        assert.equal(3, tasks.succeeds(first))
      end
    end)

    test("that a task reads from is busy for a copy: " .. from, function()
      local source, far = copies.pair(from)
      local reader = trying(source, "read_line")
      settle()
      assert.equal(0, fails("busy", try_copy(source, print)).written)
      assert.equal(0, tasks.fails("busy", copying(source, print)).written)
      far:write("line\n")
      assert.equal("line", tasks.succeeds(reader))
    end)

    test("is free once a copy has ended, failed or been cancelled: " .. from, function()
      local source, far = copies.pair(from)
      far:write("abcdefgh")
      assert.equal(1, copy(source, function() end, { limit = 1 }))
      assert.equal("b", source:read(1))
      assert.is_false((pcall(copy, source, function() error("no") end, { limit = 1 })))
      fails("system", try_copy(source, function() return nil, "no" end, { limit = 1 }))
      assert.is_false((pcall(copy, source, function() end, { limit = 1, progress = function() error("no") end })))
      local task = copying(source, function() end)
      settle()
      task:cancel()
      fails("cancelled", task:try_join(PATIENCE))
      far:write("xyz")
      assert.equal("xyz", source:read(3, { timeout = PATIENCE }))
    end)

    test("may be written to: " .. from, function()
      local source, far = copies.pair(from)
      local first = copying(source, function() end)
      settle()
      source:write("back")
      assert.equal("back", far:read(4, { timeout = PATIENCE }))
      assert.equal(3, copy(copies.pieces("abc"), source))
      far:shutdown("send")
      assert.equal(0, tasks.succeeds(first))
    end)
  end
end)

describe("the target of a copy", function()
  after_each(copies.clean)

  for _, to in ipairs(copies.CONNECTIONS) do
    test("gets each piece whole, whoever else writes to it: " .. to, function()
      local PIECES, SIZE = 10, 100001
      local target, far = copies.narrow(to)
      local begun = {}
      for _, letter in ipairs { "a", "b", "c" } do
        local count = 0
        begun[#begun + 1] = copying(function()
          count = count + 1
          return count <= PIECES and letter:rep(SIZE) or nil
        end, target)
      end
      tcp.spawn(function()
        for _ = 1, PIECES do
          target:write_line(("d"):rep(SIZE - 2))
        end
      end)
      local text = far:read(4 * PIECES * SIZE)
      for _, task in ipairs(begun) do
        assert.equal(PIECES * SIZE, tasks.succeeds(task))
      end
      local counts, changes, last = {}, 0, nil
      for first = 1, #text, SIZE do
        local letter = text:sub(first, first)
        local piece = letter == "d" and letter:rep(SIZE - 2) .. "\r\n" or letter:rep(SIZE)
        assert.is_true(text:sub(first, first + SIZE - 1) == piece, "pieces are mixed")
        counts[letter] = (counts[letter] or 0) + 1
        changes = changes + (letter ~= last and 1 or 0)
        last = letter
      end
      assert.same({ a = PIECES, b = PIECES, c = PIECES, d = PIECES }, counts)
      assert.is_true(changes > 4, "one had it for itself")
    end)

    test("lets other writes in between, however long the copy: " .. to, function()
      for _, from in ipairs(copies.KINDS) do
        local target, far = copies.narrow(to)
        local source
        if from == "a function" then
          source = function() return BYTES end
        elseif from == "a file" then
          source = copies.opens(assert(io.open("/dev/zero", "rb")))
        else
          local source_far
          source, source_far = copies.pair(from)
          tcp.spawn(function()
            while source_far:try_write(BYTES) do
              tcp.sleep(0)
            end
          end)
        end
        local total = 0
        local long = tcp.spawn(try_copy, source, target, { progress = function(count) total = count end })
        local drain = tcp.spawn(function()
          while far:try_recv(65536) do
            tcp.sleep(0)
          end
        end)
        copies.wait_until(function() return total > 0 end)
        local line = trying(target, "write_line", "between")
        assert.equal(target, tasks.succeeds(line))
        assert.equal("waiting", long:status(), "it has not ended")
        long:cancel()
        long:try_join(PATIENCE)
        target:close()
        drain:join(PATIENCE)
        if type(source) == "userdata" and from ~= "a file" then
          source:close()
        end
        tcp.step(0)
      end
    end)

    test("may be read from meanwhile: " .. to, function()
      local target, far = copies.narrow(to)
      local task = copying(copies.pieces(BYTES), target)
      copies.arrives(far)
      far:write("answer")
      local reader = trying(target, "read", 6)
      assert.equal("answer", tasks.succeeds(reader))
      reader = trying(far, "read", #BYTES)
      assert.equal(#BYTES, tasks.succeeds(task))
      assert.is_true(tasks.succeeds(reader) == BYTES)
    end)

    test("is shut down behind what was copied before: " .. to, function()
      local target, far = copies.narrow(to)
      assert.equal(3, copy(copies.pieces("abc"), target))
      local writer = trying(target, "write", BYTES)
      local task = copying(copies.pieces("last"), target)
      settle()
      local shutdown = trying(target, "shutdown", "send")
      local reader = trying(far, "read_str")
      assert.is_true(tasks.succeeds(reader) == "abc" .. BYTES .. "last")
      tasks.succeeds(writer)
      assert.equal(4, tasks.succeeds(task))
      tasks.succeeds(shutdown)
    end)
  end
end)

describe("a copy whose connections other tasks close", function()
  after_each(copies.clean)

  for _, from in ipairs(copies.CONNECTIONS) do
    for _, to in ipairs(copies.CONNECTIONS) do
      local title = (", from %s to %s"):format(from, to)

      test("fails with closed when the source is, which it waits for" .. title, function()
        local source, source_far = copies.pair(from)
        local target, far = copies.pair(to)
        source_far:write("abc")
        local task = copying(source, target)
        assert.equal("abc", far:read(3, { timeout = PATIENCE }))
        settle()
        source:close()
        local err = tasks.fails("closed", task)
        assert.equal("copy", err.op)
        assert.equal(3, err.written)
        target:write("on")
        assert.equal("on", far:read(2, { timeout = PATIENCE }))
      end)

      test("fails with closed when the target is, which it waits for, and nothing is lost" .. title, function()
        local source = copies.source(from, BYTES)
        local target, far = copies.narrow(to)
        local task = copying(source, target)
        copies.arrives(far)
        settle()
        target:close()
        local err = tasks.fails("closed", task)
        assert.equal("copy", err.op)
        assert.is_true(err.written > 0 and err.written < #BYTES)
        local reader = trying(source, "read_str")
        assert.is_true(tasks.succeeds(reader) == BYTES:sub(err.written + 1))
      end)

      test("fails with closed when the source is, while it waits for the target" .. title, function()
        local source, source_far = copies.pair(from)
        local target, far = copies.narrow(to)
        local writer = trying(source_far, "write", BYTES)
        local task = copying(source, target)
        copies.arrives(far)
        settle()
        source:close()
        local reader = trying(far, "read_str")
        local err = tasks.fails("closed", task)
        target:shutdown("send")
        local bytes = tasks.succeeds(reader)
        assert.is_true(bytes == BYTES:sub(1, #bytes))
        assert.equal(err.written, #bytes)
        writer:join(PATIENCE)
      end)

      test("fails with closed when the target is, while it waits for the source" .. title, function()
        local source, source_far = copies.pair(from)
        local target, far = copies.pair(to)
        source_far:write("abc")
        local task = copying(source, target)
        assert.equal("abc", far:read(3, { timeout = PATIENCE }))
        settle()
        target:close()
        source_far:write("def")
        source_far:shutdown("send")
        local err = tasks.fails("closed", task)
        assert.equal(3, err.written)
        local reader = trying(source, "read_str")
        assert.equal("def", tasks.succeeds(reader))
      end)
    end
  end
end)

describe("start_tls", function()
  after_each(copies.clean)

  test("in the middle of a copy is refused on both sides", function()
    local source, source_far = copies.pair("a connection")
    local target, far = copies.narrow("a connection")
    local task = copying(source, target)
    settle()
    fails("busy", source:try_start_tls(transports.CLIENT))
    copies.feed(source_far, BYTES)
    copies.arrives(far)
    settle()
    fails("busy", target:try_start_tls(transports.CLIENT))
    local reader = trying(far, "read", #BYTES)
    assert.equal(#BYTES, tasks.succeeds(task))
    assert.is_true(tasks.succeeds(reader) == BYTES)
  end)

  test("between two copies has the second one encrypted", function()
    local near, far = copies.pair("a connection")
    assert.equal(5, copy(copies.pieces("plain"), near))
    assert.equal("plain", far:read(5))
    local upgrade = tcp.spawn(far.start_tls, far, { server = true, cert = transports.SERVER.cert,
      key = transports.SERVER.key })
    local tls = { ca_bundle = transports.CLIENT.ca_bundle, sni = "localhost" }
    near:start_tls(tls)
    upgrade:join(PATIENCE)
    local reader = trying(far, "read", #BYTES)
    local file = copies.open("rb", BYTES)
    assert.equal(#BYTES, copy(file, near))
    assert.is_true(tasks.succeeds(reader) == BYTES)
    copies.feed(far, BYTES)
    local target, got = copies.target("a connection")
    assert.equal(#BYTES, copy(near, target))
    assert.is_true(got() == BYTES)
  end)
end)
