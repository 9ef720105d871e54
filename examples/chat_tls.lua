#!/usr/bin/env lua
-- A chat room over TLS: the first line that somebody sends is a name, and what comes then all the others get.
--
-- Usage: lua chat_tls.lua CERT KEY [HOST [PORT]]     and then, twice: openssl s_client -quiet -connect 127.0.0.1:7002

local tcp = require("tcp")

-- Each member has a queue of lines, which a task of its own sends: nobody waits for those who read slowly. Whoever lets
-- the queue get full is sent away.
local BACKLOG = 100
local members = {}

local function tell(line, except)
  -- Others may come and go while a push lets them run: a table must not grow while it is traversed.
  local present = {}
  for name, member in pairs(members) do
    if name ~= except then
      present[#present + 1] = member
    end
  end
  for _, member in ipairs(present) do
    local _, err = member.lines:try_push(line, 0)
    if tcp.is_error(err, "timeout") then
      member.conn:close()
    end
  end
end

local function send_lines(conn, lines)
  local line = lines:pop()
  while line and conn:try_write_line(line) do
    line = lines:pop()
  end
  conn:close()
end

local function chat(conn)
  local name = conn:try_write_line("Who are you?") and conn:try_read_line({ timeout = 60 })
  if not name then
    return
  elseif members[name] or #name > 20 or not name:match("^[^%s%c]+$") then
    conn:try_write_line("One word, please, by which nobody here is called.")
    return
  end
  local lines = tcp.queue(BACKLOG)
  members[name] = { conn = conn, lines = lines }
  local sending = tcp.spawn(send_lines, conn, lines)
  print(name .. " has come from " .. conn:remote_addr())
  tell("* " .. name .. " has come")

  local line = conn:try_read_line()
  while line do
    tell(name .. ": " .. line:gsub("%c", " "), name)
    line = conn:try_read_line()
  end

  members[name] = nil
  lines:close()
  print(name .. " has gone")
  tell("* " .. name .. " has gone")
  sending:join()
end

local function main()
  if not arg[2] then
    io.stderr:write("usage: lua chat_tls.lua CERT KEY [HOST [PORT]]\n")
    os.exit(2)
  end
  local tls = { cert = arg[1], key = arg[2] }
  local server = tcp.serve(arg[3] or "127.0.0.1", tonumber(arg[4] or 7002), chat, {
    tls = tls, max_line = 2000, write_timeout = 30,
  })
  io.stdout:setvbuf("line")
  print("listening on " .. server:addr())
  -- Ctrl-C ends the wait; who is here has two seconds to end.
  pcall(tcp.run)
  server:close(2)
  print("closed")
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
