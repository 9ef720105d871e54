-- Gives what `pcall(require, "luv")` does. luv is loaded once in a process: busted forgets modules after each file, and
-- luv that is loaded again once its first loop was collected uses memory that is freed (alone, too, and on every Lua).

local KEY = "specs.luv"
local registry = debug.getregistry()

if registry[KEY] == nil then
  registry[KEY] = { pcall(require, "luv") }
end

return function()
  return registry[KEY][1], registry[KEY][2]
end
