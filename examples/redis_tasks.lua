#!/usr/bin/env lua
-- Asks a Redis server from many tasks over one connection: one task writes the commands of all, another reads the
-- replies, which come in the same order.
--
-- Usage: lua redis_tasks.lua [HOST [PORT [TASKS]]]

local tcp = require("tcp")

local function main()
  local conn = tcp.connect(arg[1] or "localhost", tonumber(arg[2] or 6379), { read_timeout = 5 })
  local commands, expected = tcp.queue(), tcp.queue()

  local function write_commands()
    local command = commands:pop()
    while command do
      expected:push(command.reply)
      conn:write(command.parts)
      command = commands:pop()
    end
    expected:close()
  end

  local function read_replies()
    local reply = expected:pop()
    while reply do
      local line = conn:read_line()
      if line:sub(1, 1) == "$" and line ~= "$-1" then
        line = conn:read(tonumber(line:sub(2)))
        conn:read_line()
      end
      reply:push(line)
      reply = expected:pop()
    end
  end

  local function ask(...)
    local words, reply = { ... }, tcp.queue(1)
    local parts = { ("*%d\r\n"):format(#words) }
    for _, word in ipairs(words) do
      parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#tostring(word), word)
    end
    commands:push({ parts = parts, reply = reply })
    return reply:pop()
  end

  tcp.run(function()
    local writer, reader = tcp.spawn(write_commands), tcp.spawn(read_replies)
    local tasks = {}
    for i = 1, tonumber(arg[3] or 100) do
      tasks[i] = tcp.spawn(function()
        ask("SET", "tcp:" .. i, i * i)
        return tonumber(ask("GET", "tcp:" .. i)), ask("DEL", "tcp:" .. i)
      end)
    end
    local sum = 0
    for _, task in ipairs(tasks) do
      local square = task:join()
      sum = sum + square
    end
    print(("%d tasks over one connection, sum of their squares: %d"):format(#tasks, sum))
    commands:close()
    writer:join()
    reader:join()
  end)
  conn:close()
end

local ok, problem = xpcall(main, tcp.traceback)
if not ok then
  io.stderr:write(tostring(problem), "\n")
  os.exit(1)
end
