-- The limits of with_timeout: each belongs to the coroutine that called it. Of all the scopes around a wait the one
-- that ends first cuts it, and only that one reports it.

local next, running, setmetatable, status = next, coroutine.running, setmetatable, coroutine.status

local _ENV = nil -- luacheck: ignore

local scopes = {}

-- Counts them: of two that end at once the outer one counts.
local last_id = 0

local function nearer(scope, other)
  return other and other.expiry <= scope.expiry and other or scope
end

--- Opens a scope that ends at `expiry`, around whatever the running coroutine does until `close`.
function scopes.open(context, expiry)
  -- Lua 5.1 has no name for its main thread.
  local thread, all = running() or context, context.scopes
  if not all then
    all = setmetatable({}, { __mode = "k" })
    context.scopes, context.is_limited = all, true
  end
  last_id = last_id + 1
  local parent = all[thread]
  local scope = { expiry = expiry, parent = parent, id = last_id, thread = thread }
  scope.nearest = nearer(scope, parent and parent.nearest)
  all[thread] = scope
  return scope
end

--- Whether the scope has cut a wait.
function scopes.close(context, scope)
  context.scopes[scope.thread] = scope.parent
  if next(context.scopes) == nil then
    context.scopes = nil
    context.is_limited = context.is_cancelled or context.id == 0 or nil
  end
  return scope.has_struck
end

--- The scope that ends first of those that the running code is in. A coroutine that has been left is not around it.
local function nearest(context)
  local first
  for thread, scope in next, context.scopes do
    local state = thread ~= context and status(thread)
    if state ~= "suspended" and state ~= "dead" then
      scope = scope.nearest
      if not first or scope.expiry < first.expiry or scope.expiry == first.expiry and scope.id < first.id then
        first = scope
      end
    end
  end
  return first
end

--- When the running code's time is over, its own limit or one around it, which then is the second result.
function scopes.limit(context, expiry)
  local scope = context.scopes and nearest(context)
  if scope and scope.expiry < (expiry or 1 / 0) then
    return scope.expiry, scope
  end
  return expiry
end

return scopes
