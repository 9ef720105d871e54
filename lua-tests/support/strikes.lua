-- Errors from outside, as Ctrl-C raises them: a hook strikes at a call or return of the choice of a spec.

local strikes = {}

--- Calls `fn` by `run` (`pcall` is called with both), and has a hook raise "interrupted!" at its `n`th call or return.
-- Gives whether it struck, and what came of that.
function strikes.at(n, run, fn)
  local count, has_struck = 0, false
  -- What is raised in a finalizer goes nowhere.
  collectgarbage("stop")
  local function strike()
    count = count + 1
    if count == n then
      debug.sethook()
      has_struck = true
      error("interrupted!", 0)
    end
  end
  local _, problem = pcall(run, function()
    debug.sethook(strike, "cr")
    fn()
    debug.sethook()
  end)
  debug.sethook()
  collectgarbage("restart")
  return has_struck, problem
end

--- Runs a function where the script stands, outside tasks.
function strikes.here(fn)
  return fn()
end

return strikes
