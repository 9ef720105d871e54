#!/usr/bin/env lua
-- Asks many servers at the same time whether their certificates would be accepted, and says why not.
--
-- Usage: lua check_tls.lua [--ca FILE] HOST:PORT...

local tcp = require("tcp")

local ca_bundle
if arg[1] == "--ca" then
  ca_bundle = arg[2]
  table.remove(arg, 1)
  table.remove(arg, 1)
end

--- What is wrong with a server, or nil.
local function check(target)
  local host, port = target:match("^(.+):(%d+)$")
  local conn, err = tcp.try_connect_tls(host, tonumber(port), { timeout = 5, tls = { ca_bundle = ca_bundle } })
  if not conn then
    return err
  end
  conn:close()
end

local function main()
  local checks = {}
  for i, target in ipairs(arg) do
    checks[i] = tcp.spawn(check, target)
  end

  local bad = 0
  for i, target in ipairs(arg) do
    local err = checks[i]:join()
    bad = bad + (err and 1 or 0)
    print(("%-30s %s"):format(target, err and err.kind .. ": " .. err.message or "ok"))
  end
  tcp.run()
  os.exit(bad == 0 and 0 or 1)
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
