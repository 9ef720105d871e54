-- luacheck: ignore 512 (loops that are left at once)
local tcp = require("tcp.core")
local transports = require("support.transports")
local waits = require("support.waits")

local is_plain_51 = _VERSION == "Lua 5.1" and not jit
local SOURCE = debug.getinfo(1, "S").short_src
local is_usable, clean = waits.is_usable, waits.clean

--- Gives what it got, after a wait. It stands here because advice names the line.
local function wait(...)
  tcp.sleep(0.001)
  return ...
end

local function advises(text, fn, ...)
  return waits.advises(SOURCE, text, fn, ...)
end

--- Both ends of a connection, which `clean` closes.
local function pair(over)
  local near, far = over.pair()
  return waits.opens(near), waits.opens(far)
end

local function test(name, body)
  it(name, waits.cleanly(body))
end

after_each(clean)

local LOOP = "cannot wait in a for loop on Lua 5.1: use while and try_"

-- Name: what to use instead, and a loop that has to wait.
local LOOPS = {
  ["for line in conn"] = { "read_line", function(far) for _ in far do break end end },
  ["lines"] = { "read_line", function(far) for _ in far:lines() do break end end },
  ["chunks"] = { "recv", function(far) for _ in far:chunks() do break end end },
  ["packets"] = { "read_packet", function(far) for _ in far:packets() do break end end },
  ["json_packets"] = { "read_json_packet", function(far) for _ in far:json_packets() do break end end },
  ["json_values"] = { "read_json", function(far) for _ in far:json_values() do break end end },
  ["values"] = { "pop", function(_, queue) for _ in queue:values() do break end end },
  ["connections"] = { "accept", function(_, _, listener) for _ in listener:connections() do break end end },
  ["an iterator of the script's own"] = { "read_line", function(far)
    for _ in function()
      local line = far:read_line()
      return line
    end do break end
  end },
  ["a tail call in it"] = { "read_line", function(far)
    for _ in function() return far:read_line() end do break end
  end },
  ["the method itself"] = { "read_line", function(far) for _ in far.read_line, far do break end end },
  ["a helper in it"] = { "recv", function(far)
    local function helper()
      local data = far:recv()
      return data
    end
    for _ in function()
      local data = helper()
      return data
    end do break end
  end },
}

describe("a for loop whose iterator has to wait:", function()
  for _, over in ipairs(transports.all) do
    for name, case in pairs(LOOPS) do
      local instead, run_loop = case[1], case[2]

      test(name .. over.suffix, function()
        local near, far = pair(over)
        local queue, listener = tcp.queue(), waits.opens(tcp.listen("127.0.0.1", 0))
        if is_plain_51 then
          advises(LOOP .. instead, run_loop, far, queue, listener)
          is_usable(near, far)
          queue:push(1)
          assert.equal(1, queue:pop(0))
        else
          local task = tcp.spawn(run_loop, far, queue, listener)
          tcp.sleep(0.001)
          assert.equal("waiting", task:status())
          near:write_packet("1")
          near:write("1\n")
          queue:push(1)
          waits.opens(tcp.connect("127.0.0.1", listener:local_port()))
          tcp.spawn(function()
            tcp.sleep(0.01)
            near:shutdown("send")
          end)
          task:try_join(10)
          assert.is_true(task:status() == "done" or name:find("json") ~= nil)
          far:read_str()
        end
      end)
    end

    test("it works on every Lua where there is no need to wait, and around waits" .. over.suffix, function()
      local near, far = pair(over)
      near:write("1\n2\n3\n")
      near:shutdown("send")
      assert.equal(6, tcp.run(function()
        far:peek(6)
        local sum = 0
        for line in far:lines() do
          sum = sum + wait(tonumber(line))
          if sum == 6 then
            return sum
          end
        end
      end))
    end)
  end

  test("no advice names a function that is not there", function()
    local err = select(2, tcp.spawn(function()
      for _ in function()
        tcp.sleep(0.001)
        return nil
      end do break end
    end):try_join(10))
    local advised = type(err) == "string" and err:match("try_[%w_]+")
    assert.is_true(not advised or tcp[advised] ~= nil, tostring(err))
  end)
end)
