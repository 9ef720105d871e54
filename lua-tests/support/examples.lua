-- The examples, run as their users run them.

local support = require("support")

local examples = {}

--- Runs an example with these arguments and gives what it printed. `prefix` are words of the shell in front.
function examples.run(name, words, prefix)
  local quoted = {}
  for i, word in ipairs(words) do
    quoted[i] = ("%q"):format(tostring(word))
  end
  local script = ("arg = { [0] = 'examples/%s', %s } dofile(arg[0])"):format(name, table.concat(quoted, ", "))
  return support.child(script, prefix)
end

--- Whether a spec runs an example by its name.
function examples.is_run_by(spec, name)
  local file = assert(io.open(spec, "rb"))
  local text = file:read("*a")
  file:close()
  return text:find(('examples.run("%s"'):format(name), 1, true) ~= nil
end

return examples
