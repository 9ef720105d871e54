-- The examples that serve many: a chat room, procedure calls, a proxy, a port that several share.

local examples = require("support.examples")
local peers = require("support.peers")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local certificate, fails = transports.certificate, support.fails
local PATIENCE = 20
local PATIENT = { read_timeout = PATIENCE, write_timeout = PATIENCE }

describe("the example chat_tls", function()
  local WORDS = { transports.SERVER.cert, transports.SERVER.key, "127.0.0.1", 0 }

  local function connect(port)
    local conn = transports.tls.tcp.connect("127.0.0.1", port, PATIENT)
    assert.equal("Who are you?", conn:read_line())
    return conn
  end

  --- Somebody who has come in, and has read so.
  local function enter(port, name)
    local conn = connect(port)
    conn:write_line(name)
    assert.equal("* " .. name .. " has come", conn:read_line())
    return conn
  end

  it("carries what one says to all the others, and who comes and goes", function()
    examples.serving("chat_tls.lua", WORDS, function(port, output)
      local ann = enter(port, "ann")
      assert.matches("^ann has come from 127%.0%.0%.1:%d+$", output:read("*l"))
      local bob = enter(port, "bob")
      assert.equal("* bob has come", ann:read_line())
      local eve = enter(port, "eve")
      assert.equal("* eve has come", ann:read_line())
      assert.equal("* eve has come", bob:read_line())

      bob:write("hello\nall\n")
      for _, conn in ipairs { ann, eve } do
        assert.equal("bob: hello", conn:read_line())
        assert.equal("bob: all", conn:read_line())
      end
      ann:write_line("in \27[31mred")
      assert.equal("ann: in  [31mred", bob:read_line())

      -- One goes in an orderly way, the other does not.
      eve:close()
      assert.equal("* eve has gone", bob:read_line())
      bob:set_option("linger", 0)
      bob:close()
      assert.equal("* eve has gone", ann:read_line())
      assert.equal("* bob has gone", ann:read_line())
      -- His name is free again.
      enter(port, "bob"):close()
      assert.equal("* bob has come", ann:read_line())
      ann:close()
      transports.close_all()
    end)
  end)

  it("ends with Ctrl-C, and lets go of who is there", function()
    examples.serving("chat_tls.lua", WORDS, function(port, output, pid)
      local ann = enter(port, "ann")
      assert.matches("^ann has come", output:read("*l"))
      assert(os.execute("kill -INT " .. pid))
      assert.is_string(ann:read_str())
      assert.matches("closed\n$", output:read("*a"))
      fails("refused", tcp.try_connect("127.0.0.1", port))
      ann:close()
    end)
  end)

  it("lets nobody in without a name of his own", function()
    examples.serving("chat_tls.lua", WORDS, function(port, output)
      local ann = enter(port, "ann")
      for _, name in ipairs { "ann", "", "two words", "bell\7", ("x"):rep(21) } do
        local conn = connect(port)
        conn:write_line(name)
        assert.equal("One word, please, by which nobody here is called.", conn:read_line(), name)
        assert.equal("", conn:read_str())
        conn:close()
      end
      -- Nor whoever leaves before, and the others hear of none of them.
      connect(port):close()
      enter(port, "bob"):close()
      assert.equal("* bob has come", ann:read_line())
      assert.equal("* bob has gone", ann:read_line())
      for _, line in ipairs { "^ann has come from ", "^bob has come from ", "^bob has gone$" } do
        assert.matches(line, output:read("*l"))
      end
      transports.close_all(ann)
    end)
  end)

  it("waits for nobody who reads slowly", function()
    examples.serving("chat_tls.lua", WORDS, function(port)
      local slow = enter(port, "slow")
      local ann, bob = enter(port, "ann"), enter(port, "bob")
      assert.equal("* bob has come", ann:read_line())
      local line, batch = ("x"):rep(1900), {}
      for i = 1, 50 do
        batch[i] = line .. "\n"
      end
      -- As many at a time as the room keeps for one who does not read, at most, so that Ann is none of those.
      local rounds, left = 0, nil
      repeat
        rounds = rounds + 1
        bob:write(batch)
        local count = 0
        repeat
          local got = ann:read_line()
          count = count + (got == "bob: " .. line and 1 or 0)
          left = left or got:match("^%* (%l+) has gone$")
        until count == 50
      until left or rounds == 1000
      assert.equal("slow", left)
      assert.equal("* slow has gone", bob:read_line())
      transports.close_all(slow, ann, bob)
    end)
  end)

  it("says how it is used", function()
    assert.matches("^usage: .*\nexit 2\n$", examples.run("chat_tls.lua", {}))
  end)
end)

describe("the example json_rpc", function()
  local CA = certificate("ca")

  --- The words of a certificate and its key, and of the authority.
  local function words_of(job, name, ...)
    return { job, certificate(name), certificate(name, "key"), CA, ... }
  end

  local function serving(use)
    examples.serving("json_rpc.lua", words_of("serve", "server", "127.0.0.1", 0), use)
  end

  local function call(name, port, ...)
    return examples.run("json_rpc.lua", words_of("call", name, "localhost", port, ...))
  end

  it("calls, and the server knows by the certificate who does", function()
    serving(function(port)
      assert.equal("42\n", call("client", port, "add", 10, 20, 12))
      assert.equal("0\n", call("client", port, "add"))
      assert.equal('"CN=client"\n', call("client", port, "whoami"))
      assert.equal("error -32601: there is no method fly\nexit 1\n", call("client", port, "fly"))
      assert.matches("^error %-32000: .*\nexit 1\n$", call("client", port, "add", "one"))
    end)
  end)

  it("believes no client of another authority, and no server of one", function()
    serving(function(port)
      assert.matches("unknown_ca.*\nexit 1\n$", call("stranger", port, "whoami"))
      local conn = transports.tls.tcp.connect("127.0.0.1", port, PATIENT)
      assert.equal("certificate_required", fails("tls", conn:try_read_packet()).alert)
      conn:close()
      assert.equal("42\n", call("client", port, "add", 42))
    end)
    local stranger = peers.start({ "--tls", "stranger" }, "accept", "stall")
    assert.matches("issuer is not trusted.*\nexit 1\n$", call("client", stranger.port, "whoami"))
  end)

  it("answers every odd packet as the standard says, and goes on", function()
    serving(function(port)
      local conn = tcp.connect_tls("localhost", port, {
        read_timeout = PATIENCE,
        tls = { ca_bundle = CA, client_cert = certificate("client"), client_key = certificate("client", "key") },
      })
      local null = tcp.null
      local ODD = {
        { "{", -32700, null }, { "", -32700, null }, { "[]", -32600, null }, { "null", -32600, null },
        { "false", -32600, null }, { '"x"', -32600, null }, { '{"method":"add","id":7}', -32600, null },
        { '{"jsonrpc":"2.0","method":1,"id":7}', -32600, null },
        { '{"jsonrpc":"2.0","method":"__index","id":7}', -32601, 7 },
        { '{"jsonrpc":"2.0","method":"add","id":"a"}', -32000, "a" },
        { '{"jsonrpc":"2.0","method":"add","params":3,"id":null}', -32000, null },
      }
      for _, case in ipairs(ODD) do
        conn:write_packet(case[1])
        local response = conn:read_json_packet()
        assert.equal(case[2], response.error.code, case[1])
        assert.equal(case[3], response.id, case[1])
        assert.equal("2.0", response.jsonrpc)
        assert.is_nil(response.result)
      end
      -- Whoever gives no id is not answered: the answer is to the next request.
      conn:write_json_packet({ jsonrpc = "2.0", method = "add", params = { 1 } })
      conn:write_json_packet({ jsonrpc = "2.0", method = "fly" })
      conn:write_json_packet({ jsonrpc = "2.0", method = "add", params = { 2 }, id = 2 })
      assert.same({ jsonrpc = "2.0", result = 2, id = 2 }, conn:read_json_packet())
      conn:close()
    end)
  end)

  it("says how it is used", function()
    assert.matches("^usage: .*\nexit 2\n$", examples.run("json_rpc.lua", {}))
    assert.matches("^usage: .*\nexit 2\n$", examples.run("json_rpc.lua", words_of("call", "client", "localhost", 1)))
  end)
end)

describe("the example proxy", function()
  --- Calls `use` with a way to get a connection through the proxy to this port, and with what the proxy prints.
  local function passing(port, use)
    examples.serving("proxy.lua", { "127.0.0.1", 0, "127.0.0.1", port }, function(own_port, output)
      use(function()
        return tcp.try_connect("127.0.0.1", own_port, PATIENT)
      end, output)
    end)
  end

  --- The same with a server of this spec: `use` also gets a connection's other end.
  local function passing_pair(use)
    local listener = tcp.listen("127.0.0.1", 0, PATIENT)
    passing(listener:local_port(), function(connect, output)
      local near = connect()
      local far = listener:accept(PATIENCE)
      use(near, far, output)
      transports.close_all(near, far)
    end)
    listener:close()
  end

  it("passes a megabyte both ways at the same time", function()
    local pieces = {}
    for i = 1, 65536 do
      pieces[i] = ("%015d\n"):format(i)
    end
    local large = table.concat(pieces)
    passing(peers.start("accept", "echo", "close").port, function(connect, output)
      local conn = connect()
      local writing = tcp.spawn(function()
        conn:write(large)
        conn:shutdown("send")
      end)
      assert.is_true(large == conn:read_str())
      writing:join(PATIENCE)
      conn:close()
      assert.matches("^127%.0%.0%.1:%d+: 1048576 bytes sent, 1048576 received$", output:read("*l"))
    end)
  end)

  it("lets one side go on after the other has ended", function()
    passing_pair(function(near, far, output)
      near:write("question")
      near:shutdown("send")
      assert.equal("question", far:read_str())
      far:write("answer")
      assert.equal("answer", near:read(6))
      far:write(", and more")
      far:close()
      assert.equal(", and more", near:read_str())
      assert.matches(": 8 bytes sent, 16 received$", output:read("*l"))
    end)
    passing_pair(function(near, far, output)
      far:write("greeting")
      far:shutdown("send")
      assert.equal("greeting", near:read_str())
      near:write("and now I")
      assert.equal("and now I", far:read(9))
      near:close()
      assert.equal("", far:read_str())
      assert.matches(": 9 bytes sent, 8 received$", output:read("*l"))
    end)
  end)

  it("breaks one connection off when the other breaks", function()
    for _, breaks in ipairs { "client", "server" } do
      passing_pair(function(near, far, output)
        near:write("12345")
        assert.equal("12345", far:read(5))
        local one, other = near, far
        if breaks == "server" then
          one, other = far, near
        end
        one:set_option("linger", 0)
        one:close()
        fails("reset", other:try_read_str())
        assert.matches(": 5 bytes sent, 0 received, then copy .*$", output:read("*l"))
      end)
    end
  end)

  it("breaks off at once if there is no server, and serves the next one", function()
    local listener = tcp.listen("127.0.0.1", 0, PATIENT)
    local port = listener:local_port()
    listener:close()
    passing(port, function(connect, output)
      -- That may come before the connection is used.
      local conn, err = connect()
      if conn then
        fails("reset", conn:try_read_str())
        conn:close()
      else
        fails("reset", conn, err)
      end
      assert.matches("^127%.0%.0%.1:%d+: connect 127%.0%.0%.1:%d+: connection refused$", output:read("*l"))

      listener = tcp.listen("127.0.0.1", port, PATIENT)
      conn = connect()
      local far = listener:accept(PATIENCE)
      far:write_line("here again")
      assert.equal("here again", conn:read_line())
      transports.close_all(conn, far, listener)
    end)
  end)

  it("keeps a hundred connections apart", function()
    local listener = tcp.listen("127.0.0.1", 0, PATIENT)
    passing(listener:local_port(), function(connect)
      local near, far = {}, {}
      for i = 1, 100 do
        near[i] = connect()
        near[i]:write_line(i)
      end
      for _ = 1, 100 do
        local conn = listener:accept(PATIENCE)
        far[tonumber(conn:read_line())] = conn
      end
      for i = 1, 100 do
        far[i]:write_line("you are " .. i)
      end
      for i = 100, 1, -1 do
        assert.equal("you are " .. i, near[i]:read_line())
        near[i]:close()
        assert.equal("", far[i]:read_str())
        far[i]:close()
      end
    end)
    listener:close()
  end)
end)

describe("the example reuse_port", function()
  --- The counts of those that answered, and the port.
  local function run(words, options)
    local text = examples.command("reuse_port.lua", words, options)
    local port = text:match("^4 interpreters listen on 127%.%d+%.%d+%.1:(%d+)\n")
    assert(port, text)
    local counts = {}
    for name, count in text:gmatch("worker%-(%d) has answered (%d+) times\n") do
      counts[tonumber(name)] = tonumber(count)
    end
    return counts, tonumber(port)
  end

  it("has all four answer, and nobody left without an answer", function()
    -- Options of the interpreter stand between it and the script.
    local counts = run({}, "-e 'x = 1'")
    assert.equal(4, #counts)
    local sum = 0
    for _, count in ipairs(counts) do
      assert.is_true(count > 0)
      sum = sum + count
    end
    assert.equal(200, sum)
  end)

  it("takes the port that it is given, which is free afterwards", function()
    -- An address of its own: what others have on 127.0.0.1 takes no port of it.
    local free = tcp.listen("127.0.0.1", 0)
    local port = free:local_port()
    free:close()
    local host = ("127.%d.%d.1"):format(math.floor(port / 256), port % 256)
    local counts, its = run({ host, port, 100 })
    assert.equal(port, its)
    assert.equal(100, counts[1] + counts[2] + counts[3] + counts[4])
    tcp.listen(host, port):close()
  end)
end)
