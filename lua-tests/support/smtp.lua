-- A mail server for specs (smtp_server.py beside this), and as much of SMTP as they speak.

local lfs = require("lfs")
local servers = require("support.servers")
local support = require("support")
local transports = require("support.transports")

local smtp = {}

--- The Python that has aiosmtpd, or nil: the one in the path need not be the system's.
function smtp.python()
  for _, python in ipairs { "python3", "/usr/bin/python3" } do
    if support.succeeds(python .. " -c 'import aiosmtpd'") then
      return python
    end
  end
end

--- Starts it with a certificate of the tests; without a name, it has no STARTTLS.
function smtp.start(name)
  return servers.start(smtp.python(), function(it)
    local here = lfs.currentdir() .. "/"
    local words = { here .. "lua-tests/support/smtp_server.py", it.host, it.port }
    if name then
      words[4] = here .. transports.certificate(name)
      words[5] = here .. transports.certificate(name, "key")
    end
    return words
  end)
end

--- An answer: its code, its last text, and all its texts as the keys of a table.
function smtp.read_answer(conn)
  local texts = {}
  local line
  repeat
    line = conn:read_line()
    texts[line:sub(5)] = true
  until line:sub(4, 4) ~= "-"
  return tonumber(line:sub(1, 3)), line:sub(5), texts
end

--- The answer to a command.
function smtp.ask(conn, command)
  conn:write_line(command)
  return smtp.read_answer(conn)
end

--- A mail as it is sent: dots at the beginning of lines are doubled, and one stands at the end.
function smtp.stuffed(mail)
  return ("\r\n" .. mail):gsub("\r\n%.", "\r\n.."):sub(3) .. ".\r\n"
end

--- Sends a mail and gives the name of the file in which the server has kept it.
function smtp.send(conn, mail)
  for _, command in ipairs { "MAIL FROM:<ann@example.com>", "RCPT TO:<bob@example.com>", "DATA" } do
    smtp.ask(conn, command)
  end
  conn:write(smtp.stuffed(mail))
  local _, text = smtp.read_answer(conn)
  return text:match("^kept as (%S+)$")
end

return smtp
