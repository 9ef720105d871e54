-- Tasks of a spec: after each test none may be left.

local assert = require("luassert")
local tcp = require("tcp.core")

local tasks = {}

local spawned = {}

--- `tcp.spawn`, remembered.
function tasks.spawn(...)
  local task = tcp.spawn(...)
  spawned[#spawned + 1] = task
  return task
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
