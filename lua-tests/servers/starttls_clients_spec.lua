-- Programs that ask our servers for TLS in the middle of a connection.

local tcp = require("tcp.core")
local postgresql = require("support.postgresql")
local servers = require("support.servers")
local support = require("support")
local transports = require("support.transports")
local waits = require("support.waits")

local certificate, fails, message = transports.certificate, support.fails, postgresql.message

local PATIENCE = 30
local OPTIONS = { read_timeout = PATIENCE, write_timeout = PATIENCE }
local TRUSTING = ("-CAfile %s -verify_return_error -verify_hostname localhost -servername localhost -quiet -ign_eof ")
  :format(certificate("ca"))
local PROTOCOLS = { ["TLSv1.2"] = "-tls1_2 ", ["TLSv1.3"] = "-tls1_3 " }

--- The TLS options of a server with a certificate of the tests, and these.
local function options(more)
  local all = { server = true, cert = certificate("server"), key = certificate("server", "key") }
  for name, value in pairs(more or {}) do
    all[name] = value
  end
  return all
end

local function test(name, body)
  it(name, waits.cleanly(body))
end

--- Runs a command of the shell in which `$port` is a listener's, has `handle` speak with the connection that it makes,
-- and gives what it printed.
local function serve(command, handle)
  local listener = waits.opens(tcp.listen("127.0.0.1", 0, OPTIONS))
  local text = command:gsub("$port", tostring(listener:local_port()))
  local process = io.popen(("{ timeout %d %s; } 2>&1"):format(PATIENCE, text), "r")
  local conn = listener:accept(PATIENCE)
  local ok, err = pcall(handle, conn)
  conn:close()
  waits.see_off()
  local output = process:read("*a")
  process:close()
  assert(ok, tostring(err) .. "\n" .. output)
  return output
end

--- A mail server up to STARTTLS.
local function greet(conn)
  conn:write_line("220 mail.example")
  assert.matches("^EHLO ", conn:read_line():upper())
  conn:write_line("250-mail.example")
  conn:write_line("250 STARTTLS")
  assert.equal("STARTTLS", conn:read_line())
  conn:write_line("220 go ahead")
end

local function shout(conn)
  conn:write_line(conn:read_line():upper())
end

describe("openssl s_client", function()
  if not servers.find("openssl") then
    pending("is not installed: apt-get install openssl")
    return
  end

  after_each(waits.clean)

  for protocol, version in pairs(PROTOCOLS) do
    local words = "openssl s_client -connect 127.0.0.1:$port " .. version .. TRUSTING

    test("upgrades a connection to a mail server: " .. protocol, function()
      local output = serve("sh -c 'echo hello | " .. words .. "-starttls smtp'", function(conn)
        greet(conn)
        assert.is_nil(conn:protocol())
        assert.equal(conn, conn:start_tls(options()))
        assert.is_true(conn:is_tls())
        assert.equal(protocol, conn:protocol())
        assert.equal("localhost", conn:server_name())
        assert.is_false(conn:resumed())
        assert.is_nil(conn:peer_cert())
        shout(conn)
      end)
      assert.matches("\nHELLO\r\n$", output)
    end)

    test("upgrades a connection to a PostgreSQL server: " .. protocol, function()
      local output = serve("sh -c 'echo hello | " .. words .. "-starttls postgres'", function(conn)
        assert.equal(postgresql.SSL_REQUEST, conn:read(8))
        conn:write("S")
        conn:start_tls(options())
        shout(conn)
      end)
      assert.matches("\nHELLO\r\n$", output)
    end)

    test("resumes its session in the middle of the next connection: " .. protocol, function()
      local path, tls = os.tmpname(), options()
      for _, file in ipairs { "-sess_out ", "-sess_in " } do
        serve("sh -c 'echo hello | " .. words .. "-starttls smtp " .. file .. path .. "'", function(conn)
          greet(conn)
          conn:start_tls(tls)
          assert.equal(file == "-sess_in ", conn:resumed())
          shout(conn)
        end)
      end
      os.remove(path)
    end)

    test("shows a certificate, which has to be of the right authority: " .. protocol, function()
      local tls = options({ client_ca = certificate("ca"), client_auth = "required" })
      for name, alert in pairs { client = "", stranger = "unknown ca", expired = "certificate expired" } do
        local shown = ("-cert %s -key %s "):format(certificate(name), certificate(name, "key"))
        local output = serve("sh -c 'echo hello | " .. words .. shown .. "-starttls smtp'", function(conn)
          greet(conn)
          if name == "client" then
            conn:start_tls(tls)
            assert.equal("CN=client", conn:peer_cert().subject)
            return shout(conn)
          end
          local err = fails("certificate", conn:try_start_tls(tls))
          assert.equal("start_tls", err.op)
          assert.is_true(conn:is_closed())
        end)
        assert.matches(name == "client" and "\nHELLO\r\n$" or "alert " .. alert, output)
      end
    end)
  end

  test("does not believe us, which we are told, and the connection is closed", function()
    local words = "openssl s_client -tls1_2 -verify_return_error -CAfile " .. certificate("stranger-ca")
    serve(words .. " -connect 127.0.0.1:$port -starttls smtp </dev/null", function(conn)
      greet(conn)
      local err = fails("tls", conn:try_start_tls(options()))
      assert.equal("unknown_ca", err.alert)
      assert.equal("handshake", err.stage)
      assert.is_true(conn:is_closed())
    end)
  end)
end)

describe("Python's smtplib", function()
  if not servers.find("python3") then
    pending("is not installed: apt-get install python3")
    return
  end

  after_each(waits.clean)

  local SCRIPT = [[
import smtplib, ssl, sys
context = ssl.create_default_context(cafile="$ca")
context.load_cert_chain("$cert", "$key")
server = smtplib.SMTP("localhost", sys.argv[1])
server.starttls(context=context)
server.sendmail("ann@example.com", ["bob@example.com"], b".\r\n" + b"0123456789abcdef\r\n" * 65536)
server.quit()
print("sent")
]]

  test("sends a mail of more than 1 MiB after it has shown a certificate", function()
    local values = { ca = certificate("ca"), cert = certificate("client"), key = certificate("client", "key") }
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write((SCRIPT:gsub("%$(%l+)", values)))
    file:close()
    local mail
    local output = serve(("python3 %s $port"):format(path), function(conn)
      greet(conn)
      conn:start_tls(options({ client_ca = certificate("ca"), client_auth = "required" }))
      assert.equal("CN=client", conn:peer_cert().subject)
      local line
      repeat
        line = conn:read_line()
        if line == "data" then
          conn:write_line("354 go ahead")
          mail = conn:read_until("\r\n.\r\n", 2097152)
        end
        conn:write_line(line == "quit" and "221 bye" or "250 fine")
      until line == "quit"
    end)
    os.remove(path)
    assert.equal("sent\n", output)
    assert.is_true("..\r\n" .. ("0123456789abcdef\r\n"):rep(65536) == mail .. "\r\n")
  end)
end)

describe("psql", function()
  if not servers.find("psql") then
    pending("is not installed: apt-get install postgresql-client")
    return
  end

  after_each(waits.clean)

  local PSQL = "psql -XAtc 'SELECT 1' 'host=localhost hostaddr=127.0.0.1 port=$port user=ann dbname=db "
    .. "gssencmode=disable sslmode=verify-full sslrootcert=" .. certificate("ca")
  -- A file that is not there: else it looks for one in the user's folder.
  local WITHOUT_CERTIFICATE = " sslcert=none'"

  --- The server's part of a session, after TLS.
  local function answer(conn)
    local length = conn:read(4)
    assert.matches("^%z%z%z", length)
    assert.matches("user%zann%z", conn:read(length:byte(4) - 4))
    conn:write(message("R", "\0\0\0\0"), message("Z", "I"))
    assert.equal(message("Q", "SELECT 1\0"), conn:read(14))
    local one = "\0\1\0\0\0\1" .. "1"
    local column = "\0\1one\0\0\0\0\0\0\0\0\0\0\25\255\255\255\255\255\255\0\0"
    conn:write(message("T", column), message("D", one), message("C", "SELECT 1\0"), message("Z", "I"))
    assert.equal(message("X", ""), conn:read(5))
    assert.is_nil(conn:recv())
  end

  test("verifies our name and asks over TLS", function()
    assert.equal("1\n", serve(PSQL .. WITHOUT_CERTIFICATE, function(conn)
      assert.equal(postgresql.SSL_REQUEST, conn:read(8))
      conn:write("S")
      conn:start_tls(options())
      answer(conn)
    end))
  end)

  test("shows its certificate", function()
    local words = (" sslcert=%s sslkey=%s'"):format(certificate("client"), certificate("client", "key"))
    assert.equal("1\n", serve(PSQL .. words, function(conn)
      assert.equal(postgresql.SSL_REQUEST, conn:read(8))
      conn:write("S")
      conn:start_tls(options({ client_ca = certificate("ca"), client_auth = "optional" }))
      assert.equal("CN=client", conn:peer_cert().subject)
      answer(conn)
    end))
  end)

  test("takes nothing that was written before TLS", function()
    local output = serve(PSQL .. WITHOUT_CERTIFICATE, function(conn)
      assert.equal(postgresql.SSL_REQUEST, conn:read(8))
      conn:write("S", message("R", "\0\0\0\0"))
      conn:try_start_tls(options())
    end)
    assert.matches("received unencrypted data after SSL response", output)
  end)
end)
