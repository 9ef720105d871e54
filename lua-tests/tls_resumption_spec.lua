-- Which sessions of TLS are resumed, and which must not be.

local certificates = require("support.certificates")
local sessions = require("support.sessions")
local tcp = require("tcp.core")
local transports = require("support.transports")

local certificate = transports.certificate
local begins, copy, fresh, listen, meet, resumes = sessions.begins, sessions.copy, sessions.fresh, sessions.listen,
  sessions.meet, sessions.resumes

local listener

local function serve(more, port)
  listener = listen(more, port)
  return listener
end

local function test(name, body)
  it(name, function()
    body()
    listener:close()
    certificates.remove_files()
    tcp.run()
  end)
end

local function identity(name)
  return { client_cert = certificate(name), client_key = certificate(name, "key") }
end

--- Options that a session of `one` must not serve, by what is different about them.
local function others(one)
  return {
    ["verify = false"] = { verify = false, protocols = one.protocols },
    ["the same authority as a file"] = { ca_bundle = certificate("ca"), protocols = one.protocols },
    ["another authority"] = fresh { protocols = one.protocols },
    ["an alpn"] = copy(one, { alpn = { "later" } }),
    ["a client's certificate"] = copy(one, identity("client")),
    ["other protocols"] = copy(one, { protocols = { "TLSv1.2", "TLSv1.3" } }),
  }
end

for _, protocol in ipairs(sessions.VERSIONS) do
  describe("a session of " .. protocol, function()
    local function mine(more)
      return fresh(copy({ protocols = { protocol } }, more))
    end

    test("is resumed by every later connection, which both ends are told", function()
      serve()
      local tls = mine()
      begins(listener, tls)
      for _ = 1, 5 do
        assert.is_true(resumes(listener, tls))
      end
    end)

    test("is resumed whatever options of the same kind were said in between", function()
      serve()
      local tls = mine()
      begins(listener, tls)
      for _, other in pairs(others(tls)) do
        resumes(listener, other)
      end
      assert.is_true(resumes(listener, tls))
    end)

    test("is resumed by options that were written down anew", function()
      serve()
      local text = mine().ca_bundle
      assert.is_false(resumes(listener, { ca_bundle = text, protocols = { protocol }, alpn = { "a", "b" } }))
      assert.is_true(resumes(listener, { alpn = { "a", "b" }, protocols = { protocol }, ca_bundle = text }))
      assert.is_false(resumes(listener, { alpn = { "b", "a" }, protocols = { protocol }, ca_bundle = text }))
    end)

    test("is resumed by many connections at once", function()
      serve()
      local tls = mine()
      resumes(listener, tls)
      local serving = tcp.spawn(function()
        for _ = 1, 20 do
          tcp.spawn(function(conn)
            conn:write_line("hello")
            conn:try_recv()
            conn:close()
          end, listener:accept(10))
        end
      end)
      local count, tasks = 0, {}
      for i = 1, 20 do
        tasks[i] = tcp.spawn(function()
          local conn = tcp.connect("127.0.0.1", listener:local_port(), { tls = tls })
          assert.equal("hello", conn:read_line())
          count = count + (conn:resumed() and 1 or 0)
          conn:close()
        end)
      end
      for _, task in ipairs(tasks) do
        task:join(10)
      end
      serving:join(10)
      -- TLS 1.3 takes each ticket for one connection (RFC 8446, appendix C.4).
      assert.is_true(count >= (protocol == "TLSv1.2" and 20 or 1), "only " .. count)
    end)

    for name in pairs(others {}) do
      test("is not resumed under other options: " .. name, function()
        serve()
        local one = mine()
        local other = others(one)[name]
        if name == "other protocols" then
          other.ca_bundle = one.ca_bundle
        end
        resumes(listener, one)
        assert.is_false(resumes(listener, other))
      end)
    end

    test("is not resumed once verify = false has begun it", function()
      serve { cert = certificate("stranger"), key = certificate("stranger", "key") }
      local insecure = { verify = false, protocols = { protocol }, alpn = { mine().ca_bundle:sub(-20) } }
      begins(listener, insecure)
      local _, err = meet(listener, copy(insecure, { verify = true, ca_bundle = certificate("ca") }))
      assert.equal("certificate", err.kind)
      assert.is_true(resumes(listener, insecure))
    end)

    test("is not resumed under another name", function()
      serve()
      local tls = mine()
      begins(listener, copy(tls, { sni = "localhost" }))
      assert.is_false(resumes(listener, copy(tls, { sni = "127.0.0.1" })))
      assert.is_false(resumes(listener, copy(tls, { sni = "::1" })))
      assert.is_true(resumes(listener, copy(tls, { sni = "localhost" })))
      -- It is the name that counts, not who gave it.
      assert.is_true(resumes(listener, tls, "localhost"))
      assert.is_true(resumes(listener, copy(tls, { sni = "LOCALHOST" })))
    end)

    test("whose certificate was refused is never resumed", function()
      serve { cert = certificate("stranger"), key = certificate("stranger", "key") }
      local tls = mine()
      for _ = 1, 3 do
        local near, err = meet(listener, tls)
        assert.is_nil(near)
        assert.equal("certificate", err.kind)
      end
      local port = listener:local_port()
      listener:close()
      serve(nil, port)
      assert.is_false(resumes(listener, tls))
    end)

    test("is not resumed after a file that the client named has changed", function()
      serve()
      local text = mine().ca_bundle
      local path = certificates.file("ca.pem", text)
      -- Changes that follow each other at once may bear the same time.
      tcp.sleep(0.05)
      local tls = { ca_bundle = path, protocols = { protocol } }
      begins(listener, tls)
      certificates.fill(path, text .. "# changed\n")
      tcp.sleep(0.05)
      begins(listener, tls)
      certificates.fill(path, certificates.contents(certificate("stranger-ca")))
      local _, err = meet(listener, tls)
      assert.equal("certificate", err.kind)
    end)

    test("is not resumed after a file that the server named has changed", function()
      local cert = certificates.file("cert.pem", certificates.contents(certificate("server")))
      local key = certificates.file("key.pem", certificates.contents(certificate("server", "key")))
      tcp.sleep(0.05)
      serve { cert = cert, key = key }
      local tls = mine()
      begins(listener, tls)
      certificates.fill(key, certificates.contents(certificate("stranger", "key")))
      certificates.fill(cert, certificates.contents(certificate("stranger")))
      tcp.sleep(0.05)
      local _, err = meet(listener, tls)
      assert.equal("certificate", err.kind)
    end)

    test("is not resumed once a revocation list is given", function()
      serve()
      local tls = mine()
      begins(listener, tls)
      local near = meet(listener, copy(tls, { crl = certificates.empty_crl() }))
      assert.is_false(near.resumed)
      assert.is_true(resumes(listener, tls))
    end)

    test("agrees anew on what is spoken inside, and knows the certificate and the name of the first", function()
      local tls = mine { sni = "localhost", alpn = { "one", "two" } }
      local port = serve { alpn = { "two", "one" } }:local_port()
      local first, first_far = meet(listener, tls)
      local second, second_far = meet(listener, tls)
      assert.is_false(first.resumed)
      assert.is_true(second.resumed)
      first.resumed, first_far.resumed = true, true
      assert.same(first, second)
      assert.same(first_far, second_far)
      assert.equal("two", second.alpn)
      assert.equal("localhost", second_far.server_name)
      assert.equal(64, #second.peer)
      listener:close()
      -- Other options have keys of their own.
      serve({ alpn = { "one" } }, port)
      local third = meet(listener, tls)
      assert.equal("one", third.alpn)
      assert.is_false(third.resumed)
    end)

    test("knows the client's certificate, too", function()
      serve { client_ca = certificate("ca"), client_auth = "required" }
      local tls = mine(identity("client"))
      local _, first = meet(listener, tls)
      local near, second = meet(listener, tls)
      assert.is_true(near.resumed)
      assert.equal(64, #first.peer)
      assert.equal(first.peer, second.peer)
    end)

    test("of a client that shows another certificate, or none, is another", function()
      serve { client_ca = certificate("ca"), client_auth = "optional" }
      local tls = mine(identity("client"))
      begins(listener, tls)
      local near, far = meet(listener, { ca_bundle = tls.ca_bundle, protocols = tls.protocols })
      assert.is_false(near.resumed)
      assert.is_nil(far.peer)
      near, far = meet(listener, copy(tls, identity("chain")))
      assert.is_false(near.resumed)
      assert.is_truthy(far.peer)
    end)
  end)
end

describe("a client that wrote and closed without reading", function()
  for _, protocol in ipairs(sessions.VERSIONS) do
    it("has its session resumed once tcp.run() has returned: " .. protocol, function()
      local target = listen()
      local tls = fresh { protocols = { protocol } }
      local resumed = {}
      for i = 1, 2 do
        local serving = tcp.spawn(function()
          local conn = target:accept(10)
          assert.equal("data", conn:read_str())
          conn:close()
        end)
        local conn = tcp.connect("127.0.0.1", target:local_port(), { tls = tls })
        resumed[i] = conn:resumed()
        conn:write("data")
        conn:close()
        serving:join(10)
        tcp.run()
      end
      target:close()
      assert.same({ false, true }, resumed)
    end)
  end
end)

describe("a session that start_tls began", function()
  for _, protocol in ipairs(sessions.VERSIONS) do
    it("is resumed by the next upgrade, and by a connection that was secure from the start: " .. protocol, function()
      local options = { server = true, cert = certificate("server"), key = certificate("server", "key") }
      local plain = tcp.listen("127.0.0.1", 0)
      local tls = fresh { sni = "localhost", protocols = { protocol } }
      local resumed = {}
      for i = 1, 3 do
        local serving = tcp.spawn(function()
          local conn = plain:accept(10)
          conn:start_tls(options)
          conn:write_line("hello")
          conn:try_recv()
          resumed["far" .. i] = conn:resumed()
          conn:close()
        end)
        local conn
        if i == 3 then
          conn = tcp.connect("127.0.0.1", plain:local_port(), { tls = tls })
        else
          conn = tcp.connect("127.0.0.1", plain:local_port())
          conn:start_tls(tls)
        end
        assert.equal("hello", conn:read_line({ timeout = 10 }))
        resumed[i] = conn:resumed()
        conn:close()
        serving:join(10)
        tcp.run()
      end
      plain:close()
      assert.same({ false, true, true, far1 = false, far2 = true, far3 = true }, resumed)
    end)
  end
end)
