-- tcp.copy where something goes wrong: what it fails with, how far it got, and what is left.

local tcp = require("tcp.core")
local copies = require("support.copies")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local copy, try_copy = tcp.copy, tcp.try_copy
local fails = support.fails
-- Far more than the buffers on the way hold.
local BYTES = copies.bytes(3000017)
-- A wait long enough to strike, and how long anything may take at most.
local SHORT, PATIENCE = 0.03, 20

local function test(name, body)
  it(name, copies.cleanly(body))
end

local function endless()
  return BYTES
end

--- Whether what a target of this kind has been given can still be lost on the way: TLS encrypts before it sends.
local function is_sealed(kind)
  return kind == "a TLS connection"
end

--- A task that tries to copy. Its join gives a table of `value` and `err`.
local function copying(...)
  return tcp.spawn(function(...)
    local value, err = try_copy(...)
    return { value = value, err = err }
  end, ...)
end

--- Asserts that it fails so, and gives the error.
local function copy_fails(kind, task)
  local err = tasks.fails(kind, task)
  assert.equal("copy", err.op)
  return err
end

--- Asserts that the far end of a target gets the first `written` bytes, and nothing else. Closes the near one.
local function got_exactly(kind, near, far, written)
  near:close()
  local reader = tasks.trying(far, "read_str")
  local result = reader:join(PATIENCE)
  local bytes = result.value or far:read(far:buffered())
  assert.is_true(bytes == BYTES:sub(1, #bytes), "other bytes")
  if is_sealed(kind) then
    assert.is_true(#bytes <= written)
  else
    assert.equal(written, #bytes)
  end
  far:close()
end

--- Asserts that reads of a source give what a copy did not pass on. Of a function's piece nobody keeps the rest.
local function keeps_rest(from, source, written)
  if from == "a file" then
    assert.equal(written, source:seek())
    return
  elseif from == "a function" then
    return
  end
  local reader = tasks.trying(source, "read_str")
  assert.is_true(tasks.succeeds(reader) == BYTES:sub(written + 1), "bytes are lost")
end

--- A source of a kind that has these bytes, and no more for now.
local function started(kind, bytes)
  local source, far = copies.pair(kind)
  far:write(bytes)
  return source, far
end

local function each_pair_of_kinds(fn)
  for _, from in ipairs(copies.CONNECTIONS) do
    for _, to in ipairs(copies.CONNECTIONS) do
      fn(from, to)
    end
  end
end

describe("copy from a source that", function()
  after_each(copies.clean)

  for _, from in ipairs { "a connection", "a TLS connection" } do
    test("resets tells how far it got, and everything that came is passed on: " .. from, function()
      for _, to in ipairs(copies.KINDS) do
        local source, far = started(from, "abc")
        local target, got = copies.target(to)
        local err = fails("reset", try_copy(source, target, { progress = function(total)
          if total == 3 then
            copies.reset(far)
          end
        end }))
        assert.equal("copy", err.op)
        assert.equal(3, err.written)
        assert.equal(fails("reset", source:try_read(1)).peer, err.peer)
        assert.equal("abc", got())
      end
    end)
  end

  test("is cut off under TLS fails with truncated", function()
    for _, to in ipairs { "a connection", "a TLS connection", "a function" } do
      local source = copies.opens(transports.tls.connect_to("accept", { "send", "abc" }, "cut"))
      local target, got = copies.target(to)
      local err = fails("truncated", try_copy(source, target))
      assert.equal(3, err.written)
      assert.equal("abc", got())
    end
  end)

  for _, from in ipairs(copies.CONNECTIONS) do
    test("says nothing fails when its read timeout or deadline has passed: " .. from, function()
      local all = {}
      for _, to in ipairs(copies.KINDS) do
        for _, setter in ipairs { "set_read_timeout", "set_timeout", "set_read_deadline", "set_deadline" } do
          local source, far = started(from, "abc")
          local target, got = copies.target(to)
          source[setter](source, SHORT)
          all[#all + 1] = { setter = setter, source = source, far = far, target = target, got = got,
            copying = copying(source, target) }
        end
      end
      for _, one in ipairs(all) do
        local err = copy_fails("timeout", one.copying)
        -- The deadline may have passed before a byte was moved.
        local written = err.written
        assert.is_true(written == 3 or written == 0 and one.setter:find("deadline", 1, true) ~= nil)
        assert.equal(fails("timeout", one.source:try_read(4, { timeout = 0 })).peer, err.peer)
        one.source[one.setter](one.source, nil)
        copies.feed(one.far, "def")
        assert.equal(6 - written, copy(one.source, one.target))
        assert.equal("abcdef", one.got())
      end
    end)

    test("says nothing at once fails with a timeout of 0 and passes on what there is: " .. from, function()
      for _, to in ipairs(copies.KINDS) do
        local source, far = started(from, "first\nabc")
        assert.equal("first", source:read_line())
        copies.wait_until(function() return source:peek(3) == "abc" end)
        source:set_read_timeout(0)
        local target, got = copies.target(to)
        assert.equal(3, fails("timeout", try_copy(source, target)).written)
        assert.equal(0, fails("timeout", try_copy(source, target)).written)
        far:close()
        source:set_read_timeout(PATIENCE)
        assert.equal(0, copy(source, target))
        assert.equal("abc", got())
      end
    end)
  end

  test("closed before fails with closed, and the target goes on", function()
    for _, to in ipairs(copies.KINDS) do
      local source = started("a connection", "abc")
      source:close()
      local target, got = copies.target(to)
      local err = fails("closed", try_copy(source, target))
      assert.equal(0, err.written)
      assert.equal("copy", err.op)
      assert.equal(2, copy(copies.pieces("on"), target))
      assert.equal("on", got())
    end
  end)
end)

describe("copy to a target that", function()
  after_each(copies.clean)

  for _, to in ipairs(copies.CONNECTIONS) do
    test("resets tells how far it got: " .. to, function()
      for _, from in ipairs(copies.KINDS) do
        for _, ending in ipairs { copies.reset, function(far) far:close() end } do
          local target, far = copies.narrow(to)
          local task = copying(copies.source(from, BYTES), target)
          far:read(100000, { timeout = PATIENCE })
          ending(far)
          local err = copy_fails("reset", task)
          assert.is_true(err.written >= 100000 and err.written < #BYTES, from)
          assert.equal(fails("reset", target:try_write("more")).peer, err.peer)
          target:close()
        end
      end
    end)

    test("has half-closed gets everything: " .. to, function()
      for _, from in ipairs(copies.KINDS) do
        local target, far = copies.pair(to)
        far:shutdown("send")
        assert.is_nil(target:recv())
        local reader = tasks.trying(far, "read", #BYTES)
        assert.equal(#BYTES, copy(copies.source(from, BYTES), target))
        assert.is_true(tasks.succeeds(reader) == BYTES, from)
      end
    end)
  end

  for _, to in ipairs(copies.CONNECTIONS) do
    test("takes no more fails with timeout, and nothing is lost: " .. to, function()
      local all = {}
      for _, from in ipairs(copies.KINDS) do
        for _, setter in ipairs { "set_write_timeout", "set_timeout", "set_write_deadline", "set_deadline" } do
          local source = copies.source(from, BYTES)
          local target, far = copies.narrow(to)
          target[setter](target, SHORT)
          all[#all + 1] = { from = from, source = source, target = target, far = far,
            copying = copying(source, target) }
        end
      end
      for _, one in ipairs(all) do
        local err = copy_fails("timeout", one.copying)
        assert.is_true(err.written < #BYTES)
        keeps_rest(one.from, one.source, err.written)
        got_exactly(to, one.target, one.far, err.written)
      end
    end)

    test("was closed or shut down before takes nothing, and nothing is lost: " .. to, function()
      for _, from in ipairs(copies.KINDS) do
        for _, way in ipairs { "close", "shutdown" } do
          local source = copies.source(from, BYTES)
          local target = copies.pair(to)
          target[way](target, way == "shutdown" and "send" or nil)
          local err = fails("closed", try_copy(source, target))
          assert.equal("copy", err.op)
          assert.equal(0, err.written)
          keeps_rest(from, source, 0)
        end
      end
    end)
  end
end)

describe("the timeouts of a copy", function()
  after_each(copies.clean)

  test("begin anew whenever bytes move, on either side", function()
    local LIMIT, PAUSE, TIMES = 0.6, 0.1, 8
    local begun = {}
    each_pair_of_kinds(function(from, to)
      -- A source that dribbles.
      local source, source_far = copies.pair(from)
      local target, target_far = copies.pair(to)
      source:set_read_timeout(LIMIT)
      target:set_write_timeout(LIMIT)
      begun[#begun + 1] = copying(source, target)
      tcp.spawn(function()
        for _ = 1, TIMES do
          tcp.sleep(PAUSE)
          source_far:write("x")
        end
        source_far:shutdown("send")
      end)
      -- A target that is slow.
      local slow, slow_far = copies.narrow(to)
      slow:set_write_timeout(LIMIT)
      local full = copies.source(from, BYTES)
      full:set_read_timeout(LIMIT)
      begun[#begun + 1] = copying(full, slow)
      tcp.spawn(function()
        for _ = 1, TIMES do
          tcp.sleep(PAUSE)
          slow_far:try_read(math.floor(#BYTES / TIMES))
        end
        slow_far:try_read_str()
        target_far:try_read_str()
      end)
    end)
    for i, task in ipairs(begun) do
      assert.equal(i % 2 == 1 and TIMES or #BYTES, tasks.succeeds(task))
    end
  end)

  test("are the source's while it is read, and the target's while it is written", function()
    -- What one side's buffers hold, and the other's do not.
    local COUNT = 120000
    local begun = {}
    each_pair_of_kinds(function(from, to)
      -- Nothing is to be written meanwhile.
      local source, source_far = copies.pair(from)
      local target = copies.pair(to)
      target:set_timeout(SHORT)
      source:set_write_timeout(SHORT)
      begun[#begun + 1] = copying(source, target)
      -- Nothing is to be waited for meanwhile: all of it has come.
      local full, full_far = started(from, BYTES:sub(1, COUNT))
      local slow, slow_far = copies.narrow(to, 16384)
      full_far:shutdown("send")
      full:set_timeout(SHORT)
      slow:set_read_timeout(SHORT)
      begun[#begun + 1] = copying(full, slow)
      tcp.spawn(function()
        tcp.sleep(10 * SHORT)
        source_far:write("x")
        source_far:shutdown("send")
        slow_far:try_read_str()
      end)
    end)
    for i, task in ipairs(begun) do
      assert.equal(i % 2 == 1 and 1 or COUNT, tasks.succeeds(task))
    end
  end)

  test("leave a deadline where it was, however much moves", function()
    for _, kind in ipairs(copies.CONNECTIONS) do
      local source, source_far = copies.pair(kind)
      local dribble = tcp.spawn(function()
        while source_far:try_write("x") do
          tcp.sleep(0.001)
        end
      end)
      source:set_read_deadline(SHORT)
      copy_fails("timeout", copying(source, function() end))
      source_far:close()
      dribble:join(PATIENCE)

      local target, target_far = copies.narrow(kind)
      local sips = tcp.spawn(function()
        while target_far:try_recv(1000) do
          tcp.sleep(0.001)
        end
      end)
      target:set_write_deadline(SHORT)
      copy_fails("timeout", copying(endless, target))
      target_far:close()
      sips:join(PATIENCE)
    end
  end)
end)

describe("a copy that is cut", function()
  after_each(copies.clean)

  --- Has a task copy and cuts it, by cancel when it `is_under_way`. Gives its error.
  local function cut(way, is_under_way, ...)
    local err
    local function attempt(...)
      local _
      _, err = try_copy(...)
    end
    if way == "cancel" then
      local task = tcp.spawn(attempt, ...)
      copies.wait_until(is_under_way)
      task:cancel()
      fails("cancelled", task:try_join(PATIENCE))
    else
      fails("timeout", tcp.spawn(tcp.try_with_timeout, SHORT, attempt, ...):join(PATIENCE))
    end
    assert.equal("copy", fails("cancelled", nil, err).op)
    return err
  end

  for way, others in pairs { cancel = copies.KINDS, with_timeout = { "a connection", "a function" } } do
    for _, from in ipairs(copies.CONNECTIONS) do
      test(("by %s while it waits for %s harms neither side"):format(way, from), function()
        for _, to in ipairs(others) do
          local source, far = started(from, "abc")
          local target, got = copies.target(to)
          local total = 0
          local err = cut(way, function() return total == 3 end, source, target,
            { progress = function(count) total = count end })
          assert.equal(total, err.written)
          copies.feed(far, "def")
          assert.equal(6 - total, copy(source, target))
          assert.equal("abcdef", got())
        end
      end)
    end

    for _, to in ipairs(copies.CONNECTIONS) do
      test(("by %s while it waits for %s loses nothing of the source"):format(way, to), function()
        for _, from in ipairs(others) do
          local source = copies.source(from, BYTES)
          local target, far = copies.narrow(to)
          local err = cut(way, function() return far:peek(1, { timeout = PATIENCE }) end, source, target)
          assert.is_true(err.written < #BYTES)
          keeps_rest(from, source, err.written)
          far:write("heard")
          local reader = tasks.trying(target, "read", 5)
          assert.equal("heard", tasks.succeeds(reader))
          got_exactly(to, target, far, err.written)
        end
      end)
    end

    test(("by %s ends, though it never waits"):format(way), function()
      local zeros = copies.opens(assert(io.open("/dev/zero", "rb")))
      local null = copies.opens(assert(io.open("/dev/null", "wb")))
      for _, source in ipairs { zeros, endless } do
        for _, target in ipairs { null, function() end } do
          local total, patience = 0, tcp.now() + 5
          local err = cut(way, function() return total > 0 end, source, target, { progress = function(count)
            total = count
            assert(tcp.now() < patience, "it goes on")
          end })
          assert.equal(total, err.written)
        end
      end
    end)
  end

  test("by its own function's cancelled wait raises that", function()
    local queue = tcp.queue()
    local task = tcp.spawn(function() return copy(function() return (queue:pop()) end, print) end)
    tcp.sleep(0)
    task:cancel()
    fails("cancelled", task:try_join(PATIENCE))
    queue:push("kept")
    assert.equal("kept", queue:pop(0))
  end)
end)
