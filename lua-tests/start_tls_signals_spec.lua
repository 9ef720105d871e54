-- Ctrl-C in the middle of an upgrade: the connection is closed, as after any other failure.

local support = require("support")

--- Waits until a process sleeps in the kernel, where the signal has to reach it.
local function wait_until_asleep(pid)
  for _ = 1, 2000 do
    local file = assert(io.open("/proc/" .. pid .. "/stat"))
    local state = file:read("*a"):match("%) (%a)")
    file:close()
    if state == "S" then
      return
    end
    os.execute("sleep 0.005")
  end
  error("the process did not wait")
end

local SCRIPT = [[
  local tcp = require("tcp.core")
  local listener = tcp.listen("127.0.0.1", 0)
  local conn = tcp.connect("127.0.0.1", listener:local_port())
  local far = listener:accept()
  local options = %s
  local function upgrade()
    print("waiting")
    io.stdout:flush()
    conn:%s(options)
  end
  print(pcall(function() %s end))
  far:set_timeout(1)
  far:write("slipped in\n")
  local _, err = conn:try_read_line({ timeout = 1 })
  print(err.kind)
  _, err = conn:try_write("secret\n")
  print(err.kind)
  print(conn:is_closed(), conn:buffered())
  print((far:try_read_str() or ""):find("secret"))
]]

local OPTIONS = {
  client = "{ verify = false }",
  server = "{ server = true, cert = 'build/certificates/server.pem', key = 'build/certificates/server.key' }",
}

-- Who waits.
local RUNNERS = {
  ["in the main program"] = "upgrade()",
  ["in a coroutine"] = "local ok, err = coroutine.resume(coroutine.create(upgrade)) error(err, 0)",
  ["in the main program, beside a task"] = "tcp.spawn(tcp.sleep, 50) upgrade()",
}

describe("Ctrl-C", function()
  for side, options in pairs(OPTIONS) do
    for runner, run in pairs(RUNNERS) do
      for _, form in ipairs { "start_tls", "try_start_tls" } do
        it(("closes a connection in the middle of %s, a %s's, %s"):format(form, side, runner), function()
          support.with_child(SCRIPT:format(options, form, run), function(output, pid)
            assert.equal("waiting", output:read("*l"))
            wait_until_asleep(pid)
            os.execute("kill -INT " .. pid)
            local text = output:read("*a")
            assert.matches("^false\t[^\n]*interrupted!\nclosed\nclosed\ntrue\t0\nnil\n$", text)
          end)
        end)
      end
    end
  end
end)
