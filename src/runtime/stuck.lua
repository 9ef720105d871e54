-- What is said of tasks that wait for what cannot come: who they are, and where they stand.

local core, contexts, suspension, loop = ...

local error, type = error, type
local getinfo = core.debug and core.debug.getinfo
local outside = contexts.outside

local _ENV = nil -- luacheck: ignore

--- Where a function of the script's stands: `script.lua:3`; nil if that is not known.
function loop.place_of(fn)
  local info = getinfo and type(fn) == "function" and getinfo(fn, "S")
  if info and info.what ~= "C" and not suspension.is_ours(info) then
    return ("%s:%d"):format(info.short_src, info.linedefined)
  end
end

--- Where a task's function stands.
function loop.origin(task)
  return loop.place_of(task.server and task.server.handler or task.handle and task.handle[2])
end

--- `op at script.lua:12` of a task that waits. A tail call hides where; then it is named by its function.
local function described(task)
  local level, info = 0
  repeat
    info = getinfo and getinfo(task.thread, level, "Sl")
    level = level + 1
  until not info or info.currentline > 0 and not suspension.is_ours(info)
  if info then
    return ("%s at %s:%d"):format(task.op or "begin", info.short_src, info.currentline)
  end
  local origin = loop.origin(task)
  return origin and ("%s in the task of %s"):format(task.op or "begin", origin) or task.op or "begin"
end

local SHOWN = 10

--- Makes ready again whoever waits for nothing, as an error from outside has struck in the middle of the loop or of
-- `spawn`, and counts all anew. Whether there was any.
local function revive()
  local live, quiet, lost = 0, 0, {}
  for _, task in contexts.each() do
    if task.is_quiet then
      quiet = quiet + 1
    else
      live = live + 1
    end
    lost[#lost + 1] = not task.place and task or nil
  end
  loop.live, loop.quiet = live, quiet
  for i = 1, #lost do
    contexts.make_ready(lost[i])
  end
  return #lost > 0
end

--- Raises that nobody is ready, and nothing can come.
function loop.stuck()
  if revive() then
    return
  end
  local waits, count = {}, 0
  for _, task in contexts.each() do
    if not task.is_quiet then
      count = count + 1
      waits[#waits + 1] = count <= SHOWN and described(task) or nil
    end
  end
  local text = "'" .. outside.op .. "' would wait for ever"
  if count > 0 then
    local list = waits[1]
    for i = 2, #waits do
      list = list .. ", " .. waits[i]
    end
    if count > SHOWN then
      list = list .. (" and %d more"):format(count - SHOWN)
    end
    text = text .. (": %d task%s for what cannot come: "):format(count, count == 1 and " waits" or "s wait") .. list
  else
    text = text .. ": there is no task that could end it"
  end
  loop.STUCK.text = text
  return error(loop.STUCK, 0)
end
