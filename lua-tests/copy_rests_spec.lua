-- What copies leave behind: pipes in the kernel, bytes that could not be written, and sources whose copy was left.

local tcp = require("tcp.core")
local copies = require("support.copies")
local peers = require("support.peers")
local support = require("support")
local tasks = require("support.tasks")

local fails = support.fails
local BYTES = copies.bytes(3000017)

local function test(name, body)
  it(name, copies.cleanly(body))
end

describe("a copy of much from connection to connection", function()
  after_each(copies.clean)

  test("has one pipe at a time, and none while it waits", function()
    local source, source_far = copies.pair("a connection")
    local target, target_far = copies.pair("a connection")
    collectgarbage()
    collectgarbage("stop")
    local before, most, total = peers.descriptors(), 0, 0
    local copying = tcp.spawn(tcp.copy, source, target, { progress = function()
      most = math.max(most, peers.descriptors() - before)
    end })
    for _ = 1, 3 do
      local writing = tcp.spawn(source_far.write, source_far, BYTES)
      local got = target_far:read(#BYTES)
      total = total + #got
      writing:join(10)
      assert.is_true(got == BYTES)
      -- What follows is waited for.
      copies.wait_until(function() return peers.descriptors() <= before + 1 end)
    end
    source_far:shutdown("send")
    local copied = copying:join(10)
    collectgarbage("restart")
    assert.equal(total, copied)
    -- The directory that is counted in is one of them.
    assert.is_true(most >= 2, "it had no pipe")
    assert.is_true(most <= 3, most .. " descriptors more")
  end)

  test("fails with reset where the source is reset in the middle, and passes on what came before", function()
    for _ = 1, 5 do
      local source, source_far = copies.pair("a connection")
      local target, target_far = copies.narrow("a connection")
      local copying = tcp.spawn(function()
        local value, err = tcp.try_copy(source, target)
        return { value = value, err = err }
      end)
      local writing = tcp.spawn(source_far.try_write, source_far, BYTES)
      copies.arrives(target_far)
      -- It waits for the target, with bytes in a pipe or in the buffer.
      copies.reset(source_far)
      writing:try_join(10)
      local draining = tcp.spawn(function()
        local parts = {}
        repeat
          local part = target_far:recv(65536)
          parts[#parts + 1] = part
        until not part
        return table.concat(parts)
      end)
      local err = tasks.fails("reset", copying)
      target:shutdown("send")
      local got = draining:join(10)
      assert.equal(err.written, #got)
      assert.is_true(BYTES:sub(1, #got) == got)
    end
  end)

  test("fails with reset where the source is reset while it is waited for, after much", function()
    local source, source_far = copies.pair("a connection")
    local target, target_far = copies.pair("a connection")
    local copying = tcp.spawn(function()
      local value, err = tcp.try_copy(source, target)
      return { value = value, err = err }
    end)
    local writing = tcp.spawn(source_far.write, source_far, BYTES)
    assert.is_true(target_far:read(#BYTES) == BYTES)
    writing:join(10)
    copies.wait_until(function() return copying:status() == "waiting" end)
    copies.reset(source_far)
    assert.equal(#BYTES, tasks.fails("reset", copying).written)
  end)
end)

describe("of a file that has no positions", function()
  after_each(copies.clean)

  local COUNT = 400000

  --- What two copies of a pipe's bytes bring, the first of which is given up in the middle.
  local function in_two_copies(give_up)
    local near, far = copies.narrow("a connection", 4096)
    local again, again_far = copies.pair("a connection")
    local pipe = copies.opens(io.popen("cat " .. copies.path(BYTES:sub(1, COUNT))))
    local first = give_up(pipe, near, far)
    assert.is_true(first > 0 and first < COUNT)
    local reading = tcp.spawn(again_far.read, again_far, COUNT - first)
    assert.equal(COUNT - first, tcp.copy(pipe, again))
    assert.is_true(reading:join(10) == BYTES:sub(first + 1, COUNT))
  end

  test("a copy whose write times out keeps the rest for the next one", function()
    in_two_copies(function(pipe, near)
      near:set_write_timeout(0.05)
      return fails("timeout", tcp.try_copy(pipe, near)).written
    end)
  end)

  test("a copy that is cancelled keeps the rest for the next one", function()
    in_two_copies(function(pipe, near, far)
      local err
      local task = tcp.spawn(function()
        local _, problem = tcp.try_copy(pipe, near)
        err = problem
      end)
      copies.arrives(far)
      task:cancel()
      task:try_join()
      return err.written
    end)
  end)

  test("sending it keeps the rest for a copy", function()
    in_two_copies(function(pipe, near)
      near:set_write_timeout(0.05)
      return fails("timeout", near:try_send_file(pipe)).written
    end)
  end)
end)

describe("a source whose copy was left in its coroutine", function()
  after_each(copies.clean)

  -- Plain Lua 5.1 lets nobody yield across the pcall of a copy, but for the module itself in a task.
  local is_limited = _VERSION == "Lua 5.1" and not rawget(_G, "jit")

  for name, wrap in pairs { ["coroutine.wrap"] = coroutine.wrap, ["tcp.wrap"] = tcp.wrap } do
    for place, run in pairs(copies.PLACES) do
      local is_possible = not is_limited or wrap == tcp.wrap and run == tcp.run
      local define = is_possible and test or function() end
      define(("can be read from: %s %s"):format(name, place), function()
        local near, far = copies.pair("a connection")
        far:write("one")
        local chunk_of = wrap(function()
          tcp.copy(near, coroutine.yield)
        end)
        run(function()
          -- A wait in coroutine.wrap would be refused in a task.
          near:peek(1)
          assert.equal("one", chunk_of())
          far:write("line\n")
          assert.equal("line", near:read_line())
          assert.equal("x", tcp.spawn(function() far:write("x") return near:read(1) end):join(10))
        end)
      end)
    end
  end

  test("goes on to the copy that comes back to it", function()
    local near, far = copies.pair("a connection")
    far:write("one")
    local chunk_of = tcp.wrap(function()
      tcp.copy(near, coroutine.yield)
      return "end"
    end)
    tcp.run(function()
      assert.equal("one", chunk_of())
      far:write("line\ntwo")
      assert.equal("line", near:read_line())
      assert.equal("two", chunk_of())
      far:shutdown("send")
      assert.equal("end", chunk_of())
    end)
  end)
end)

describe("what is no file", function()
  after_each(copies.clean)

  test("is told with what io.open said of it, and arguments are looked at from the left", function()
    local near = copies.pair("a connection")
    local missing = copies.path()
    local problem = missing .. ": No such file or directory"
    local function misused(text, ...)
      local _, message = pcall(...)
      assert.equal(text, (message:gsub("^.-:%d+: ", "")))
    end
    misused("bad argument #2 to 'copy' (Connection, file or function expected, got nil: " .. problem .. ")",
      tcp.copy, near, io.open(missing, "rb"))
    misused("bad argument #1 to 'copy' (Connection, file or function expected, got nil)", tcp.copy, nil, near, 5)
    misused("bad argument #1 to 'send_file' (path or open file expected, got nil: " .. problem .. ")",
      near.send_file, near, io.open(missing, "rb"))
    misused("bad argument #1 to 'send_file' (path or open file expected, got table)", near.send_file, near, {}, -1)
  end)
end)
