-- The examples that ask: for a greeting, for a file, and somebody else if there is no answer.

local certificates = require("support.certificates")
local examples = require("support.examples")
local peers = require("support.peers")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local PATIENCE = 20

describe("the example mysql_greeting", function()
  -- As MySQL's own documentation shows them: 5.5.2-m2 and 5.6.4-m7-log.
  local OLD = "360000000a352e352e322d6d32000b00000064764840492d434a00fff7080200000000000000000000000000"
    .. "002a34647c635a776b345e5d3a00"
  local NEW = "500000000a352e362e342d6d372d6c6f6700560a0000524233767a26477200ffff0802000fc01500000000000000000000"
    .. "2b7944262f5a5a3330355a47006d7973716c5f6e61746976655f70617373776f726400"

  local function from_hex(digits)
    return (digits:gsub("..", function(byte)
      return string.char(tonumber(byte, 16))
    end))
  end

  --- What it prints if it is greeted so.
  local function greet(bytes)
    local peer = peers.start("accept", { "send", bytes }, "shutdown", "drain")
    return examples.run("mysql_greeting.lua", { peer.host, peer.port })
  end

  it("reads the greetings of servers old and new", function()
    assert.equal("version      5.5.2-m2\nconnection   11\noffers TLS   no\n", greet(from_hex(OLD)))
    assert.equal("version      5.6.4-m7-log\nconnection   2646\noffers TLS   yes\nlogs in by   mysql_native_password\n",
      greet(from_hex(NEW)))
  end)

  it("says what the server says instead", function()
    assert.equal("error 1040: Too many connections\nexit 1\n", greet("\23\0\0\0\255\16\4Too many connections"))
  end)

  it("says what is wrong with what is no greeting", function()
    local no_greeting = "that is not a greeting of MySQL's protocol 10\nexit 1\n"
    for _, payload in ipairs { "", "\9old\0", "\10" .. ("x"):rep(40), "\10\0" .. ("x"):rep(30), "\255", "\255\1" } do
      assert.equal(no_greeting, greet(string.char(#payload) .. "\0\0\0" .. payload))
    end
    assert.matches("^no greeting: read .*\nexit 1\n$", greet(from_hex(NEW):sub(1, 50)))
    assert.matches("^no greeting: read .*\nexit 1\n$", greet(""))
    assert.matches("^no greeting: read .*\nexit 1\n$", greet("SSH-2.0-OpenSSH_9.6\r\n"))
  end)
end)

describe("the example fallback", function()
  local function refusing()
    local listener = tcp.listen("127.0.0.1", 0)
    local target = listener:addr()
    listener:close()
    return target
  end

  local function address(...)
    return "127.0.0.1:" .. peers.start("accept", ...).port
  end

  local function ask(seconds, ...)
    local lines = {}
    for line in examples.run("fallback.lua", { seconds, "hello", ... }):gmatch("([^\n]*)\n") do
      lines[#lines + 1] = line
    end
    return lines
  end

  it("asks the first that answers", function()
    local good = address({ "read", 7 }, { "send", "fine\r\n" }, "shutdown", "drain")
    local lines = ask(PATIENCE, refusing(), address("shutdown", "drain"), good, address("stall"))
    assert.matches("^passed over: connect 127%.0%.0%.1:%d+: connection refused$", lines[1])
    assert.matches("^passed over: read_line 127%.0%.0%.1:%d+: closed by the peer$", lines[2])
    assert.equal(good .. " says: fine", lines[3])
    assert.equal(3, #lines)
  end)

  it("waits only so long for each", function()
    local lines = ask(0.1, address("stall"), address("stall"))
    for i = 1, 2 do
      assert.matches("^passed over: read_line 127%.0%.0%.1:%d+: timed out", lines[i])
    end
    assert.equal("none of them answers", lines[3])
    assert.equal("exit 1", lines[4])
  end)

  it("says how it is used", function()
    assert.matches("^usage: .*\nexit 2\n$", examples.run("fallback.lua", { 1, "hello" }))
    assert.equal("that is not HOST:PORT: here\nexit 2\n", examples.run("fallback.lua", { 1, "hello", "here" }))
  end)
end)

describe("the example download", function()
  local CHUNK, CHUNKS = ("0123456789"):rep(100), 1000
  local REQUEST = "GET /file HTTP/1.0\r\nHost: localhost\r\n\r\n"

  after_each(certificates.remove_files)

  --- A peer that is asked for the file and does so.
  local function serving(...)
    return peers.start({ "--tls", "server" }, "accept", { "read", #REQUEST }, ...)
  end

  local function whole(length_of_body)
    return { "send", ("HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n"):format(length_of_body) }
  end

  local function download(peer, prefix)
    local path = certificates.folder() .. "/file"
    local words = { "localhost", peer.port, "/file", path, transports.CLIENT.ca_bundle }
    return examples.run("download.lua", words, prefix), path
  end

  --- Asserts that nothing is left of the file.
  local function assert_nothing(path)
    for _, name in ipairs { path, path .. ".part" } do
      assert.is_nil((io.open(name)))
    end
  end

  it("prints a line for each tenth, and the file is what was sent", function()
    local peer = serving(whole(#CHUNK * CHUNKS), { "repeat", CHUNKS, CHUNK }, "close")
    local output, path = download(peer)
    assert.equal(REQUEST, peer:got())
    assert.is_true(certificates.contents(path) == CHUNK:rep(CHUNKS))
    local last, bar
    for line in output:gmatch("(#* %d+ %%)\n") do
      local percent
      bar, percent = line:match("^(#*) (%d+) %%$")
      percent = tonumber(percent)
      assert.equal(math.floor(percent * 0.4), #bar)
      assert.is_true(not last or math.floor(percent / 10) > math.floor(last / 10), output)
      last = percent
    end
    assert.equal(100, last)
    assert.equal(path .. ": 1000000 bytes\n", output:match("[^\n]*\n$"))
    assert.is_nil(output:find("\r", 1, true))
  end)

  it("draws a bar on a terminal", function()
    if not support.succeeds("script --version") then
      return pending("script is not installed: apt-get install bsdutils")
    end
    local peer = serving(whole(#CHUNK * 2), { "send", CHUNK }, { "sleep", 300 }, { "send", CHUNK }, "close")
    local output, path = download(peer, [[sh -c 'script -qec "$*" /dev/null' sh]])
    assert.equal(("\r[%s%s]  50 %%\r[%s] 100 %%\r\n%s: 2000 bytes\r\n"):format(("#"):rep(20), (" "):rep(20),
      ("#"):rep(40), path), output)
    assert.is_true(certificates.contents(path) == CHUNK:rep(2))
  end)

  it("takes all that comes if it is told no length, and an empty file", function()
    local output, path = download(serving({ "send", "HTTP/1.1 200 OK\r\nA: b\r\n\r\n" .. CHUNK }, "close"))
    assert.equal(path .. ": 1000 bytes\n", output)
    assert.equal(CHUNK, certificates.contents(path))
    output, path = download(serving(whole(0), "close"))
    assert.equal(path .. ": 0 bytes\n", output)
    assert.equal("", certificates.contents(path))
  end)

  it("leaves no part of a file that did not come whole", function()
    local output, path = download(serving(whole(#CHUNK * 2), { "send", CHUNK }, "close"))
    assert.matches("only 1000 of 2000 bytes came\nexit 1\n$", output)
    assert_nothing(path)
    for _, head in ipairs { whole(#CHUNK * 2), { "send", "HTTP/1.0 200 OK\r\n\r\n" } } do
      output, path = download(serving(head, { "send", CHUNK }, "cut"))
      assert.matches("copy localhost:%d+: the stream ended without TLS's closing alert.*\nexit 1\n$", output)
      assert_nothing(path)
    end
  end)

  it("says what the server says instead", function()
    local output, path = download(serving({ "send", "HTTP/1.0 404 Not Found\r\n\r\nno" }, "close"))
    assert.equal("the server says 404 Not Found\nexit 1\n", output)
    output = download(serving({ "send", "+OK\r\n\r\n" }, "close"))
    assert.equal("the server says what is not HTTP\nexit 1\n", output)
    output = download(peers.start({ "--tls", "expired" }, "accept", "stall"))
    assert.matches("^connect_tls localhost:%d+: the certificate expired.*\nexit 1\n$", output)
    assert_nothing(path)
    assert.matches("^usage: .*\nexit 2\n$", examples.run("download.lua", { "localhost", 443, "/" }))
  end)

  it("says that the file cannot be written", function()
    local peer = serving(whole(1), { "send", "x" }, "close")
    local words = { "localhost", peer.port, "/file", "/nowhere/file", transports.CLIENT.ca_bundle }
    assert.matches("^/nowhere/file%.part: No such file or directory\nexit 1\n$", examples.run("download.lua", words))
  end)
end)
