local tcp = require("tcp.core")
local support = require("support")
local nginx = require("support.nginx")
local servers = require("support.servers")
local transports = require("support.transports")

local fails = support.fails
local request, read_response = nginx.request, nginx.read_response

if not servers.find("nginx") then
  describe("nginx over TLS", function()
    pending("is not installed: apt-get install nginx")
  end)
  return
end

local large = nginx.large_body()

local function contents(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

local AUTHORITY = contents(transports.certificate("ca"))

local function connect_to(server, tls)
  return tcp.connect(server.host, server.port, { read_timeout = 30, write_timeout = 30, tls = tls })
end

--- What nginx says of the session of a new connection: its protocol, and `r` if it was resumed, else a dot.
local function session(server, tls)
  local conn = connect_to(server, tls)
  conn:write(request("/session"))
  local told = read_response(conn)
  conn:close()
  return told
end

for _, protocol in ipairs { "TLSv1.2", "TLSv1.3" } do
  for name, kind in pairs { server = "an EC", rsa = "an RSA", chain = "an intermediate authority's" } do
    describe(("nginx by %s with %s certificate"):format(protocol, kind), function()
      local server, options

      setup(function()
        server = nginx.start({ large = large }, nginx.certificate(name)
          .. (" ssl_protocols %s; ssl_session_cache shared:sessions:1m;"):format(protocol))
        -- No other server's sessions have been met with these.
        options = { ca_bundle = AUTHORITY .. "\n# " .. protocol .. name .. "\n", sni = "localhost" }
      end)

      teardown(function()
        server:stop()
      end)

      it("resumes the session of the connection before", function()
        assert.equal(protocol .. " .", session(server, options))
        for _ = 1, 3 do
          assert.equal(protocol .. " r", session(server, options))
        end
      end)

      it("resumes no session of other options or of another name", function()
        session(server, options)
        local text = AUTHORITY .. "\n# other " .. protocol .. name .. "\n"
        assert.equal(protocol .. " .", session(server, { ca_bundle = text, sni = "localhost" }))
        if name ~= "chain" then
          assert.equal(protocol .. " .", session(server, { ca_bundle = text, sni = "127.0.0.1" }))
        end
        assert.equal(protocol .. " r", session(server, { ca_bundle = text, sni = "localhost" }))
        assert.equal(protocol .. " r", session(server, options))
      end)

      it("gives no session of an unverified connection to one that is to be verified", function()
        session(server, { verify = false, sni = "localhost" })
        session(server, { verify = false, sni = "localhost" })
        local value, err = tcp.try_connect(server.host, server.port,
          { tls = { ca_bundle = transports.certificate("stranger-ca"), sni = "localhost" } })
        assert.equal("handshake", fails("certificate", value, err).stage)
      end)

      it("gives 5 MiB whole, again and again", function()
        local conn = connect_to(server, options)
        for _ = 1, 3 do
          conn:write(request("/large"))
          local body, status = read_response(conn)
          assert.equal(200, status)
          assert.is_true(large == body)
        end
        conn:write(request("/large", "Connection: close\r\n"))
        assert.equal(#large, #conn:read_str():match("\r\n\r\n(.*)$"))
        conn:close()
      end)

      it("serves twenty tasks at once", function()
        local tasks = {}
        for i = 1, 20 do
          tasks[i] = tcp.spawn(session, server, options)
        end
        for _, task in ipairs(tasks) do
          assert.matches("^" .. protocol:gsub("%p", "%%%0") .. " [r.]$", (task:join(30)))
        end
      end)
    end)
  end
end

describe("nginx", function()
  local plain, secure

  setup(function()
    plain = nginx.start {}
    secure = nginx.start({}, nginx.certificate("server"))
  end)

  teardown(function()
    plain:stop()
    secure:stop()
  end)

  it("tells a client that speaks no TLS to its HTTPS port, in words", function()
    local conn = connect_to(secure)
    conn:write(request("/"))
    local body, status = read_response(conn)
    assert.equal(400, status)
    assert.matches("The plain HTTP request was sent to HTTPS port", body)
    assert.is_nil(conn:recv())
    conn:close()
  end)

  it("answers TLS at its HTTP port with what the error shows", function()
    local value, err = tcp.try_connect_tls(plain.host, plain.port, { tls = transports.CLIENT })
    fails("tls", value, err)
    assert.equal("handshake", err.stage)
    assert.equal('the server does not speak TLS here: it sent "HTTP/1.1 400 Bad Request"', err.message)
  end)

  it("is not believed by a client that does not know its authority", function()
    for _, ca in ipairs { "stranger-ca", "self-signed" } do
      local value, err = tcp.try_connect_tls(secure.host, secure.port,
        { tls = { ca_bundle = transports.certificate(ca) } })
      assert.equal("handshake", fails("certificate", value, err).stage)
    end
  end)
end)
