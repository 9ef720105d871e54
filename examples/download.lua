#!/usr/bin/env lua
-- Downloads a file over TLS: with a progress bar on a terminal, with a line for each tenth elsewhere. The file gets its
-- name only once it is whole.
--
-- Usage: lua download.lua HOST PORT PATH FILE [CA_BUNDLE]

local tcp = require("tcp")

-- Lua 5.1 gives the command's status, others say whether that is zero.
local status = os.execute("test -t 1")
local is_terminal = status == 0 or status == true

--- A function that shows how far it has come: each percent on a terminal, each tenth elsewhere.
local function reporter(total)
  local step, due = is_terminal and 1 or 10, 0
  return function(bytes)
    local percent = math.floor(bytes * 100 / total)
    if percent >= due then
      due = percent - percent % step + step
      local bar = ("#"):rep(math.floor(percent * 0.4))
      io.write((is_terminal and "\r[%-40s] %3d %%" or "%s %d %%\n"):format(bar, percent))
      io.flush()
    end
  end
end

--- What a function gives that may fail, or the end with its reason.
local function check(value, reason)
  if not value then
    error(reason, 0)
  end
  return value
end

--- The answer's body, at its beginning, and its length, if the server tells it.
local function request(host, port, path, ca_bundle)
  local options = { timeout = 10, read_timeout = 30, tls = { ca_bundle = ca_bundle } }
  local conn = check(tcp.try_connect_tls(host, port, options))
  check(conn:try_write("GET ", path, " HTTP/1.0\r\nHost: ", host, "\r\n\r\n"))
  local head = check(conn:try_read_until("\r\n\r\n", 65536))
  local answer = head:match("^HTTP/1%.%d (%d+[^\r\n]*)") or "what is not HTTP"
  check(answer:sub(1, 3) == "200", "the server says " .. answer)
  return conn, tonumber(head:lower():match("\ncontent%-length: *(%d+)"))
end

local function download(host, port, path, name, ca_bundle)
  local conn, length = request(host, port, path, ca_bundle)
  local file = check(io.open(name .. ".part", "wb"))
  local bytes = check(tcp.try_copy(conn, file, { limit = length, progress = length and reporter(length) }))
  conn:close()
  check(file:close())
  check(bytes == (length or bytes), ("only %d of %d bytes came"):format(bytes, length or bytes))
  check(os.rename(name .. ".part", name))
  print(("%s%s: %d bytes"):format(is_terminal and "\n" or "", name, bytes))
end

if not arg[4] then
  io.stderr:write("usage: lua download.lua HOST PORT PATH FILE [CA_BUNDLE]\n")
  os.exit(2)
end
local ok, err = pcall(download, arg[1], tonumber(arg[2]), arg[3], arg[4], arg[5])
if not ok then
  os.remove(arg[4] .. ".part")
  io.stderr:write(is_terminal and "\n" or "", tostring(err), "\n")
  os.exit(1)
end
