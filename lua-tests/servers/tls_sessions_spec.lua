-- What nginx and OpenSSL's server say of a session, and what our client does.

local tcp = require("tcp.core")
local ciphers = require("support.ciphers")
local nginx = require("support.nginx")
local servers = require("support.servers")
local sessions = require("support.sessions")
local support = require("support")
local transports = require("support.transports")

local fails = support.fails
local HERE = require("lfs").currentdir() .. "/"
local PATIENCE = 10

local server

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

local function connect(tls)
  return tcp.connect_tls(server.host, server.port, { read_timeout = PATIENCE, write_timeout = PATIENCE, tls = tls })
end

--- What the server answers to a request, and what the connection knew then.
local function ask(request, tls)
  local conn = connect(tls)
  local facts = sessions.facts(conn)
  conn:write(request)
  local told = conn:read_str()
  conn:close()
  return told, facts
end

if servers.find("nginx") then
  local SERVER = [[
    ssl_protocols %s;
    ssl_session_cache shared:facts:1m;
    location /facts {
      return 200 "$ssl_cipher,$ssl_protocol,$ssl_alpn_protocol,$ssl_server_name,$ssl_session_reused,";
    }
  ]]
  --- What nginx and our client make of one connection.
  local function facts(tls)
    local answer, ours = ask("GET /facts HTTP/1.0\r\n\r\n", tls)
    local cipher, protocol, alpn, name, reused = answer:match("([^,\n]*),([^,]*),([^,]*),([^,]*),(.),$")
    local theirs = {
      cipher = ciphers.iana(cipher), protocol = protocol, alpn = alpn ~= "" and alpn or nil,
      server_name = name ~= "" and name or nil, resumed = reused == "r",
    }
    ours.peer = nil
    return ours, theirs
  end

  describe("nginx", function()
    after_each(stop)

    for _, protocol in ipairs(sessions.VERSIONS) do
      for _, name in ipairs { "server", "rsa" } do
        test(("and our client agree on every fact: %s, %s"):format(protocol, name), function()
          server = nginx.start({}, nginx.certificate(name) .. SERVER:format(protocol))
          local tls = sessions.fresh { sni = "localhost", alpn = { "http/1.1" } }
          for i = 1, 3 do
            local ours, theirs = facts(tls)
            assert.same(theirs, ours)
            assert.equal(i > 1, ours.resumed)
            assert.equal(protocol, ours.protocol)
            assert.equal("http/1.1", ours.alpn)
            assert.equal("localhost", ours.server_name)
            assert.matches("^TLS_", ours.cipher)
          end
        end)
      end

      test("agrees on nothing where nothing was offered: " .. protocol, function()
        server = nginx.start({}, nginx.certificate("server") .. SERVER:format(protocol))
        local ours, theirs = facts(sessions.fresh())
        assert.is_nil(ours.alpn)
        assert.is_nil(theirs.alpn)
        -- An address is sent to nobody (RFC 6066, section 3).
        assert.is_nil(theirs.server_name)
      end)

      test("has nothing in common with who speaks something else inside: " .. protocol, function()
        server = nginx.start({}, nginx.certificate("server") .. SERVER:format(protocol))
        local value, err = tcp.try_connect_tls(server.host, server.port,
          { tls = sessions.fresh { alpn = { "smtp", "x" } } })
        fails("tls", value, err)
        assert.equal("no_application_protocol", err.alert)
        assert.equal("handshake", err.stage)
      end)

      test("speaks h2 to who asks for it first or alone: " .. protocol, function()
        server = nginx.start({}, nginx.certificate("server") .. SERVER:format(protocol), true)
        for _, alpn in ipairs { { "h2" }, { "h2", "http/1.1" } } do
          local conn = connect(sessions.fresh { alpn = alpn })
          assert.equal("h2", conn:alpn())
          conn:write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ("\0"):rep(3), "\4\0\0\0\0\0")
          -- A frame of settings.
          assert.equal(4, conn:read(9):byte(4))
          conn:close()
        end
      end)

      test("has to have the name that is asked for: " .. protocol, function()
        server = nginx.start({}, nginx.certificate("other-name") .. SERVER:format(protocol))
        local value, err = tcp.try_connect_tls(server.host, server.port, { tls = sessions.fresh { sni = "localhost" } })
        fails("certificate", value, err)
        local tls = sessions.fresh { sni = "a.wild.example" }
        for i = 1, 2 do
          local ours, theirs = facts(tls)
          assert.equal("a.wild.example", theirs.server_name)
          assert.equal(i > 1, ours.resumed)
        end
      end)
    end

    test("by another version than ours is told as what it is", function()
      server = nginx.start({}, nginx.certificate("server") .. SERVER:format("TLSv1.2"))
      local value, err = tcp.try_connect_tls(server.host, server.port,
        { tls = sessions.fresh { protocols = { "TLSv1.3" } } })
      fails("tls", value, err)
      assert.equal("protocol_version", err.alert)
      server:stop()
      server = nginx.start({}, nginx.certificate("server") .. SERVER:format("TLSv1.3"))
      value, err = tcp.try_connect_tls(server.host, server.port, { tls = sessions.fresh { protocols = { "TLSv1.2" } } })
      fails("tls", value, err)
      assert.equal("protocol_version", err.alert)
    end)
  end)
else
  describe("nginx over TLS", function()
    pending("is not installed: apt-get install nginx")
  end)
end

if servers.find("openssl") then
  local WORDS = { ["TLSv1.2"] = "-tls1_2", ["TLSv1.3"] = "-tls1_3" }

  local function start(name, words)
    server = servers.start("openssl", function(it)
      local all = { "s_server", "-accept", it.host .. ":" .. it.port, "-cert", HERE .. transports.certificate(name),
        "-key", HERE .. transports.certificate(name, "key") }
      for word in words:gmatch("%S+") do
        all[#all + 1] = word
      end
      return all
    end)
  end

  local function status(tls)
    local page, ours = ask("GET / HTTP/1.0\r\n\r\n", tls)
    local kind, protocol, cipher = page:match("\n(%u%l+), (TLSv[%d.]+), Cipher is (%S+)")
    return ours, { resumed = kind == "Reused", protocol = protocol, cipher = ciphers.iana(cipher) }
  end

  describe("openssl s_server", function()
    after_each(stop)

    for _, protocol in ipairs(sessions.VERSIONS) do
      for _, name in ipairs { "server", "rsa" } do
        test(("and our client agree on every fact: %s, %s"):format(protocol, name), function()
          start(name, WORDS[protocol] .. " -www")
          local tls = sessions.fresh()
          for i = 1, 3 do
            local ours, theirs = status(tls)
            for fact, value in pairs(theirs) do
              assert.equal(value, ours[fact])
            end
            assert.equal(i > 1, ours.resumed)
            assert.equal(protocol, ours.protocol)
          end
        end)
      end

      test("keeps sessions itself, or sends tickets: " .. protocol, function()
        for _, words in ipairs { "-no_ticket", "-num_tickets 1", "-num_tickets 0 -no_ticket -no_cache" } do
          start("server", ("%s %s -www"):format(WORDS[protocol], words))
          local tls = sessions.fresh()
          status(tls)
          assert.equal(not words:find("no_cache"), (status(tls)).resumed)
          stop()
        end
      end)

      test("forgets its sessions with its end: " .. protocol, function()
        start("server", WORDS[protocol] .. " -www")
        local tls = sessions.fresh()
        status(tls)
        assert.is_true((status(tls)).resumed)
        stop()
        start("server", WORDS[protocol] .. " -www")
        local ours, theirs = status(tls)
        assert.is_false(ours.resumed)
        assert.is_false(theirs.resumed)
        assert.is_true((status(tls)).resumed)
      end)

      test("chooses what is spoken inside: " .. protocol, function()
        start("server", WORDS[protocol] .. " -alpn two,one -www")
        for _, case in ipairs { { { "one", "two" }, "two" }, { { "one" }, "one" }, { nil, nil } } do
          local tls = sessions.fresh { alpn = case[1] }
          for _ = 1, 2 do
            local ours = status(tls)
            assert.equal(case[2], ours.alpn)
          end
        end
        local value, err = tcp.try_connect_tls(server.host, server.port, { tls = sessions.fresh { alpn = { "x" } } })
        fails("tls", value, err)
        assert.equal("no_application_protocol", err.alert)
      end)

      test("that chooses nothing is spoken to all the same: " .. protocol, function()
        start("server", WORDS[protocol] .. " -www")
        assert.is_nil((status(sessions.fresh { alpn = { "one" } })).alpn)
      end)
    end
  end)
else
  describe("openssl s_server", function()
    pending("is not installed: apt-get install openssl")
  end)
end
