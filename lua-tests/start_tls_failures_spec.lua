-- An upgrade that fails closes the connection, however it fails, and the other side learns it.

local tcp = require("tcp.core")
local certificates = require("support.certificates")
local handshakes = require("support.handshakes")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")
local upgrades = require("support.upgrades")

local fails = support.fails
local clean, opens, timed, between = handshakes.clean, handshakes.opens, handshakes.timed, handshakes.between
local spawn, trying = tasks.spawn, tasks.trying
local certificate = transports.certificate
local CLIENT, SERVER, with = upgrades.CLIENT, upgrades.SERVER, upgrades.with
local is_over = upgrades.is_over

-- Descriptors are counted before `after_each`.
local function test(name, body)
  it(name, function()
    body()
    clean()
  end)
end

local function server_of(name)
  return { server = true, cert = certificate(name), key = certificate(name, "key") }
end

-- Both sides' options, the client's and the server's kind, and the alert that one of them tells the other.
local QUARRELS = {
  ["an unknown issuer"] = { { ca_bundle = certificate("stranger-ca") }, SERVER, "certificate", "tls", "unknown_ca" },
  ["a wrong name"] = { with(CLIENT, { sni = "wrong.example" }), SERVER, "certificate", "tls", "bad_certificate" },
  ["an expired certificate"] = { CLIENT, server_of("expired"), "certificate", "tls", "certificate_expired" },
  ["no certificate of a client"] = { CLIENT, with(SERVER, { client_ca = certificate("ca"), client_auth = "required" }),
    nil, "certificate" },
  ["no version in common"] = { with(CLIENT, { protocols = { "TLSv1.2" } }), with(SERVER, { protocols = { "TLSv1.3" } }),
    "tls", "tls", "protocol_version" },
  ["nothing to speak inside"] = { with(CLIENT, { alpn = { "a" } }), with(SERVER, { alpn = { "b" } }),
    "tls", "tls", "no_application_protocol" },
}

describe("an upgrade that fails for", function()
  after_each(clean)

  for name, quarrel in pairs(QUARRELS) do
    for _, place in ipairs(upgrades.places) do
      test(("%s closes both ends, %s"):format(name, place.suffix), function()
        local client, server, client_kind, server_kind, alert = (table.unpack or unpack)(quarrel, 1, 5)
        local near, far = place.pair()
        local serving = trying(far, "start_tls", server)
        local value, err = near:try_start_tls(with({ sni = "localhost" }, client))
        if client_kind then
          upgrades.failed(client_kind, near, value, err)
          assert.equal("handshake", err.stage)
        else
          -- Under TLS 1.3 the client learns it from its first read.
          assert.is_string(fails("tls", near:try_read_line({ timeout = 5 })).alert)
          near:close()
        end
        local result = serving:join(10)
        local told = upgrades.failed(server_kind, far, result.value, result.err)
        assert.equal("handshake", told.stage)
        assert.equal(alert, told.alert or err and err.alert)
      end)
    end
  end

  test("an unknown issuer raises the same error from start_tls", function()
    local near, far = upgrades.tcp.pair()
    local serving = trying(far, "start_tls", SERVER)
    local ok, err = pcall(function() near:start_tls({ ca_bundle = certificate("stranger-ca") }) end)
    fails("certificate", ok or nil, err)
    assert.same({ "start_tls", "handshake" }, { err.op, err.stage })
    assert.matches("start_tls_failures_spec.lua:%d+$", err.where)
    is_over(near)
    assert.equal("unknown_ca", tasks.fails("tls", serving).alert)
    is_over(far)
  end)

  test("an unknown issuer does so in a task, too", function()
    local near, far = upgrades.tcp.pair()
    local serving = trying(far, "start_tls", SERVER)
    local task = spawn(near.start_tls, near, { ca_bundle = certificate("stranger-ca") })
    fails("certificate", task:try_join(10))
    is_over(near)
    tasks.fails("tls", serving)
    is_over(far)
  end)
end)

describe("files that cannot be used", function()
  after_each(certificates.remove_files)

  local function check(name, kind, is_server, options)
    test(name .. " close the connection", function()
      local near, far = upgrades.tcp.pair()
      local conn, other = near, far
      if is_server then
        conn, other = far, near
      end
      local err = upgrades.failed(kind, conn, conn:try_start_tls(options()))
      assert.is_nil(err.alert)
      assert.is_nil((other:recv(10, { timeout = 5 })))
    end)
  end

  local function empty()
    return certificates.file("empty.pem", "")
  end

  check("of authorities that are missing", "system", false, function() return { ca_bundle = "/none/ca.pem" } end)
  check("of authorities that are empty", "tls", false, function() return { ca_bundle = empty() } end)
  check("of revocations that are missing", "system", false, function() return with(CLIENT, { crl = "/none" }) end)
  check("of revocations that are empty", "tls", false, function() return with(CLIENT, { crl = empty() }) end)
  check("of a client that are missing", "system", false, function()
    return with(CLIENT, { client_cert = "/none/cert.pem", client_key = certificate("client", "key") })
  end)
  check("of a client that do not belong together", "tls", false, function()
    return with(CLIENT, { client_cert = certificate("client"), client_key = certificate("server", "key") })
  end)
  check("of a server that are missing", "system", true, function() return with(SERVER, { cert = "/none/cert.pem" }) end)
  check("of a server that are empty", "tls", true, function() return with(SERVER, { cert = empty() }) end)
  check("of a server that do not belong together", "tls", true, function()
    return with(SERVER, { key = certificate("client", "key") })
  end)
end)

-- What the other side does instead of TLS: actions of a peer, and the kinds that may come of it.
local RUDE = {
  ["speaks something else"] = { "tls", { "send", "HTTP/1.1 400 Bad Request\r\n\r\n" }, "stall" },
  ["sends garbage"] = { "tls", { "send", ("\200\1\99"):rep(5000) }, "stall" },
  ["sends garbage that looks like a handshake"] = { "tls", { "send", "\22\3\3\0\5garba" }, "stall" },
  ["sends a refusal in TLS"] = { "tls", { "send", "\21\3\3\0\2\2\40" }, "stall" },
  ["closes"] = { "closed", { "skip", 100 }, "close" },
  ["closes at once"] = { "closed", "close" },
  ["ends its sending side"] = { "closed", "shutdown", "stall" },
  ["closes within a record"] = { "closed", { "send", "\22\3\3\0\80\2\0\0\76" }, "shutdown", "stall" },
  ["resets"] = { "reset", { "skip", 1 }, "reset" },
  ["resets, unasked"] = { "reset", { "sleep", 30 }, "reset" },
  ["resets within a record"] = { "reset", { "send", "\22\3\3\0\80\2\0\0\76" }, { "sleep", 50 }, "reset" },
}

describe("an upgrade whose other side", function()
  after_each(clean)

  for name, rude in pairs(RUDE) do
    for _, side in ipairs { "client", "server" } do
      test(("%s fails and closes the connection (%s)"):format(name, side), function()
        local conn = opens(support.connect_to("accept", (table.unpack or unpack)(rude, 2)))
        -- A server says nothing before its client does.
        local first = side == "server" and rude[2][1] == "skip"
        if first then
          conn:write(("x"):rep(100))
        end
        between(0, 2, timed(function()
          local _, err = conn:try_start_tls(side == "client" and CLIENT or SERVER)
          local kind = rude[1]
          -- Who closes with something unread resets.
          if kind == "closed" and err and err.kind == "reset" then
            kind = "reset"
          end
          upgrades.failed(kind, conn, nil, err)
          assert.equal("handshake", err.stage)
        end))
      end)
    end
  end
end)

describe("the shortest of an upgrade's times", function()
  after_each(clean)

  -- Which of them is short.
  local SHORT = {
    handshake_timeout = function(_, options) options.handshake_timeout = 0.1 end,
    ["the read timeout"] = function(conn) conn:set_read_timeout(0.1) end,
    ["both timeouts"] = function(conn) conn:set_timeout(0.1) end,
    ["the deadline"] = function(conn) conn:set_deadline(0.1) end,
    ["the read deadline"] = function(conn) conn:set_read_deadline(0.1) end,
  }
  local PLACES = { ["in a task"] = tcp.run, ["outside tasks"] = function(fn) fn() end, ["beside a task"] = function(fn)
    local other = spawn(tcp.sleep, 5)
    fn()
    other:cancel()
  end }

  for name, shorten in pairs(SHORT) do
    for place, run in pairs(PLACES) do
      test(("is %s, %s"):format(name, place), function()
        for _, options in ipairs { CLIENT, SERVER } do
          local near, far = upgrades.tcp.pair()
          near:set_read_timeout(3)
          near:set_write_timeout(0.01)
          near:set_deadline(4)
          options = with(options, { handshake_timeout = 2 })
          shorten(near, options)
          between(0.1, 1, timed(function()
            run(function()
              local value, err = near:try_start_tls(options)
              assert.equal("handshake", fails("timeout", value, err).stage)
            end)
          end))
          is_over(near)
          far:close()
        end
      end)
    end
  end

  test("cannot be outlived by who trickles", function()
    local record = "\22\3\3\64\0\2\0\63\252" .. ("\0"):rep(250)
    for _, options in ipairs { CLIENT, SERVER } do
      local conn = opens(support.connect_to("accept", { "dribble", 20, record }, "stall"))
      between(0.2, 1, timed(function()
        local late = with(options, { handshake_timeout = 0.2 })
        upgrades.failed("timeout", conn, conn:try_start_tls(late))
      end))
    end
  end)

  test("ends one that waits for room", function()
    local near, far = upgrades.unix.pair()
    far:set_option("send_buffer", 4608)
    local long = certificates.contents(certificate("chain"))
      .. certificates.contents(certificate("intermediate")):rep(200)
    near:write(upgrades.hello())
    between(0.2, 1, timed(function()
      local options = { server = true, cert = long, key = certificate("chain", "key"), handshake_timeout = 0.2 }
      upgrades.failed("timeout", far, far:try_start_tls(options))
    end))
  end)

  test("may be none: then it is waited for", function()
    local near, far = upgrades.tcp.pair()
    local task = trying(near, "start_tls", with(CLIENT, { handshake_timeout = math.huge }))
    tcp.sleep(0.05)
    assert.equal("waiting", task:status())
    far:start_tls(SERVER)
    tasks.succeeds(task)
  end)

  test("may be 0: then it is not waited for", function()
    local near = upgrades.tcp.pair()
    between(0, 0.5, timed(function()
      upgrades.failed("timeout", near, near:try_start_tls(with(CLIENT, { handshake_timeout = 0 })))
    end))
    near = upgrades.tcp.pair()
    near:set_deadline(0)
    upgrades.failed("timeout", near, near:try_start_tls(CLIENT))
  end)

  test("does not reach beyond the handshake", function()
    local near, far = upgrades.tcp.secured({ handshake_timeout = 0.3 }, { handshake_timeout = 0.3 })
    tcp.sleep(0.35)
    upgrades.is_usable(near, far)
    assert.is_nil(near:timeout())
  end)
end)

describe("an upgrade that is given up", function()
  after_each(clean)

  local WAYS = {
    ["by cancelling its task"] = function(conn, options)
      local task = spawn(conn.start_tls, conn, options)
      tcp.sleep(0.02)
      task:cancel()
      fails("cancelled", task:try_join(10))
    end,
    ["by with_timeout"] = function(conn, options)
      fails("timeout", tcp.try_with_timeout(0.05, conn.start_tls, conn, options))
    end,
    ["by with_timeout in a task"] = function(conn, options)
      fails("timeout", tcp.spawn(tcp.with_timeout, 0.05, conn.start_tls, conn, options):try_join(10))
    end,
    ["by closing its connection"] = function(conn, options)
      local task = trying(conn, "start_tls", options)
      tcp.sleep(0.02)
      conn:close()
      tasks.fails("closed", task)
    end,
  }

  for way, give_up in pairs(WAYS) do
    test(way .. " closes the connection, and its other side learns it", function()
      for _, options in ipairs { CLIENT, SERVER } do
        local near, far = upgrades.tcp.pair()
        give_up(near, options)
        is_over(near)
        local err = upgrades.fails("closed", far, options == CLIENT and SERVER or CLIENT)
        assert.equal("handshake", err.stage)
      end
    end)
  end
end)

describe("a sending side that has ended", function()
  after_each(clean)

  test("cannot be upgraded", function()
    local near = upgrades.tcp.pair()
    near:shutdown("send")
    upgrades.fails("closed", near, CLIENT)
    near = upgrades.unix.pair()
    near:set_write_timeout(0.01)
    -- Half of a line has left: nothing may follow.
    fails("timeout", near:try_write_line(("x"):rep(2 ^ 24)))
    upgrades.fails("closed", near, upgrades.unix.client)
  end)
end)

describe("what a client is told of its failed upgrade", function()
  after_each(clean)

  test("reaches it, however much it had sent", function()
    local near, far = upgrades.tcp.pair()
    local sending = spawn(near.try_write, near, "POST / HTTP/1.1\r\n\r\n" .. ("x"):rep(200000))
    local err = upgrades.fails("tls", far, SERVER)
    assert.equal('the client does not speak TLS here: it sent "POST / HTTP/1.1"', err.message)
    -- An alert: type, version, length (RFC 5246, section 7.2).
    assert.equal("\21\3", near:read(7, { timeout = 10 }):sub(1, 2))
    sending:try_join(10)
    near:close()
    tcp.run()
  end)
end)
