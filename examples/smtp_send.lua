#!/usr/bin/env lua
-- Sends a mail that it reads from its input, headers included. Nothing of it leaves before the connection is encrypted
-- and the server known to be the right one: STARTTLS (RFC 3207).
--
-- Usage: lua smtp_send.lua HOST PORT FROM TO... <MAIL
-- SMTP_USER and SMTP_PASSWORD log in; SMTP_CA_BUNDLE, a PEM file, is trusted instead of the system's authorities.

local tcp = require("tcp")

local DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
  return (text:gsub("..?.?", function(bytes)
    local first, second, third = bytes:byte(1, 3)
    local number = first * 65536 + (second or 0) * 256 + (third or 0)
    local digits = ""
    for _ = 1, 4 do
      local digit = number % 64 + 1
      digits = DIGITS:sub(digit, digit) .. digits
      number = math.floor(number / 64)
    end
    return digits:sub(1, #bytes + 1) .. ("="):rep(3 - #bytes)
  end))
end

--- Sends a command, if there is one, and gives the answer's last line. Those before it have a dash behind their code.
local function ask(conn, code, command)
  if command then
    assert(not command:find("[\r\n]"), "a command is one line")
    conn:write_line(command)
  end
  local line
  repeat
    line = conn:read_line()
  until line:sub(4, 4) ~= "-"
  if line:sub(1, 3) ~= code then
    error(("%s: the server says %s"):format(command and command:match("^%a+") or "connected", line), 0)
  end
  return line
end

local function send(host, port, from, recipients, mail)
  local conn = tcp.connect(host, port, { timeout = 30, read_timeout = 60, write_timeout = 60 })
  local address = conn:local_host()
  local hello = ("EHLO [%s%s]"):format(address:find(":") and "IPv6:" or "", address)
  ask(conn, "220")
  -- What is offered now is not looked at: anybody on the way may have taken STARTTLS out.
  ask(conn, "250", hello)
  ask(conn, "220", "STARTTLS")
  conn:start_tls({ ca_bundle = os.getenv("SMTP_CA_BUNDLE") })
  ask(conn, "250", hello)
  local user, password = os.getenv("SMTP_USER"), os.getenv("SMTP_PASSWORD")
  if user then
    ask(conn, "235", "AUTH PLAIN " .. base64("\0" .. user .. "\0" .. (password or "")))
  end
  ask(conn, "250", "MAIL FROM:<" .. from .. ">")
  for _, recipient in ipairs(recipients) do
    ask(conn, "250", "RCPT TO:<" .. recipient .. ">")
  end
  ask(conn, "354", "DATA")
  -- A line that begins with a dot gets another, so that none is taken for the end (RFC 5321, section 4.5.2).
  local lines = ("\n" .. mail:gsub("\r", ""):gsub("\n$", "")):gsub("\n%.", "\n.."):gsub("\n", "\r\n"):sub(3)
  conn:write(lines, "\r\n.\r\n")
  local answer = ask(conn, "250")
  conn:try_write_line("QUIT")
  conn:try_read_line()
  conn:close()
  return answer
end

if not arg[4] then
  io.stderr:write("usage: lua smtp_send.lua HOST PORT FROM TO... <MAIL\n")
  os.exit(2)
end
local recipients = { (table.unpack or unpack)(arg, 4) }
local ok, result = pcall(send, arg[1], tonumber(arg[2]), arg[3], recipients, io.read("*a"))
if not ok then
  io.stderr:write("not sent: ", tostring(result), "\n")
  os.exit(1)
end
print("sent: " .. result)
