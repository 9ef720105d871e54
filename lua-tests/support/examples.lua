-- The examples, run as their users run them.

local support = require("support")

local examples = {}

--- A script that runs an example with these arguments.
local function script(name, words)
  local quoted = {}
  for i, word in ipairs(words) do
    quoted[i] = ("%q"):format(tostring(word))
  end
  return ("arg = { [0] = 'examples/%s', %s } dofile(arg[0])"):format(name, table.concat(quoted, ", "))
end

--- Runs an example with these arguments and gives what it printed. `prefix` are words of the shell in front.
function examples.run(name, words, prefix)
  return support.child(script(name, words), prefix)
end

--- The same as a command of the shell: the example knows its interpreter. Waits for all that it has started, too.
function examples.command(name, words, options)
  local command = ("%s %s examples/%s %s 2>&1"):format(support.LUA, options or "", name, table.concat(words, " "))
  local process = assert(io.popen(command, "r"))
  local output = process:read("*a")
  process:close()
  return output
end

--- Calls `use` with the output, as a file, of an example that is under way.
function examples.running(name, words, use)
  support.with_child(script(name, words), use)
end

--- Calls `use` with the port that an example listens on until it is ended, with its output, and its process's number.
function examples.serving(name, words, use)
  examples.running(name, words, function(output, pid)
    local line = output:read("*l")
    use(tonumber(line:match("^listening on 127%.0%.0%.1:(%d+)$") or error(line)), output, pid)
  end)
end

--- Whether a spec runs an example by its name.
function examples.is_run_by(spec, name)
  local file = assert(io.open(spec, "rb"))
  local text = file:read("*a")
  file:close()
  return text:find(('examples%%.%%l+%%("%s"'):format(name:gsub("%.", "%%.")), 1) ~= nil
end

return examples
