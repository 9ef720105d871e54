-- A server with a crowd of clients, and how much memory it takes: two processes beside this one, one for either side.

local lfs = require("lfs")
local support = require("support")
local transports = require("support.transports")

local crowds = {}

-- Descriptors that a process needs besides its connections.
local OTHERS = 100

-- Echoes lines. On its second port it answers questions, once no garbage is left: how many connections it has, what is
-- left of others in the module, and how many bytes are resident in all, and how many of them are Lua's.
local SERVER = [[
  local tcp = require("tcp.core")
  local counts = debug.getregistry()["tcp.counts"]

  local server = tcp.serve("127.0.0.1", 0, function(conn)
    local line = conn:try_read_line()
    while line and conn:try_write_line(line) do
      line = conn:try_read_line()
    end
  end, { tls = TLS })

  -- What waits for its collection is no connection's memory.
  collectgarbage("setpause", 125)

  local answers = {}

  function answers.connections()
    return server:connections()
  end

  function answers.left()
    local now = counts()
    return ("%d tasks, %d registrations, %d timers, %d reads"):format(now.tasks + now.quiet, now.registrations,
      now.timers, now.reading)
  end

  function answers.memory()
    collectgarbage()
    collectgarbage()
    -- Counted page by page: what statm says may be some hundred KiB off.
    local file = assert(io.open("/proc/self/smaps_rollup"))
    local resident = file:read("*a"):match("\nRss: +(%d+) kB\n")
    file:close()
    return ("%.0f %.0f"):format(resident * 1024, collectgarbage("count") * 1024)
  end

  local control = tcp.serve("127.0.0.1", 0, function(conn)
    local question = conn:try_read_line()
    while question do
      conn:write_line(answers[question]())
      question = conn:try_read_line()
    end
  end)

  print(server:local_port(), control:local_port())
  io.stdout:flush()
  tcp.run()
]]

-- Prints the server's memory before, with and after each crowd.
local CLIENTS = [[
  local tcp = require("tcp.core")
  local LINES, PATIENCE = 10, 120
  local options = { timeout = PATIENCE, read_timeout = PATIENCE, tls = TLS }
  local control = tcp.connect("127.0.0.1", CONTROL, { read_timeout = PATIENCE })

  local function ask(question)
    control:write_line(question)
    return control:read_line()
  end

  local function wait_until(question, answer)
    local patience = tcp.now() + PATIENCE
    local last = ask(question)
    while last ~= answer do
      assert(tcp.now() < patience, question .. ": " .. last)
      tcp.sleep(0.005)
      last = ask(question)
    end
  end

  -- Two that accept, and the one that answers these questions.
  local NOBODY = "3 tasks, 3 registrations, 0 timers, 0 reads"

  local function lines_of(number)
    local lines = {}
    for i = 1, LINES do
      lines[i] = ("line %d of %d\r\n"):format(i, number)
    end
    return table.concat(lines)
  end

  local function come_and_go(count)
    local conns = {}
    for i = 1, count do
      conns[i] = tcp.connect("127.0.0.1", PORT, options)
    end
    wait_until("connections", tostring(count))
    for i, conn in ipairs(conns) do
      conn:write(lines_of(i))
    end
    for i, conn in ipairs(conns) do
      local lines = lines_of(i)
      assert(conn:read(#lines) == lines)
    end
    local idle = ask("memory")
    assert(ask("connections") == tostring(count))
    -- Every other one leaves without a word, which also spares ports: those of the others rest for a minute.
    for i, conn in ipairs(conns) do
      if i % 2 == 0 then
        conn:set_option("linger", 0)
      end
      conn:close()
    end
    wait_until("left", NOBODY)
    -- What is collected now is given back to the system when the server waits for the next question.
    ask("memory")
    return idle .. " " .. ask("memory")
  end

  -- What is needed but once is there from now on.
  come_and_go(100)
  local before = ask("memory")
  for _ = 1, ROUNDS do
    print(before .. " " .. come_and_go(COUNT))
  end
]]

local function filled(script, values)
  return (script:gsub("%f[%w]%u%u+%f[%W]", values))
end

--- TLS options, as a script has them.
local function written(over, options)
  if not over.is_tls then
    return "nil"
  end
  local fields = {}
  for name, value in pairs(options) do
    fields[#fields + 1] = ("%s = %q"):format(name, value)
  end
  return "{ " .. table.concat(fields, ", ") .. " }"
end

--- Why there can be no crowd of so many here, or nil.
function crowds.obstacle(count)
  if not lfs.attributes("/proc/self/smaps_rollup") then
    return "only Linux tells how much memory is resident"
  elseif not support.succeeds("ulimit -S -n " .. count + OTHERS) then
    return ("the system lets nobody have %d descriptors: ulimit -H -n"):format(count + OTHERS)
  end
end

--- So many clients come, say something, wait, and go; so many times. Gives a list of what the server's memory was then,
-- tables with the bytes before the first crowd, with this one idle, and after it: those that are `resident`, and Lua's.
function crowds.measure(over, count, rounds)
  local prefix = ("sh -c 'ulimit -S -n %d && exec \"$@\"' sh"):format(count + OTHERS)
  local list = {}
  support.with_child(filled(SERVER, { TLS = written(over, transports.SERVER) }), function(output)
    local line = output:read("*l")
    local port, control = line:match("^(%d+)\t(%d+)$")
    assert(port, line)
    local text = support.child(filled(CLIENTS, {
      PORT = port, CONTROL = control, TLS = written(over, transports.CLIENT), COUNT = count, ROUNDS = rounds,
    }), prefix)
    for numbers in text:gmatch("[^\n]+") do
      local before, lua_before, idle, lua_idle, after, lua_after = numbers:match(("(%d+) "):rep(6):sub(1, -2))
      assert(before, text)
      list[#list + 1] = {
        resident = { before = tonumber(before), idle = tonumber(idle), after = tonumber(after) },
        lua = { before = tonumber(lua_before), idle = tonumber(lua_idle), after = tonumber(lua_after) },
      }
    end
  end, prefix)
  assert(#list == rounds)
  return list
end

return crowds
