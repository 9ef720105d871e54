-- start_tls where all goes well: both sides, data both ways, and what an upgrade leaves as it was.

local tcp = require("tcp.core")
local handshakes = require("support.handshakes")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")
local upgrades = require("support.upgrades")

local fails, misuse = support.fails, support.misuse
local clean, opens = handshakes.clean, handshakes.opens
local spawn, trying, succeeds = tasks.spawn, tasks.trying, tasks.succeeds
local CLIENT, SERVER, LARGE, with = upgrades.CLIENT, upgrades.SERVER, upgrades.LARGE, upgrades.with
local is_usable = upgrades.is_usable
local PATIENCE = 10

-- Descriptors are counted before `after_each`.
local function test(name, body)
  it(name, function()
    body()
    clean()
  end)
end

for _, place in ipairs(upgrades.places) do
  describe("an upgrade " .. place.suffix, function()
    after_each(clean)

    test("gives the connection, in both forms and on both sides", function()
      for _, name in ipairs { "start_tls", "try_start_tls" } do
        local near, far = place.pair()
        local serving = spawn(function()
          local value, err = far[name](far, SERVER)
          return value, err
        end)
        local value, err = near[name](near, place.client)
        assert.is_true(rawequal(near, value))
        assert.is_nil(err)
        value, err = serving:join(PATIENCE)
        assert.is_true(rawequal(far, value))
        assert.is_nil(err)
        assert.is_true(near:is_tls() and far:is_tls())
        assert.matches(", TLS%)$", tostring(near))
        assert.matches(", TLS%)$", tostring(far))
        assert.equal("TLSv1.3", near:protocol())
        assert.equal(near:cipher(), far:cipher())
        is_usable(near, far)
      end
    end)

    test("is a server's outside tasks, and a client's in one", function()
      local near, far = place.pair()
      local asking = spawn(function()
        near:start_tls(place.client)
        near:write_line("hello")
        local line = near:read_line()
        return line
      end)
      assert.is_true(rawequal(far, far:start_tls(SERVER)))
      assert.equal("hello", far:read_line())
      far:write_line("and hello")
      assert.equal("and hello", asking:join(PATIENCE))
    end)

    test("comes after much that was said in the clear, both ways", function()
      local near, far = place.pair()
      local serving = spawn(function()
        local got = far:read(#LARGE)
        far:write(got, "over\n")
        far:start_tls(SERVER)
        got = far:read(#LARGE)
        far:write(got)
        return got == LARGE
      end)
      local sending = spawn(near.write, near, LARGE)
      assert.is_true(near:read(#LARGE) == LARGE)
      sending:join(PATIENCE)
      assert.equal("over", near:read_line())
      near:start_tls(place.client)
      sending = spawn(near.write, near, LARGE)
      assert.is_true(near:read(#LARGE) == LARGE)
      sending:join(PATIENCE)
      assert.is_true(serving:join(PATIENCE))
    end)

    test("may be the other way round: who was accepted asks, who connected answers", function()
      local near, far = place.pair()
      local serving = trying(near, "start_tls", SERVER)
      far:start_tls(place.client)
      succeeds(serving)
      is_usable(near, far)
      assert.equal("CN=localhost", far:peer_cert().subject)
      assert.is_nil(near:peer_cert())
    end)

    test("leaves limits, formats and times as they were", function()
      local options = { newline = "\n", max_line = 50, max_packet = 60, packet_endian = "little", read_timeout = 7,
        write_timeout = 8 }
      local near, far = place.pair(options)
      local serving = trying(far, "start_tls", SERVER)
      near:start_tls(place.client)
      succeeds(serving)
      for name, value in pairs(options) do
        if name:match("timeout") then
          assert.equal(value, near[name](near))
        else
          assert.equal(value, near:get_option(name))
        end
      end
      near:write_line("x")
      near:write_packet("y")
      assert.equal("x\n\1\0\0\0y", far:read(7))
      far:write(("x"):rep(60))
      fails("too_large", near:try_read_line())
      assert.equal(60, #near:read(near:buffered()))
      assert.is_nil(near:timeout())
    end)

    test("leaves hosts, ports and addresses as they were", function()
      local near, far = place.pair()
      local before = {}
      local names = { "host", "port", "local_host", "local_port", "local_addr", "remote_addr", "pollfd" }
      for _, name in ipairs(names) do
        before[name] = { near[name](near), far[name](far) }
      end
      local serving = trying(far, "start_tls", SERVER)
      near:start_tls(place.client)
      succeeds(serving)
      for _, name in ipairs(names) do
        assert.same(before[name], { near[name](near), far[name](far) }, name)
      end
    end)

    test("ends as TLS ends", function()
      local near, far = place.secured()
      near:write("all")
      near:close()
      assert.equal("all", far:read_str())
      assert.is_nil((far:recv()))
    end)
  end)
end

describe("the name that an upgrade asks for", function()
  after_each(clean)

  --- Both ends' server_name after an upgrade of a connection to this host.
  local function asked(host, options)
    local listener = opens(tcp.listen(host:find(":") and "::1" or "127.0.0.1", 0))
    local near = opens(tcp.connect(host, listener:local_port()))
    local far = opens(listener:accept(PATIENCE))
    local serving = trying(far, "start_tls", SERVER)
    near:start_tls(with(CLIENT, options or {}))
    succeeds(serving)
    return { near:server_name(), far:server_name() }
  end

  test("is the host, and verified", function()
    assert.same({ "localhost", "localhost" }, asked("localhost"))
    -- Servers are not told addresses (RFC 6066, section 3).
    assert.same({ "127.0.0.1" }, asked("127.0.0.1"))
  end)

  test("may be another", function()
    assert.same({ "localhost", "localhost" }, asked("127.0.0.1", { sni = "localhost" }))
    assert.same({ "::1" }, asked("localhost", { sni = "[::1]" }))
    assert.same({ "else.example", "else.example" }, asked("localhost", { sni = "else.example", verify = false }))
  end)
end)

describe("an iterator", function()
  after_each(clean)

  test("that was made before an upgrade goes on after it", function()
    local near, far = upgrades.tcp.pair()
    far:write("in the clear\n")
    local next_line = near:lines()
    assert.equal("in the clear", next_line())
    local serving = trying(far, "start_tls", SERVER)
    near:start_tls(CLIENT)
    succeeds(serving):write("sealed\n")
    assert.equal("sealed", next_line())
    far:close()
    assert.is_nil(next_line())
  end)
end)

describe("a stream that is cut off after its upgrade", function()
  after_each(clean)

  test("is truncated, and what had come is there", function()
    local near, far, near_end, far_end = upgrades.through_relay()
    upgrades.carry(far_end, near_end)
    local carrying = upgrades.carry(near_end, far_end)
    local serving = trying(far, "start_tls", SERVER)
    near:start_tls(CLIENT)
    succeeds(serving)
    near:write("some of it")
    assert.equal("some", far:read(4))
    carrying:cancel()
    far_end:shutdown("send")
    local err = fails("truncated", far:try_read_str())
    assert.is_nil(err.stage)
    assert.equal(" of it", far:read(far:buffered()))
    far:write("heard\n")
    assert.equal("heard", near:read_line())
  end)
end)

describe("a server that refuses", function()
  after_each(clean)

  test("leaves the connection plain", function()
    local conn = opens(support.connect_to("accept", { "send", "220 hello\r\n" }, { "read", 10 },
      { "send", "454 not now\r\n" }, { "read", 6 }, { "send", "221 bye\r\n" }, "stall"))
    assert.equal("220 hello", conn:read_line())
    conn:write_line("STARTTLS")
    assert.equal("454 not now", conn:read_line())
    assert.is_false(conn:is_tls())
    conn:write_line("QUIT")
    assert.equal("221 bye", conn:read_line())
    assert.is_nil(conn:protocol())
  end)

  test("may be asked again", function()
    local near, far = upgrades.tcp.pair()
    local serving = spawn(function()
      local answers = { "454 not now", "220 go" }
      for _, answer in ipairs(answers) do
        assert(far:read_line() == "STARTTLS")
        far:write_line(answer)
      end
      far:start_tls(SERVER)
    end)
    repeat
      near:write_line("STARTTLS")
      local answer = near:read_line()
    until answer == "220 go"
    near:start_tls(CLIENT)
    serving:join(PATIENCE)
    is_usable(near, far)
  end)
end)

describe("start_tls", function()
  after_each(clean)

  local HAS_TLS = "bad self to '%s' (plain connection expected, got one with TLS)"

  test("is misuse where there is TLS already, and harms nothing", function()
    local near, far = upgrades.tcp.secured()
    for _, conn in ipairs { near, far } do
      for _, options in ipairs { CLIENT, SERVER } do
        misuse(HAS_TLS:format("start_tls"), conn.start_tls, conn, options)
        misuse(HAS_TLS:format("try_start_tls"), conn.try_start_tls, conn, options)
      end
    end
    is_usable(near, far)
    local conn = opens(transports.tls.connect_to("accept", "stall"))
    misuse(HAS_TLS:format("start_tls"), conn.start_tls, conn)
    local accepted = handshakes.accepted()
    misuse(HAS_TLS:format("start_tls"), accepted.start_tls, accepted, SERVER)
  end)

  test("fails with closed on a connection that was closed", function()
    local near, far = upgrades.tcp.pair()
    local secure = upgrades.tcp.secured()
    for _, conn in ipairs { near, far, secure } do
      conn:close()
      for _, options in ipairs { CLIENT, SERVER } do
        assert.equal("start_tls", fails("closed", conn:try_start_tls(options)).op)
        support.raises("closed", conn.start_tls, conn, options)
      end
    end
  end)

  for _, options in ipairs { "", "{ sni = 'localhost' }", "{ verify = false }",
    "{ server = true, cert = 'build/certificates/server.pem', key = 'build/certificates/server.key' }" } do
    test("fails with system on standard input: " .. options, function()
      assert.equal("system\tstart_tls\n", support.child(([[
        local _, err = require("tcp.core").stdin():try_start_tls(%s)
        print(err.kind, err.op)
      ]]):format(options), "</dev/null"))
    end)
  end
end)
