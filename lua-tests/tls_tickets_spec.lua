-- The tickets of servers: they keep nothing of a session themselves.

local certificates = require("support.certificates")
local servers = require("support.servers")
local sessions = require("support.sessions")
local tcp = require("tcp.core")
local transports = require("support.transports")

local certificate = transports.certificate
local begins, copy, fresh, meet = sessions.begins, sessions.copy, sessions.fresh, sessions.meet

--- An s_client that keeps its session in a file, or takes it from there; gives what it printed.
local function s_client(listener, words)
  local path = certificates.file("output")
  local command = ("openssl s_client -connect 127.0.0.1:%d -ign_eof -CAfile %s %s <%s >%s 2>&1")
    :format(listener:local_port(), certificate("ca"), words, certificates.file("input", "hi\n"), path)
  local process = assert(io.popen(command, "r"))
  local conn = listener:accept(10)
  assert.equal("hi", conn:read_line({ timeout = 10 }))
  conn:write_line("hello")
  local facts = sessions.facts(conn)
  conn:close()
  process:read("*a")
  process:close()
  tcp.run()
  assert.matches("hello", certificates.contents(path))
  assert.matches(facts.resumed and "\nReused, " or "\nNew, ", certificates.contents(path))
  return facts.resumed, facts
end

--- So many sessions of nobody else.
local function crowd(listener, count)
  local address = listener:local_port()
  local serving = tcp.spawn(function()
    for _ = 1, count do
      tcp.spawn(function(conn)
        conn:handshake({ timeout = 30 })
        conn:write("x")
        conn:try_recv(1, { timeout = 30 })
        conn:close()
      end, listener:accept(30))
    end
  end)
  local left, tasks = count, {}
  for i = 1, 20 do
    tasks[i] = tcp.spawn(function()
      while left > 0 do
        left = left - 1
        -- No session of TLS 1.2 is met again under its own name.
        local conn = tcp.connect("127.0.0.1", address,
          { timeout = 30, tls = { verify = false, sni = ("n%d.example"):format(left), protocols = { "TLSv1.2" } } })
        assert.is_false(conn:resumed())
        conn:read(1)
        conn:close()
      end
    end)
  end
  for _, task in ipairs(tasks) do
    task:join(60)
  end
  serving:join(60)
  tcp.run()
end

describe("a ticket", function()
  after_each(certificates.remove_files)

  for protocol, word in pairs { ["TLSv1.2"] = "-tls1_2 ", ["TLSv1.3"] = "-tls1_3 " } do
    if servers.find("openssl") then
      it("is good after 3,000 other sessions: " .. protocol, function()
        local listener = sessions.listen()
        local path = certificates.file("session")
        assert.is_false(s_client(listener, word .. "-sess_out " .. path))
        crowd(listener, 3000)
        assert.is_true(s_client(listener, word .. "-sess_in " .. path))
        listener:close()
      end)

      it("is good at the next listener with the same options, and at no other: " .. protocol, function()
        local options = sessions.fresh_server()
        local path = certificates.file("session")
        local listener = sessions.listen(options)
        local port = listener:local_port()
        assert.is_false(s_client(listener, word .. "-sess_out " .. path))
        listener:close()
        listener = sessions.listen(options, port)
        assert.is_true(s_client(listener, word .. "-sess_in " .. path))
        listener:close()
        listener = sessions.listen(copy(options, { alpn = { "x" } }), port)
        assert.is_false(s_client(listener, word .. "-sess_in " .. path))
        listener:close()
      end)
    end

    if servers.find("openssl") then
      it("brings no alpn along: " .. protocol, function()
        local listener = sessions.listen { alpn = { "one", "two" } }
        local path = certificates.file("session")
        local resumed, facts = s_client(listener, word .. "-alpn one -sess_out " .. path)
        assert.same({ false, "one" }, { resumed, facts.alpn })
        for words, alpn in pairs { ["-alpn two"] = "two", ["-alpn two,one"] = "one", [""] = false } do
          resumed, facts = s_client(listener, ("%s %s -sess_in %s"):format(word, words, path))
          assert.is_true(resumed)
          assert.equal(alpn or nil, facts.alpn)
        end
        listener:close()
      end)

      it("is good for the name that it was given for, only: " .. protocol, function()
        local listener = sessions.listen()
        local path = certificates.file("session")
        local resumed, facts = s_client(listener, word .. "-servername localhost -sess_out " .. path)
        assert.same({ false, "localhost" }, { resumed, facts.server_name })
        resumed, facts = s_client(listener, word .. "-servername other.example -sess_in " .. path)
        assert.same({ false, "other.example" }, { resumed, facts.server_name })
        resumed, facts = s_client(listener, word .. "-servername localhost -sess_in " .. path)
        assert.same({ true, "localhost" }, { resumed, facts.server_name })
        listener:close()
      end)
    end

    it("is taken by no listener with another certificate: " .. protocol, function()
      local one, other = sessions.listen(), sessions.listen { cert = certificate("chain"), key = certificate("chain",
        "key") }
      local tls = fresh { sni = "localhost", protocols = { protocol } }
      begins(one, tls)
      local near, far = meet(other, tls)
      assert.same({ false, false }, { near.resumed, far.resumed })
      one:close()
      other:close()
    end)

    it("for one name is taken by the same listener for no other: " .. protocol, function()
      local named = { cert = certificate("other-name"), key = certificate("other-name", "key") }
      local listener = sessions.listen { sni = { ["other.example"] = named } }
      local tls = fresh { protocols = { protocol } }
      local one, other = copy(tls, { sni = "localhost" }), copy(tls, { sni = "other.example" })
      begins(listener, one)
      begins(listener, other)
      local near = meet(listener, one)
      local near_other = meet(listener, other)
      assert.is_true(near.resumed and near_other.resumed)
      assert.not_equal(near.peer, near_other.peer)
      listener:close()
    end)
  end

  it("of a client's certificate is good at no listener that asks for others", function()
    local options = sessions.fresh_server { client_ca = certificate("ca"), client_auth = "required" }
    local tls = fresh { client_cert = certificate("client"), client_key = certificate("client", "key") }
    local listener = sessions.listen(options)
    local port = listener:local_port()
    begins(listener, tls)
    listener:close()
    listener = sessions.listen(copy(options, { client_ca = certificate("stranger-ca") }), port)
    local near, err, far_err = meet(listener, tls)
    assert.is_nil(near)
    assert.equal("tls", err.kind)
    assert.is_truthy(err.alert)
    assert.equal("certificate", far_err.kind)
    listener:close()
  end)
end)
