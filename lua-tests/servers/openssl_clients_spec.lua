-- OpenSSL's own client, and curl, for our servers.

local tcp = require("tcp.core")
local support = require("support")
local servers = require("support.servers")
local transports = require("support.transports")
local waits = require("support.waits")

local fails = support.fails
local certificate = transports.certificate
local PATIENCE = 10

local OPTIONS = { read_timeout = PATIENCE, write_timeout = PATIENCE }
local TRUSTING = ("-CAfile %s -verify_return_error -verify_hostname localhost -servername localhost")
  :format(certificate("ca"))
-- What comes from the terminal does not end it.
local LASTING = "-ign_eof "

local lines = {}
for i = 1, 65536 do
  lines[i] = ("%014d\r\n"):format(i)
end
local LARGE = table.concat(lines)

local function listen(name, alpn)
  OPTIONS.tls = { cert = certificate(name or "server"), key = certificate(name or "server", "key"), alpn = alpn }
  return tcp.listen("127.0.0.1", 0, OPTIONS)
end

--- Runs a command of the shell in which `$port` is the listener's, has `handle` speak with each of its connections
-- (there are `count`, 1 if nothing is said), and gives what it printed.
local function serve(listener, command, handle, count)
  local path = os.tmpname()
  local text = command:gsub("$port", tostring(listener:local_port()))
  -- A pipe that nobody reads would hold it up.
  local process = assert(io.popen(("{ %s; } >%s 2>&1"):format(text, path), "r"))
  local ok, err = pcall(function()
    for i = 1, count or 1 do
      local conn = listener:accept(PATIENCE)
      local fine, problem = pcall(handle, conn, i)
      conn:close()
      if not fine then
        error(problem, 0)
      end
    end
  end)
  -- Then whoever still wants to connect is refused.
  listener:close()
  process:read("*a")
  process:close()
  waits.see_off()
  local file = assert(io.open(path, "rb"))
  local output = file:read("*a")
  file:close()
  os.remove(path)
  if not ok then
    error(tostring(err) .. "\n" .. output:sub(1, 2000), 0)
  end
  return output
end

--- The words of the shell that have openssl say `text` to `$port`.
local function s_client(words, text)
  return ("printf '%s' | openssl s_client -connect 127.0.0.1:$port %s"):format(text or "hello\\n", words)
end

local function shout(conn)
  conn:write_line(conn:read_line():upper())
end

local VERSIONS = { ["TLSv1.2"] = "-tls1_2 ", ["TLSv1.3"] = "-tls1_3 " }

describe("openssl s_client", function()
  if not servers.find("openssl") then
    pending("is not installed: apt-get install openssl")
    return
  end

  for protocol, version in pairs(VERSIONS) do
    for _, name in ipairs { "server", "rsa", "chain" } do
      it(("verifies the certificate of %s and speaks %s"):format(name, protocol), function()
        local output = serve(listen(name), s_client(version .. LASTING .. TRUSTING), shout)
        assert.matches("\nHELLO\r\n", output)
        assert.matches("Verification: OK", output)
        assert.matches("Verified peername: localhost", output)
        assert.matches("New, " .. protocol:gsub("%p", "%%%0") .. ", Cipher is ", output)
        assert.not_matches("errno", output)
      end)
    end

    it("is sent the whole chain: " .. protocol, function()
      local output = serve(listen("chain"), s_client(version .. LASTING .. "-showcerts " .. TRUSTING), shout)
      local count = select(2, output:gsub("BEGIN CERTIFICATE", ""))
      assert.equal(2, count)
    end)

    it("is quiet, and gets lines both ways and 1 MiB: " .. protocol, function()
      local output = serve(listen(), s_client(version .. "-quiet " .. TRUSTING, "one\\ntwo\\n"), function(conn)
        assert.equal("one", conn:read_line())
        conn:write("1\n")
        assert.equal("two", conn:read_line())
        conn:write("2\n", LARGE)
      end)
      local said = output:match("\n(1\n2\n.*)$") or output
      assert.is_true("1\n2\n" .. LARGE == said, #said)
    end)

    it("sends 1 MiB and its end: " .. protocol, function()
      local path = os.tmpname()
      local file = assert(io.open(path, "wb"))
      file:write(LARGE)
      file:close()
      local got
      serve(listen(), ("openssl s_client -connect 127.0.0.1:$port %s -quiet -no_ign_eof %s <%s")
        :format(version, TRUSTING, path), function(conn)
        got = conn:read_str()
      end)
      os.remove(path)
      assert.is_true(LARGE == got, #got)
    end)

    it("trusts nobody, and says why: " .. protocol, function()
      local err
      local output = serve(listen(), s_client(version .. "-verify_return_error -CAfile " .. certificate("stranger-ca")),
        function(conn)
          err = fails("tls", conn:try_read_line())
          fails("tls", conn:try_write("x"))
          fails("tls", conn:try_handshake())
        end)
      assert.equal("unknown_ca", err.alert)
      assert.equal("handshake", err.stage)
      assert.equal("the client broke off with TLS alert unknown_ca", err.message)
      assert.matches("verify error", output)
    end)

    it("resumes its session: " .. protocol, function()
      local path = os.tmpname()
      local words = version .. LASTING .. TRUSTING
      local listener = listen()
      local output = serve(listener, s_client(words .. " -sess_out " .. path) .. "; "
        .. s_client(words .. " -sess_in " .. path) .. "; " .. s_client(words), shout, 3)
      os.remove(path)
      local kinds = {}
      for kind in output:gmatch("\n(%u%l+), " .. protocol:gsub("%p", "%%%0") .. ", Cipher is") do
        kinds[#kinds + 1] = kind
      end
      assert.same({ "New", "Reused", "New" }, kinds)
      assert.equal(3, select(2, output:gsub("HELLO", "")))
    end)

    it("resumes no session of a listener with other options: " .. protocol, function()
      local path = os.tmpname()
      local words = version .. LASTING .. TRUSTING
      serve(listen(), s_client(words .. " -sess_out " .. path), shout)
      local output = serve(listen(nil, { "x" }), s_client(words .. " -sess_in " .. path), shout)
      os.remove(path)
      assert.matches("\nNew, ", output)
      assert.matches("HELLO", output)
    end)
  end

  it("comes back five times with its session by TLS 1.2", function()
    local output = serve(listen(), s_client("-tls1_2 -reconnect " .. LASTING .. TRUSTING), function(conn, turn)
      if turn == 6 then
        shout(conn)
      else
        assert.is_nil((conn:try_read_line()))
      end
    end, 6)
    assert.equal(5, select(2, output:gsub("\nReused, ", "")))
    assert.matches("HELLO", output)
  end)

  -- Kinds of TLS that other clients seldom speak.
  local ODD = {
    ["offers a key share that is not taken"] = "-tls1_3 -groups P-521:P-256",
    ["knows P-384 only"] = "-tls1_3 -groups P-384",
    ["offers protocols that nobody asked for"] = "-alpn h2,http/1.1",
    ["takes no tickets"] = "-tls1_3 -no_ticket",
    ["takes no tickets of TLS 1.2"] = "-tls1_2 -no_ticket",
    ["sends small records"] = "-max_send_frag 512",
    ["asks for small records"] = "-maxfraglen 512",
    ["pads its records"] = "-tls1_3 -record_padding 4096",
    ["knows one cipher"] = "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305",
    ["asks for the status of the certificate"] = "-status",
  }
  for name, words in pairs(ODD) do
    it("is served where it " .. name, function()
      assert.matches("HELLO", serve(listen(), s_client(words .. " " .. LASTING .. TRUSTING), shout))
    end)
  end

  it("is served where it names no server", function()
    assert.matches("HELLO", serve(listen(), s_client(LASTING .. "-noservername -CAfile " .. certificate("ca")), shout))
  end)

  it("may update its keys, and ask for ours, at any time", function()
    local text = "(echo one; sleep 0.2; echo K; sleep 0.2; echo two; sleep 0.2; echo k; sleep 0.2; echo three; "
      .. "sleep 0.2; echo Q) | openssl s_client -connect 127.0.0.1:$port -tls1_3 " .. TRUSTING
    local got = {}
    local output = serve(listen(), text, function(conn)
      for i = 1, 3 do
        got[i] = conn:read_line()
        conn:write_line("got " .. got[i])
      end
      assert.is_nil(conn:recv())
    end)
    assert.same({ "one", "two", "three" }, got)
    assert.matches("KEYUPDATE", output)
    assert.matches("got three", output)
  end)

  it("is told in words that TLS 1.1 will not do", function()
    local err
    local output = serve(listen("rsa"), s_client("-tls1_1 -cipher ALL:@SECLEVEL=0 " .. TRUSTING), function(conn)
      err = fails("tls", conn:try_read_line())
    end)
    assert.equal("handshake", err.stage)
    assert.equal("the client speaks nothing newer than TLS 1.1", err.message)
    assert.matches("SSL alert number %d+", output)
  end)

  it("has no cipher in common, which both are told", function()
    local err
    local output = serve(listen("rsa"), s_client("-tls1_2 -cipher AES128-SHA:@SECLEVEL=0 " .. TRUSTING), function(conn)
      err = fails("tls", conn:try_read_line())
    end)
    assert.equal("handshake", err.stage)
    assert.matches("^this side and the client have no TLS in common", err.message)
    assert.matches("alert handshake failure", output)
  end)
end)

describe("curl", function()
  if not servers.find("curl") then
    pending("is not installed: apt-get install curl")
    return
  end

  local CURL = "curl -sS --noproxy '*' --max-time 10 --cacert " .. certificate("ca") .. " "

  --- Answers one request with a body, after it has read one if there is one.
  local function answer(conn, body)
    local request, length = conn:read_line(), 0
    local line = conn:read_line()
    while line ~= "" do
      length = tonumber(line:lower():match("^content%-length: (%d+)$")) or length
      if line:lower() == "expect: 100-continue" then
        conn:write("HTTP/1.1 100 Continue\r\n\r\n")
      end
      line = conn:read_line()
    end
    local got = conn:read(length)
    conn:write(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"):format(#body), body)
    return request, got
  end

  for protocol, words in pairs { ["TLSv1.2"] = "--tlsv1.2 --tls-max 1.2 ", ["TLSv1.3"] = "--tlsv1.3 " } do
    it("gets 1 MiB twice by one connection: " .. protocol, function()
      local output = serve(listen("chain"), CURL .. words .. "--resolve localhost:$port:127.0.0.1 "
        .. "https://localhost:$port/a https://localhost:$port/b", function(conn)
        assert.equal("GET /a HTTP/1.1", (answer(conn, LARGE)))
        assert.equal("GET /b HTTP/1.1", (answer(conn, LARGE)))
        assert.is_nil(conn:recv())
      end)
      assert.is_true(LARGE .. LARGE == output, output:sub(1, 200))
    end)

    it("gets all of an answer that ends with the connection: " .. protocol, function()
      local output = serve(listen(), CURL .. words .. "https://127.0.0.1:$port/", function(conn)
        conn:read_until("\r\n\r\n")
        conn:write("HTTP/1.0 200 OK\r\n\r\n", LARGE)
      end)
      assert.is_true(LARGE == output, #output .. output:sub(-200))
    end)

    it("posts 1 MiB: " .. protocol, function()
      local path = os.tmpname()
      local file = assert(io.open(path, "wb"))
      file:write(LARGE)
      file:close()
      local got
      local output = serve(listen("rsa"), CURL .. words .. "--data-binary @" .. path .. " https://127.0.0.1:$port/",
        function(conn)
          got = select(2, answer(conn, "thanks"))
        end)
      os.remove(path)
      assert.equal("thanks", output)
      assert.is_true(LARGE == got)
    end)
  end

  it("refuses a server it does not know, which is told", function()
    local err
    local output = serve(listen("self-signed"), CURL .. "https://127.0.0.1:$port/", function(conn)
      err = fails("tls", conn:try_read_line())
    end)
    assert.equal("handshake", err.stage)
    assert.matches("^unknown_ca", err.alert)
    assert.matches("^curl: %(60%)", output)
  end)
end)
