-- STARTTLS in IMAP (RFC 3501, section 6.2.1), with dovecot.

local lfs = require("lfs")
local tcp = require("tcp.core")
local support = require("support")
local ciphers = require("support.ciphers")
local servers = require("support.servers")
local transports = require("support.transports")

local fails = support.fails

local function output_of(command)
  local process = assert(io.popen(command .. " 2>&1", "r"))
  local line = process:read("*l")
  process:close()
  return line
end

local program = servers.find("dovecot")
local version = program and output_of(program .. " --version")
if not version or not version:match("^2%.3%.") then
  describe("dovecot", function()
    -- The configuration of 2.4 is another language.
    pending(version and "is of another version: " .. version or "is not installed: apt-get install dovecot-imapd")
  end)
  return
end

local PATIENCE = 10
local OPTIONS = {
  read_timeout = PATIENCE,
  write_timeout = PATIENCE,
  -- What comes from the server's own address is as good as TLS to dovecot.
  bind = "127.0.0.2",
}

local CONFIGURATION = [[
base_dir = $dir/run
state_dir = $dir/state
log_path = /dev/stderr
login_log_format_elements = user=<%u> %k
protocols = imap
listen = $host
ssl = required
disable_plaintext_auth = yes
ssl_cert = <$certificates/server.pem
ssl_key = <$certificates/server.key
local_name other.example {
  ssl_cert = <$certificates/other-name.pem
  ssl_key = <$certificates/other-name.key
}
mail_location = maildir:$dir/mail
mail_max_userip_connections = 100
first_valid_uid = 1
default_internal_user = $user
default_internal_group = $group
default_login_user = $user
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = home=$dir/mail uid=$user gid=$group
}
service anvil {
  chroot =
  # Nobody waits after a login that failed.
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  chroot =
}
service imap-login {
  chroot =
  # One process for all, which knows its sessions again.
  service_count = 0
  inet_listener imap {
    port = $port
  }
  inet_listener imaps {
    port = 0
  }
}
$more
]]

local CLIENT_CERTIFICATES = [[
ssl_ca = <$certificates/ca.pem
ssl_require_crl = no
ssl_verify_client_cert = yes
auth_ssl_username_from_cert = yes
auth_mechanisms = plain external
auth_failure_delay = 0
passdb {
  driver = static
  mechanisms = external
  args = nopassword=y
}
]]

--- Starts it, with more lines of its configuration.
local function start(more)
  return servers.start("dovecot", function(it)
    -- It gives no mail to root.
    local user = output_of("id -un")
    user = user == "root" and "nobody" or user
    local group = output_of("id -gn " .. user)
    assert(lfs.mkdir(it.dir .. "/mail"))
    assert.is_true(support.succeeds(("chown %s:%s %s/mail"):format(user, group, it.dir)))
    local values = { dir = it.dir, host = it.host, port = it.port, user = user, group = group }
    values.certificates = lfs.currentdir() .. "/" .. transports.certificate("server"):match("^(.*)/")
    local text = CONFIGURATION:gsub("%$more", more or ""):gsub("%$(%l+)", values)
    local path = it.dir .. "/dovecot.conf"
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return { "-F", "-c", path }
  end)
end

local function message_of(size)
  local lines = { "From: lua@localhost", "Subject: large", "" }
  for i = 1, size / 16 do
    lines[#lines + 1] = ("%014d"):format(i)
  end
  return table.concat(lines, "\r\n") .. "\r\n"
end

--- The lines of the answer to a command, its last one first.
local function ask(conn, text)
  conn:write_line("a " .. text)
  local lines = {}
  local line = conn:read_line()
  while not line:match("^a ") do
    lines[#lines + 1] = line
    line = conn:read_line()
  end
  return line:sub(3), lines
end

--- What it can do: a set of the words behind CAPABILITY.
local function capabilities(text)
  local set = {}
  for word in text:match("CAPABILITY ([^%]]*)"):gmatch("%S+") do
    set[word] = true
  end
  return set
end

--- A plain connection, and what the greeting says that the server can do.
local function greeted(server)
  local conn = tcp.connect("localhost", server.port, OPTIONS)
  local greeting = conn:read_line()
  assert.matches("^%* OK ", greeting)
  return conn, capabilities(greeting)
end

--- A connection whose client may shake hands.
local function ready(server)
  local conn = greeted(server)
  assert.equal("OK Begin TLS negotiation now.", (ask(conn, "STARTTLS")))
  assert.is_false(conn:is_tls())
  return conn
end

local function upgraded(server, tls)
  local conn = ready(server)
  assert.equal(conn, conn:start_tls(tls or transports.CLIENT))
  return conn
end

local function login(conn, name)
  assert.matches("^OK .* Logged in$", (ask(conn, ("LOGIN %s secret"):format(name or "lua"))))
end

local function logout(conn)
  local status, lines = ask(conn, "LOGOUT")
  assert.matches("^OK ", status)
  assert.matches("^%* BYE ", lines[1])
  assert.is_nil(conn:recv())
  conn:close()
end

local function append(conn, message)
  conn:write_line(("a APPEND INBOX {%d}"):format(#message))
  assert.matches("^%+ ", conn:read_line())
  conn:write(message, "\r\n")
  local line = conn:read_line()
  -- It may tell of the message first.
  while line:match("^%*") do
    line = conn:read_line()
  end
  assert.matches("^a OK ", line)
end

--- The text of the message with this number.
local function fetch(conn, number)
  conn:write_line(("a FETCH %d BODY.PEEK[]"):format(number))
  local length = conn:read_line():match("^%* " .. number .. " FETCH %(BODY%[%] {(%d+)}$")
  local text = conn:read(tonumber(length))
  assert.equal(")", conn:read_line())
  assert.matches("^a OK ", conn:read_line())
  return text
end

--- Waits until the server's log has a line that matches, and gives what the pattern captures.
local function logged(server, pattern)
  local deadline = tcp.now() + PATIENCE
  repeat
    local file = assert(io.open(server.dir .. "/log", "r"))
    local found = file:read("*a"):match(pattern)
    file:close()
    if found then
      return found
    end
    tcp.sleep(0.005)
  until tcp.now() > deadline
  error("dovecot did not log " .. pattern)
end

describe("dovecot", function()
  local server

  setup(function()
    server = start()
  end)

  teardown(function()
    server:stop()
  end)

  it("offers STARTTLS and no login before it", function()
    local conn, can = greeted(server)
    assert.is_true(can.STARTTLS and can.LOGINDISABLED)
    local status, lines = ask(conn, "CAPABILITY")
    assert.matches("^OK ", status)
    assert.same(can, capabilities(lines[1]))
    logout(conn)
  end)

  it("refuses a login before the upgrade, and takes it after that", function()
    local conn = greeted(server)
    local status, lines = ask(conn, "LOGIN lua secret")
    assert.matches("^NO %[PRIVACYREQUIRED%] ", status)
    assert.matches("the password was exposed", lines[1])
    assert.matches("^OK ", (ask(conn, "STARTTLS")))
    conn:start_tls(transports.CLIENT)
    login(conn)
    logout(conn)
  end)

  it("says under TLS what it did not say before", function()
    local conn = upgraded(server)
    local _, lines = ask(conn, "CAPABILITY")
    local can = capabilities(lines[1])
    assert.is_nil(can.STARTTLS)
    assert.is_nil(can.LOGINDISABLED)
    assert.is_true(can["AUTH=PLAIN"])
    assert.matches("^BAD ", (ask(conn, "STARTTLS")))
    logout(conn)
  end)

  for _, protocol in ipairs { "TLSv1.2", "TLSv1.3" } do
    local options = { ca_bundle = transports.certificate("ca"), protocols = { protocol } }

    it("takes a message of 200 KB and gives it back: " .. protocol, function()
      local message = message_of(200 * 1024)
      local conn = upgraded(server, options)
      login(conn)
      assert.equal("OK", (ask(conn, "SELECT INBOX"):match("^%u+")))
      local _, found = ask(conn, "SEARCH ALL")
      append(conn, message)
      local number = select(2, found[1]:gsub("%d+", "")) + 1
      for _ = 1, 3 do
        assert.is_true(message == fetch(conn, number))
      end
      assert.equal(0, conn:buffered())
      logout(conn)
    end)

    it("knows the connection by the same cipher: " .. protocol, function()
      local conn = greeted(server)
      assert.is_nil(conn:protocol())
      assert.is_nil(conn:cipher())
      assert.is_nil(conn:peer_cert())
      ask(conn, "STARTTLS")
      conn:start_tls(options)
      assert.is_true(conn:is_tls())
      assert.equal(protocol, conn:protocol())
      assert.same({ "localhost", "127.0.0.1", "::1" }, conn:peer_cert().sans)
      login(conn, "cipher")
      local name = logged(server, "user=<cipher>, " .. protocol:gsub("%p", "%%%0") .. " with cipher (%S+)")
      assert.equal(ciphers.iana(name), conn:cipher())
      logout(conn)
    end)

    it("resumes the session of the connection before: " .. protocol, function()
      -- No other test has a session with these.
      local own = { ca_bundle = transports.certificate("ca"), protocols = { protocol }, alpn = { "imap" } }
      local resumed = {}
      for i = 1, 3 do
        local conn = upgraded(server, own)
        login(conn)
        resumed[i] = conn:resumed()
        logout(conn)
      end
      assert.same({ false, true, true }, resumed)
    end)
  end

  it("shows the certificate of the name that is asked for", function()
    local conn = upgraded(server, { ca_bundle = transports.certificate("ca"), sni = "other.example" })
    assert.same({ "other.example", "*.wild.example", "192.0.2.7" }, conn:peer_cert().sans)
    logout(conn)
  end)

  local UNBELIEVED = {
    ["for another name"] = { ca_bundle = transports.certificate("ca"), sni = "wrong.example" },
    ["of an authority that is not trusted"] = { ca_bundle = transports.certificate("stranger-ca") },
    ["of an authority that the system does not know"] = {},
  }
  for name, tls in pairs(UNBELIEVED) do
    it("is not believed with a certificate " .. name .. ", and not spoken to again", function()
      local conn = ready(server)
      local value, err = conn:try_start_tls(tls)
      fails("certificate", value, err)
      assert.equal("start_tls", err.op)
      assert.equal("handshake", err.stage)
      assert.equal("localhost:" .. server.port, err.peer)
      assert.is_true(conn:is_closed())
      assert.is_nil(conn:protocol())
      fails("closed", conn:try_write_line("a LOGIN lua secret"))
      fails("closed", conn:try_read_line())
      fails("closed", conn:try_start_tls(transports.CLIENT))
    end)
  end

  it("is spoken to whoever it is, if that is asked for", function()
    local conn = upgraded(server, { verify = false, sni = "wrong.example" })
    login(conn)
    logout(conn)
  end)

  -- It takes what is behind STARTTLS as TLS.
  it("answers no command that came with STARTTLS in one segment, and leaves", function()
    local conn = greeted(server)
    conn:write("a STARTTLS\r\nb NOOP\r\nc CAPABILITY\r\n")
    assert.equal("a OK Begin TLS negotiation now.", conn:read_line())
    local value, err = conn:try_start_tls(transports.CLIENT)
    assert.is_nil(value)
    assert.is_true(tcp.is_error(err, "closed") or tcp.is_error(err, "reset"), tostring(err))
    assert.equal("start_tls", err.op)
    assert.equal("handshake", err.stage)
    assert.is_true(conn:is_closed())
  end)

  it("tells a client that waits in IDLE of what another one appends", function()
    local idle, other = upgraded(server), upgraded(server)
    login(idle)
    login(other)
    ask(idle, "SELECT INBOX")
    idle:write_line("b IDLE")
    assert.matches("^%+ ", idle:read_line())
    local told = tcp.spawn(function()
      local line = idle:read_line()
      while not line:match("EXISTS$") do
        line = idle:read_line()
      end
      idle:write_line("DONE")
      while not line:match("^b ") do
        line = idle:read_line()
      end
      return line
    end)
    append(other, message_of(1024))
    assert.matches("^b OK ", told:join(PATIENCE))
    logout(idle)
    logout(other)
  end)

  it("upgrades fifty connections of fifty tasks at once", function()
    local running = {}
    for i = 1, 50 do
      running[i] = tcp.spawn(function()
        local conn = upgraded(server)
        local status = ask(conn, "NOOP")
        logout(conn)
        return status
      end)
    end
    for _, task in ipairs(running) do
      assert.equal("OK NOOP completed.", (task:join(30)))
    end
  end)
end)

describe("dovecot that asks for certificates", function()
  local server

  local function identified(name)
    return {
      ca_bundle = transports.certificate("ca"),
      client_cert = transports.certificate(name),
      client_key = transports.certificate(name, "key"),
    }
  end

  setup(function()
    server = start(CLIENT_CERTIFICATES)
  end)

  teardown(function()
    server:stop()
  end)

  for _, protocol in ipairs { "TLSv1.2", "TLSv1.3" } do
    it("knows a client by its certificate: " .. protocol, function()
      local options = identified("client")
      options.protocols = { protocol }
      local conn = upgraded(server, options)
      assert.matches("^OK .* Logged in$", (ask(conn, "AUTHENTICATE EXTERNAL =")))
      logged(server, "user=<client>, " .. protocol:gsub("%p", "%%%0"))
      logout(conn)
    end)
  end

  it("lets nobody in that has none, or one of another authority", function()
    for _, tls in ipairs { transports.CLIENT, identified("stranger") } do
      local conn = upgraded(server, tls)
      assert.matches("^NO ", (ask(conn, "AUTHENTICATE EXTERNAL =")))
      logout(conn)
    end
  end)
end)
