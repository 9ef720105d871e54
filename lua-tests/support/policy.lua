-- What specs of tcp.allow share. A policy cannot be undone in a state: each case has a child interpreter of its own.

local assert = require("luassert")
local support = require("support")

local policy = {}

--- Words of the shell for a network where nobody can be reached, so that what is allowed goes nowhere; nil if there
-- can be none, and then `NO_NETWORK` is the reason.
for _, words in ipairs { "unshare -n", "unshare -rn" } do
  if not policy.NOWHERE and support.succeeds(words .. " true") then
    policy.NOWHERE = words
  end
end
policy.NO_NETWORK = "a network where nobody can be reached needs a network namespace of its own"

--- A string, number, boolean or table of them as a script would write it.
function policy.text(value)
  if type(value) == "string" then
    return ("%q"):format(value)
  elseif type(value) ~= "table" then
    return tostring(value)
  end
  local parts = {}
  for key, inner in pairs(value) do
    parts[#parts + 1] = ("[%s] = %s"):format(policy.text(key), policy.text(inner))
  end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

-- In front of every script. `listen` gives a listener of 127.0.0.1 and its port, `reach` says how a try_ form went:
-- "reached", or the kind of the error; misuse is told as it is. What comes of it is closed.
local PREAMBLE = [[
local tcp = require("tcp.core")
local function listen()
  local listener = tcp.listen("127.0.0.1", 0)
  return listener, listener:local_port()
end
local function reach(name, ...)
  local ok, value, err = tcp.pcall(tcp["try_" .. name], ...)
  if not ok then
    return tostring(value)
  elseif err ~= nil then
    return tcp.is_error(err) and err.kind or tostring(err)
  end
  if type(value) ~= "string" and type(value) ~= "table" and type(value) ~= "number" then
    value:close()
  end
  return "reached"
end
]]

--- What a script prints in a state of its own, with `tcp`, `listen` and `reach` as its locals.
function policy.run(script, prefix)
  return support.child(PREAMBLE .. script, prefix)
end

--- Asserts that a script prints these lines, or what is left of them.
function policy.prints(lines, script, prefix)
  assert.equal(table.concat(lines, "\n") .. "\n", policy.run(script, prefix))
end

local VERDICTS = [[
for _, layer in ipairs(%s) do
  tcp.allow(layer)
end
for _, target in ipairs(%s) do
  local host, port = target:match("^(.*) (%%S+)$")
  print("went " .. reach(%q, host or target, port))
end
]]

--- Asserts that layers (tables for tcp.allow) let an operation (connect, if none is given) pass to the ones and stop it
-- for the others: each is "HOST PORT" or "unix:PATH". Nothing leaves the machine.
function policy.decides(layers, passes, stops, operation)
  local targets = {}
  for _, list in ipairs { passes, stops } do
    for _, target in ipairs(list) do
      targets[#targets + 1] = target
    end
  end
  local script = VERDICTS:format(policy.text(layers), policy.text(targets), operation or "connect")
  local output = policy.run(script, policy.NOWHERE)
  local wrong, count = {}, 0
  for line in output:gmatch("[^\n]+") do
    local verdict = assert(line:match("^went (.*)"), output)
    count = count + 1
    if verdict:find(": bad ", 1, true) or (verdict == "denied") ~= (count > #passes) then
      wrong[#wrong + 1] = ("%s: %s"):format(targets[count], verdict)
    end
  end
  assert.equal(#targets, count, output)
  assert.same({}, wrong)
end

return policy
