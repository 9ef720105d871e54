-- What both sides of TLS agree to speak: inside (alpn), and of TLS itself (protocols).

local certificates = require("support.certificates")
local servers = require("support.servers")
local sessions = require("support.sessions")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local fresh, meet = sessions.fresh, sessions.meet
local ODD = "\0\255\r\n\"é"

--- What both ends know of a connection between these options, or nil and both errors.
local function between(server, client)
  local listener = sessions.listen(server)
  local near, far, far_err = meet(listener, fresh(client))
  listener:close()
  return near, far, far_err
end

--- Names of so many bytes each.
local function names(count, length)
  local all = {}
  for i = 1, count do
    all[i] = ("%03d"):format(i) .. ("x"):rep(length - 3)
  end
  return all
end

for _, protocol in ipairs(sessions.VERSIONS) do
  describe("alpn by " .. protocol, function()
    local function agreed(server, client)
      local near, far = between({ alpn = server }, { alpn = client, protocols = { protocol } })
      assert(near, tostring(far))
      assert.equal(protocol, near.protocol)
      assert.equal(near.alpn, far.alpn)
      return near.alpn
    end

    it("is what the server likes best of what both know", function()
      assert.equal("one", agreed({ "one", "two", "three" }, { "three", "two", "one" }))
      assert.equal("two", agreed({ "x", "two", "three" }, { "three", "two", "one" }))
      assert.equal("three", agreed({ "three" }, { "one", "two", "three" }))
    end)

    it("is nil where one side says nothing of it", function()
      assert.is_nil(agreed(nil, { "one" }))
      assert.is_nil(agreed({ "one" }, nil))
      assert.is_nil(agreed(nil, nil))
      assert.is_nil(agreed({}, {}))
    end)

    it("may be of any bytes, which are compared as they are", function()
      assert.equal(ODD, agreed({ ODD, "b" }, { "a", ODD }))
      assert.equal("H2", agreed({ "h2 ", "H2" }, { "H2" }))
      local longest = ("x"):rep(255)
      assert.equal(longest, agreed({ longest }, { longest }))
    end)

    it("may be so many names that the first message of TLS takes several records", function()
      local many = names(180, 255)
      assert.equal(many[180], agreed({ "none", many[180] }, many))
    end)

    it("ends the handshake where there is nothing in common, which both are told", function()
      for _, case in ipairs { { { "one" }, { "two" } }, { { "h2" }, { "H2" } }, { { "ab" }, { "a", "b" } } } do
        local near, err, far_err = between({ alpn = case[1] }, { alpn = case[2], protocols = { protocol } })
        assert.is_nil(near)
        assert.equal("tls", err.kind)
        assert.equal("handshake", err.stage)
        assert.equal("no_application_protocol", err.alert)
        assert.equal("tls", far_err.kind)
        assert.equal("handshake", far_err.stage)
        assert.is_nil(far_err.alert)
      end
    end)
  end)
end

describe("alpn", function()
  it("that TLS cannot carry is misuse", function()
    local text = "bad option 'tls.alpn' to '%s' (strings of 1 to 255 bytes expected, got one of %d)"
    for _, length in ipairs { 0, 256 } do
      local tls = fresh { alpn = { "x", ("x"):rep(length) } }
      support.misuse(text:format("connect", length), tcp.connect, "127.0.0.1", 1, { tls = tls })
      support.misuse(text:format("listen", length), tcp.listen, "127.0.0.1", 0,
        { tls = sessions.fresh_server { alpn = tls.alpn } })
    end
  end)

  it("of more names than the first message of TLS holds is misuse", function()
    local ok, err = pcall(tcp.connect, "127.0.0.1", 1, { tls = fresh { alpn = names(300, 255) } })
    assert.is_false(ok)
    assert.equal("string", type(err), tostring(err))
    assert.matches("bad option 'tls.alpn' to 'connect'", err, 1, true)
  end)

  it("is asked for by openssl s_client, too", function()
    if not servers.find("openssl") then
      return pending("openssl is not installed: apt-get install openssl")
    end
    local listener = sessions.listen { alpn = { "two", "one" } }
    for words, alpn in pairs { ["-alpn one,two"] = "two", ["-alpn one,x"] = "one", [""] = false } do
      local output = certificates.file("output")
      local process = assert(io.popen(("echo hi | openssl s_client -connect 127.0.0.1:%d -ign_eof %s >%s 2>&1")
        :format(listener:local_port(), words, output), "r"))
      local conn = listener:accept(10)
      assert.equal("hi", conn:read_line({ timeout = 10 }))
      assert.equal(alpn or nil, conn:alpn())
      conn:close()
      process:read("*a")
      process:close()
      assert.matches(alpn and "ALPN protocol: " .. alpn or "No ALPN negotiated", certificates.contents(output))
    end
    listener:close()
    certificates.remove_files()
    tcp.run()
  end)
end)

describe("protocols", function()
  local CASES = {
    { { "TLSv1.2" }, { "TLSv1.2" }, "TLSv1.2" },
    { { "TLSv1.3" }, { "TLSv1.3" }, "TLSv1.3" },
    { { "TLSv1.2", "TLSv1.3" }, { "TLSv1.2" }, "TLSv1.2" },
    { { "TLSv1.2" }, { "TLSv1.3", "TLSv1.2" }, "TLSv1.2" },
    { { "TLSv1.3", "TLSv1.2" }, { "TLSv1.3" }, "TLSv1.3" },
    { { "TLSv1.3" }, { "TLSv1.2", "TLSv1.3" }, "TLSv1.3" },
    { { "TLSv1.2", "TLSv1.3" }, { "TLSv1.2", "TLSv1.3" }, "TLSv1.3" },
    { nil, nil, "TLSv1.3" },
    { nil, { "TLSv1.2" }, "TLSv1.2" },
    { { "TLSv1.2" }, nil, "TLSv1.2" },
  }

  it("are the newest that both sides have", function()
    for i, case in ipairs(CASES) do
      local near, far = between({ protocols = case[1] }, { protocols = case[2] })
      assert(near, i .. ": " .. tostring(far))
      assert.same({ case[3], case[3] }, { near.protocol, far.protocol }, i)
    end
  end)

  it("that have nothing in common end the handshake, and neither side is told what is not so", function()
    for _, case in ipairs { { { "TLSv1.2" }, { "TLSv1.3" } }, { { "TLSv1.3" }, { "TLSv1.2" } } } do
      local near, err, far_err = between({ protocols = case[1] }, { protocols = case[2] })
      assert.is_nil(near)
      assert.equal("tls", err.kind)
      assert.equal("protocol_version", err.alert)
      assert.equal("the server broke off with TLS alert protocol_version", err.message)
      assert.equal("tls", far_err.kind)
      assert.equal("handshake", far_err.stage)
      -- The client speaks 1.2 or 1.3.
      assert.not_matches("1.1", far_err.message, 1, true)
    end
  end)

  it("that no TLS here speaks are misuse", function()
    for protocols, what in pairs {
      [{}] = "'TLSv1.2' or 'TLSv1.3' expected, got an empty list",
      [{ "TLSv1.2", "TLSv1.1" }] = "'TLSv1.2' or 'TLSv1.3' expected, got 'TLSv1.1'",
      [{ "tlsv1.2" }] = "'TLSv1.2' or 'TLSv1.3' expected, got 'tlsv1.2'",
      ["TLSv1.2"] = "list of 'TLSv1.2' and 'TLSv1.3' expected, got string",
    } do
      local text = "bad option 'tls.protocols' to '%s' (%s)"
      support.misuse(text:format("connect_tls", what), tcp.connect_tls, "127.0.0.1", 1,
        { tls = { protocols = protocols } })
      support.misuse(text:format("listen", what), tcp.listen, "127.0.0.1", 0,
        { tls = sessions.copy(transports.SERVER, { protocols = protocols }) })
    end
  end)

  it("older than those are refused in words, on either side", function()
    if not servers.find("openssl") then
      return pending("openssl is not installed: apt-get install openssl")
    end
    for _, protocol in ipairs(sessions.VERSIONS) do
      local listener = sessions.listen { protocols = { protocol }, cert = transports.certificate("rsa"),
        key = transports.certificate("rsa", "key") }
      local process = assert(io.popen(("openssl s_client -connect 127.0.0.1:%d -tls1_1 -cipher ALL:@SECLEVEL=0 2>&1 "
        .. "</dev/null"):format(listener:local_port()), "r"))
      local conn = listener:accept(10)
      local err = support.fails("tls", conn:try_read_line({ timeout = 10 }))
      assert.equal("handshake", err.stage)
      assert.equal("the client speaks nothing newer than TLS 1.1", err.message)
      conn:close()
      assert.matches("alert", process:read("*a"))
      process:close()
      listener:close()
    end
    tcp.run()
  end)

  it("of a server that has TLS 1.1 only are refused in words", function()
    if not servers.find("openssl") then
      return pending("openssl is not installed: apt-get install openssl")
    end
    local here = require("lfs").currentdir() .. "/"
    local server = servers.start("openssl", function(it)
      return { "s_server", "-accept", it.host .. ":" .. it.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-www",
        "-cert", here .. transports.certificate("rsa"), "-key", here .. transports.certificate("rsa", "key") }
    end)
    for _, protocols in ipairs { { "TLSv1.2" }, { "TLSv1.3" }, { "TLSv1.2", "TLSv1.3" } } do
      local err = support.fails("tls", tcp.try_connect_tls(server.host, server.port,
        { tls = { verify = false, protocols = protocols } }))
      assert.equal("handshake", err.stage)
      assert.equal("protocol_version", err.alert)
    end
    server:stop()
  end)
end)
