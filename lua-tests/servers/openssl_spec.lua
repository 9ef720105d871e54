-- OpenSSL's own server for our clients.

local tcp = require("tcp.core")
local support = require("support")
local servers = require("support.servers")
local transports = require("support.transports")

local fails = support.fails

for program, package in pairs { openssl = "openssl", stdbuf = "coreutils" } do
  if not servers.find(program) then
    describe("openssl s_server", function()
      pending(program .. " is not installed: apt-get install " .. package)
    end)
    return
  end
end

local HERE = require("lfs").currentdir() .. "/"
local PATIENCE = 10

-- 1 MiB of lines that all differ.
local lines = {}
for i = 1, 65536 do
  lines[i] = ("%014d\r\n"):format(i)
end
local LARGE = table.concat(lines)

local function contents(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

local server

--- Starts it with a certificate of the tests. What is written to `server.input` is what it is told on its terminal.
local function start(certificate, words)
  server = servers.start("sh", function(it)
    local file = assert(io.open(it.dir .. "/large", "wb"))
    file:write(LARGE)
    file:close()
    it.input = it.dir .. "/input"
    local command = "mkfifo input && exec stdbuf -oL openssl s_server -accept %s:%d -cert '%s' -key '%s' %s <>input"
    return { "-c", command:format(it.host, it.port, HERE .. transports.certificate(certificate),
      HERE .. transports.certificate(certificate, "key"), words) }
  end)
end

local function stop()
  if server then
    server:stop()
    server = nil
  end
end

--- A test that ends its server before its descriptors are counted.
local function test(name, body)
  it(name, function()
    body()
    stop()
  end)
end

local function connect_to(tls)
  return tcp.connect_tls(server.host, server.port,
    { read_timeout = PATIENCE, write_timeout = PATIENCE, tls = tls or transports.CLIENT })
end

--- The page on which it tells what was negotiated.
local function status_page()
  local conn = connect_to()
  conn:write("GET / HTTP/1.0\r\n\r\n")
  local page = conn:read_str()
  conn:close()
  return page
end

local function says(text)
  local file = assert(io.open(server.input, "w"))
  file:write(text)
  file:close()
end

--- Waits until it has told something so many times.
local function told(pattern, times)
  local deadline = tcp.now() + PATIENCE
  repeat
    local count = select(2, contents(server.dir .. "/log"):gsub(pattern, ""))
    if count >= times then
      return
    end
    tcp.sleep(0.005)
  until tcp.now() > deadline
  error("openssl did not tell '" .. pattern .. "' " .. times .. " times")
end

local CIPHERS = {
  { "TLSv1.2", "server", "ECDHE-ECDSA-AES128-GCM-SHA256" },
  { "TLSv1.2", "server", "ECDHE-ECDSA-AES256-GCM-SHA384" },
  { "TLSv1.2", "server", "ECDHE-ECDSA-CHACHA20-POLY1305" },
  { "TLSv1.2", "rsa", "ECDHE-RSA-AES128-GCM-SHA256" },
  { "TLSv1.2", "rsa", "ECDHE-RSA-AES256-GCM-SHA384" },
  { "TLSv1.2", "rsa", "ECDHE-RSA-CHACHA20-POLY1305" },
  { "TLSv1.3", "server", "TLS_AES_128_GCM_SHA256" },
  { "TLSv1.3", "rsa", "TLS_AES_256_GCM_SHA384" },
  { "TLSv1.3", "server", "TLS_CHACHA20_POLY1305_SHA256" },
}

-- The words for one version, and how a cipher is named.
local VERSIONS = {
  ["TLSv1.2"] = { "-tls1_2", "-cipher" },
  ["TLSv1.3"] = { "-tls1_3", "-ciphersuites" },
}

describe("openssl s_server", function()
  after_each(stop)

  for _, case in ipairs(CIPHERS) do
    local protocol, certificate, cipher = case[1], case[2], case[3]
    test("is spoken to by " .. protocol .. " with " .. cipher, function()
      local words = VERSIONS[protocol]
      start(certificate, ("%s %s %s -www"):format(words[1], words[2], cipher))
      for _ = 1, 2 do
        local page = status_page()
        assert.matches("^HTTP/1.0 200 ok", page)
        assert.matches("Protocol  : " .. protocol, page)
        assert.matches("Cipher    : " .. cipher:gsub("%-", "%%-"), page)
      end
    end)
  end

  test("has nothing in common with a client where it knows old ciphers only", function()
    start("rsa", "-tls1_2 -cipher AES128-SHA:@SECLEVEL=0 -www")
    local value, err = tcp.try_connect_tls(server.host, server.port, { tls = transports.CLIENT })
    fails("tls", value, err)
    assert.equal("handshake_failure", err.alert)
    assert.equal("handshake", err.stage)
  end)

  test("is told in words that TLS 1.1 will not do", function()
    start("rsa", "-tls1_1 -cipher ALL:@SECLEVEL=0 -www")
    local value, err = tcp.try_connect_tls(server.host, server.port, { tls = transports.CLIENT })
    fails("tls", value, err)
    assert.equal("handshake", err.stage)
    assert.equal("protocol_version", err.alert)
  end)

  -- Kinds of TLS that other servers seldom speak.
  local ODD = {
    ["asks for another key share"] = "-tls1_3 -groups P-384",
    ["wants the P-256 of TLS 1.2"] = "-tls1_2 -groups P-256",
    ["sends no tickets"] = "-tls1_3 -num_tickets 0",
    ["sends eight tickets"] = "-tls1_3 -num_tickets 8",
    ["keeps no sessions in TLS 1.2"] = "-tls1_2 -no_ticket -no_cache",
    ["pads its records"] = "-tls1_3 -record_padding 4096",
    ["sends small records"] = "-tls1_3 -max_send_frag 512",
    ["sends small records by TLS 1.2"] = "-tls1_2 -max_send_frag 512",
  }
  for name, words in pairs(ODD) do
    test("gives 1 MiB whole, and its end, where it " .. name, function()
      local intermediate = HERE .. transports.certificate("intermediate")
      start("leaf", ("%s -cert_chain '%s' -WWW"):format(words, intermediate))
      for _ = 1, 3 do
        local conn = connect_to { ca_bundle = transports.certificate("ca"), sni = "localhost" }
        conn:write("GET /large HTTP/1.0\r\n\r\n")
        assert.is_true(LARGE == conn:read_str():match("^HTTP/1.0 200 ok.-\r\n\r\n(.*)$"))
        conn:close()
      end
    end)
  end

  for _, words in ipairs { "-tls1_2", "-tls1_3" } do
    test("turns lines around, one for each: " .. words, function()
      start("server", words .. " -rev")
      local conn = connect_to()
      for i = 1, 200 do
        conn:write_line(("line %d"):format(i))
        assert.equal(("line %d"):format(i):reverse(), conn:read_line())
      end
      conn:close()
      told("CONNECTION CLOSED", 1)
    end)
  end

  test("may update its keys, and ask for ours, at any time", function()
    start("server", "-tls1_3")
    local conn = connect_to()
    for i = 1, 20 do
      says("said " .. i .. "\n")
      assert.equal("said " .. i, conn:read_line())
      says(i % 2 == 0 and "K\n" or "k\n")
      told("SSL_do_handshake", i)
      conn:write_line("answer " .. i)
      told("answer " .. i .. "\r?\n", 1)
    end
    conn:close()
    told("CONNECTION CLOSED", 1)
  end)

  test("may update its keys while its client only writes, or only waits", function()
    start("server", "-tls1_3")
    local conn = connect_to()
    for i = 1, 5 do
      says("K\n")
      told("SSL_do_handshake", i)
      conn:write_line("unread " .. i)
      told("unread " .. i .. "\r?\n", 1)
    end
    local reader = tcp.spawn(function()
      return (conn:read_line())
    end)
    for i = 6, 10 do
      says("K\n")
      told("SSL_do_handshake", i)
    end
    assert.equal("waiting", reader:status())
    says("last\n")
    assert.equal("last", reader:join(PATIENCE))
    conn:close()
  end)

  for _, words in ipairs { "-tls1_2", "-tls1_3" } do
    test("ends a connection in an orderly way, where it is asked to: " .. words, function()
      start("server", words .. " -rev")
      local conn = connect_to()
      conn:write("CLOSE\n")
      assert.is_nil(conn:recv())
      fails("closed", conn:try_read(1))
      conn:close()
    end)

    -- It closes the socket, and then tries to send its closing alert to it: strace shows EBADF.
    test("cuts a connection off by q and by Q: " .. words, function()
      start("server", words)
      for _, letter in ipairs { "q", "Q" } do
        local conn = connect_to()
        says("last words\n")
        assert.equal("last words", conn:read_line())
        says(letter .. "\n")
        fails("truncated", conn:try_recv())
        fails("truncated", conn:try_read_str())
        conn:close()
      end
    end)
  end

  test("breaks a connection off if it insists on another handshake, which is told", function()
    start("server", "-tls1_2")
    local conn = connect_to()
    says("before\n")
    assert.equal("before", conn:read_line())
    says("r\n")
    local err = fails("tls", conn:try_read_line())
    assert.equal("handshake_failure", err.alert)
    fails("tls", conn:try_write("x"))
    conn:close()
  end)

  test("is refused with a certificate for another name, and told why", function()
    start("other-name", "-tls1_3")
    local value, err = tcp.try_connect_tls(server.host, server.port, { tls = transports.CLIENT })
    fails("certificate", value, err)
    told("alert", 1)
  end)
end)
