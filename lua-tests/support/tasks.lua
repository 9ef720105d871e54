-- Tasks of a spec: after each test none may be left.

local assert = require("luassert")
local tcp = require("tcp.core")
local support = require("support")

local tasks = {}

local spawned = {}

--- `tcp.spawn`, remembered.
function tasks.spawn(...)
  local task = tcp.spawn(...)
  spawned[#spawned + 1] = task
  return task
end

--- A task whose `try_` form is called with these arguments. Its join gives a table of `value` and `err`.
function tasks.trying(conn, name, ...)
  return tcp.spawn(function(...)
    local value, err = conn["try_" .. name](conn, ...)
    return { value = value, err = err }
  end, ...)
end

-- How long such a task may take at most.
local PATIENCE = 20

--- Its value; it has to succeed.
function tasks.succeeds(task)
  local result = task:join(PATIENCE)
  assert.is_nil(result.err, tostring(result.err))
  return result.value
end

--- Its error; it has to fail with this kind.
function tasks.fails(kind, task)
  local result = task:join(PATIENCE)
  return support.fails(kind, result.value, result.err)
end

--- Ends what a test left, and asserts that it left nothing: `after_each` of the specs.
function tasks.finish_all()
  tcp.on_error = nil
  local are_left = tcp.step(0)
  for i = #spawned, 1, -1 do
    spawned[i]:cancel()
    spawned[i] = nil
  end
  local has_ended = pcall(tcp.with_timeout, 1, tcp.run)
  assert.is_true(has_ended, "tasks cannot be ended")
  assert.is_false(are_left, "tasks are left")
  assert.is_true(pcall(tcp.sleep, 0), "a wait outside tasks fails")
end

return tasks
