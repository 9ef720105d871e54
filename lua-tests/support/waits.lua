-- What specs of waits in odd places share: pairs of connections, a wait, and the advice where there can be none.

local assert = require("luassert")
local tcp = require("tcp.core")
local transports = require("support.transports")

local waits = {}

local opened = {}

--- Has `clean` close it.
function waits.opens(it)
  opened[#opened + 1] = it
  return it
end

--- Both ends of a connection over a transport (plain, if none is given), which `clean` closes.
function waits.pair(over)
  local near, far = (over or transports.plain).pair()
  return waits.opens(near), waits.opens(far)
end

--- Gives what it got, after a wait that no clock can end before it begins.
function waits.wait(...)
  tcp.spawn(function() end):join()
  return ...
end

--- Asserts that an error is the advice `text`, with a line of the spec `source` in front.
function waits.assert_advice(source, text, err)
  assert.equal("string", type(err), tostring(err))
  local prefix = source .. ":"
  assert.equal(prefix, err:sub(1, #prefix), err)
  assert.equal(text, (err:sub(#prefix + 1):gsub("^%d+: ", "")))
end

--- Asserts that a task in which `fn` waits where it cannot is told `text`, and that nothing is left of it.
function waits.advises(source, text, fn, ...)
  local task = tcp.spawn(fn, ...)
  local ok, err = task:try_join(10)
  assert.is_nil(ok, "it could wait")
  waits.assert_advice(source, text, err)
  assert.equal("failed", task:status())
end

--- Asserts that a connection can be read from in a task.
function waits.is_usable(near, far)
  near:write("usable\n")
  assert.equal("usable", tcp.run(function()
    local line = far:read_line({ timeout = 10 })
    return line
  end))
end

--- Has the loop see to what is left of connections that were closed.
function waits.see_off()
  tcp.run()
end

function waits.clean()
  for i = #opened, 1, -1 do
    opened[i]:close()
    opened[i] = nil
  end
  assert.is_false(tcp.step(0), "a task is left")
  waits.see_off()
end

--- A test's body that leaves nothing behind: its descriptors are counted before `after_each`.
function waits.cleanly(body)
  return function()
    body()
    waits.clean()
  end
end

return waits
