-- Servers of many names: the listener's option tls.sni, and server_name().

local certificates = require("support.certificates")
local servers = require("support.servers")
local sessions = require("support.sessions")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local certificate, fresh, meet = transports.certificate, sessions.fresh, sessions.meet

local function identity(name)
  return { cert = certificate(name), key = certificate(name, "key") }
end

local SERVER, OTHER = identity("server"), identity("other-name")
local NAMES = { ["Other.example"] = OTHER, ["*.wild.example"] = OTHER }

--- Asks for a name, and takes whatever certificate there is: the first name that it covers, or nil and both errors.
local function shown(listener, name, protocol, host)
  local near, far, far_err
  local serving = tcp.spawn(function()
    local conn = listener:accept(10)
    local _
    _, far_err = conn:try_handshake({ timeout = 10 })
    far = conn:server_name()
    conn:try_recv(1, { timeout = 10 })
    conn:close()
  end)
  local conn, err = tcp.try_connect(host or "127.0.0.1", listener:local_port(),
    { family = "ipv4", tls = { verify = false, sni = name, protocols = { protocol } } })
  if conn then
    near = conn:peer_cert().sans[1]
    conn:close()
  end
  serving:join(10)
  tcp.run()
  if not near then
    return nil, err, far_err
  end
  return near, far
end

for _, protocol in ipairs(sessions.VERSIONS) do
  describe("the sni of a listener by " .. protocol, function()
    it("chooses the certificate, by the name itself or one label under '*.'", function()
      local listener = tcp.listen("127.0.0.1", 0, { tls = sessions.copy(SERVER, { sni = NAMES }) })
      for _, name in ipairs { "other.example", "OTHER.EXAMPLE", "a.wild.example", "A-b.Wild.example" } do
        assert.equal("other.example", (shown(listener, name, protocol)), name)
      end
      -- All others get the one that stands for itself.
      for _, name in ipairs { "localhost", "127.0.0.1", "a.b.wild.example", "wild.example", "x.other.example",
        "other.example.com", "example" } do
        assert.equal("localhost", (shown(listener, name, protocol)), name)
      end
      listener:close()
    end)

    it("takes names with and without the root's dot for the same", function()
      local listener = tcp.listen("127.0.0.1", 0, { tls = sessions.copy(SERVER, {
        sni = { ["other.example."] = OTHER, ["*.wild.example."] = OTHER },
      }) })
      for _, name in ipairs { "other.example", "other.example.", "a.wild.example", "a.wild.example." } do
        assert.equal("other.example", (shown(listener, name, protocol)), name)
      end
      listener:close()
    end)

    it("prefers a name to what covers it", function()
      local listener = tcp.listen("127.0.0.1", 0, { tls = { sni = {
        ["*.wild.example"] = OTHER, ["own.wild.example"] = SERVER,
      } } })
      assert.equal("localhost", (shown(listener, "own.wild.example", protocol)))
      assert.equal("other.example", (shown(listener, "others.wild.example", protocol)))
      listener:close()
    end)

    it("alone refuses whoever asks for another name or for none, which both are told", function()
      local listener = tcp.listen("127.0.0.1", 0, { tls = { sni = NAMES } })
      assert.equal("other.example", (shown(listener, "other.example", protocol)))
      for _, name in ipairs { "localhost", "127.0.0.1", "a.b.wild.example" } do
        local near, err, far_err = shown(listener, name, protocol)
        assert.is_nil(near)
        assert.equal("tls", err.kind)
        assert.equal("handshake", err.stage)
        assert.is_truthy(err.alert)
        assert.equal("tls", far_err.kind)
        assert.equal("handshake", far_err.stage)
        assert.not_matches("unexpected error", far_err.message)
        assert.matches("certificate", far_err.message)
      end
      listener:close()
    end)

    it("is verified as any certificate is", function()
      local listener = sessions.listen { sni = NAMES }
      for name, expected in pairs { ["other.example"] = true, ["x.wild.example"] = true, ["localhost"] = true,
        ["wild.example"] = false, ["a.b.wild.example"] = false } do
        local near, err, far_err = meet(listener, fresh { sni = name, protocols = { protocol } })
        assert.equal(expected, near ~= nil, tostring(err))
        if not expected then
          assert.equal("certificate", err.kind)
          assert.is_truthy(far_err.alert)
        end
      end
      listener:close()
    end)
  end)

  describe("server_name() by " .. protocol, function()
    it("is the name that was asked for, on both sides", function()
      local listener = sessions.listen()
      local near, far = meet(listener, fresh { protocols = { protocol } }, "localhost")
      assert.same({ "localhost", "localhost" }, { near.server_name, far.server_name })
      near, far = meet(listener, fresh { protocols = { protocol }, sni = "localhost" })
      assert.same({ "localhost", "localhost" }, { near.server_name, far.server_name })
      listener:close()
    end)

    it("is nothing on the server's side where an address was asked for", function()
      local listener = sessions.listen()
      for _, name in ipairs { "127.0.0.1", "::1", "[::1]" } do
        local near, far = meet(listener, fresh { protocols = { protocol }, sni = name })
        assert.is_truthy(near, tostring(far))
        assert.is_nil(far.server_name)
      end
      local _, far = meet(listener, fresh { protocols = { protocol } }, "127.0.0.1")
      assert.is_nil(far.server_name)
      listener:close()
    end)

    it("is what the client says, whether or not a certificate of that name is there", function()
      local listener = sessions.listen()
      for name, told in pairs {
        ["elsewhere.example"] = "elsewhere.example", ["A.B"] = "a.b", ["a_b.example"] = "a_b.example",
        ["dot.example."] = "dot.example",
      } do
        local near, far = shown(listener, name, protocol)
        assert.equal("localhost", near)
        assert.equal(told, far)
      end
      listener:close()
    end)
  end)
end

describe("openssl s_client", function()
  if not servers.find("openssl") then
    pending("is not installed: apt-get install openssl")
    return
  end

  --- What a server with these options knows of its name, and what the client said.
  local function serve(tls, words)
    local listener = tcp.listen("127.0.0.1", 0, { tls = tls })
    local process = assert(io.popen(("echo hi | openssl s_client -connect 127.0.0.1:%d -ign_eof %s 2>&1")
      :format(listener:local_port(), words), "r"))
    local conn = listener:accept(10)
    local line, err = conn:try_read_line({ timeout = 10 })
    local name = conn:server_name()
    conn:close()
    local output = process:read("*a")
    process:close()
    listener:close()
    tcp.run()
    return line, line and name or err, output
  end

  it("gets the certificate of its -servername, and without one the server's own", function()
    local tls = sessions.copy(SERVER, { sni = NAMES })
    for words, expected in pairs {
      ["-servername other.example"] = { "other.example", "CN = other.example" },
      ["-servername OTHER.example"] = { "other.example", "CN = other.example" },
      ["-servername deep.wild.example"] = { "deep.wild.example", "CN = other.example" },
      ["-servername localhost"] = { "localhost", "CN = localhost" },
      ["-noservername"] = { nil, "CN = localhost" },
    } do
      local line, name, output = serve(tls, words)
      assert.equal("hi", line)
      assert.equal(expected[1], name)
      assert.matches("subject=" .. expected[2], output, 1, true)
    end
  end)

  it("may say what is no name, which is refused or not listened to", function()
    local tls = sessions.copy(SERVER, { sni = NAMES })
    for _, name in ipairs { "127.0.0.1", "::1", "'a b'", "-x-", "'*.wild.example'", ("x"):rep(255), "." } do
      local line, err = serve(tls, "-servername " .. name)
      if line then
        assert.equal("hi", line)
      else
        assert.equal("tls", err.kind)
        assert.equal("handshake", err.stage)
      end
    end
  end)

  it("without a name finds nobody where there is no certificate but for names", function()
    for _, words in ipairs { "-noservername", "-servername localhost" } do
      local line, err, output = serve({ sni = NAMES }, words)
      assert.is_nil(line)
      assert.equal("tls", err.kind)
      assert.matches("alert", output)
    end
  end)
end)

describe("the table sni of a listener", function()
  local function refuses(what, sni, place)
    support.misuse(("bad option '%s' to 'listen' (%s)"):format(place or "tls.sni", what), tcp.listen, "127.0.0.1", 0,
      { tls = sessions.copy(SERVER, { sni = sni }) })
  end

  it("holds names of hosts only, each with a certificate and its key", function()
    for _, name in ipairs { "", "*", "*.", "a.*.example", "**.example", "127.0.0.1", "::1", "a b", "*.127.0.0.1" } do
      refuses(("name of a host, or '*.' and a name, expected, got '%s'"):format(name), { [name] = OTHER })
    end
    refuses("both cert and key are needed", { ["a.example"] = { cert = OTHER.cert } }, "tls.sni['a.example']")
    refuses("both cert and key are needed", { ["a.example"] = {} }, "tls.sni['a.example']")
    refuses("table (cert and key) expected, got boolean", { ["a.example"] = true }, "tls.sni['a.example']")
    refuses("table (names, each with cert and key) expected, got string", "a.example")
  end)

  it("is told of by listen if it cannot be used", function()
    local missing = { cert = certificates.file("none.pem"), key = OTHER.key }
    local value, err = tcp.try_listen("127.0.0.1", 0, { tls = { sni = { ["a.example"] = missing } } })
    support.fails("system", value, err)
    assert.matches("none.pem", err.message, 1, true)
    value, err = tcp.try_listen("127.0.0.1", 0,
      { tls = { sni = { ["a.example"] = { cert = OTHER.cert, key = SERVER.key } } } })
    support.fails("tls", value, err)
    assert.matches("does not belong", err.message)
    certificates.remove_files()
  end)
end)
