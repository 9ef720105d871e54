-- Each example is run as its users run it. One without a spec makes the last test fail.

local lfs = require("lfs")
local peers = require("support.peers")
local support = require("support")

local seen = {}

--- Runs an example with arguments and gives what it printed.
local function run(name, ...)
  seen[name] = true
  local words = {}
  for i, word in ipairs { ... } do
    words[i] = "'" .. word .. "'"
  end
  return support.child(("arg = { [0] = 'examples/%s', %s } dofile(arg[0])"):format(name, table.concat(words, ", ")))
end

describe("the example", function()
  it("demo shows the main job", function()
    local output = run("demo.lua")
    assert.matches("all is as it should be\n$", output)
    assert.matches("read a JSON packet +{", output)
  end)

  it("http_get asks for a page with the legacy globals", function()
    local request = "GET /index HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    local answer = "HTTP/1.0 200 All fine\r\nA: b\r\n\r\n<p>hello</p>"
    local peer = peers.start("accept", { "read", #request }, { "send", answer }, "close")
    assert.equal("HTTP 1.0, status 200 (All fine), 12 bytes\n", run("http_get.lua", peer.host, peer.port, "/index"))
    assert.equal(request, peer:got())
  end)

  it("http_get says so when the answer is not HTTP", function()
    local peer = peers.start("accept", { "send", "SSH-2.0\r\n" }, "shutdown", "drain")
    assert.equal("that is not an HTTP answer\nexit 1\n", run("http_get.lua", peer.host, peer.port))
  end)

  it("json_request sends a packet and prints the answer", function()
    local peer = peers.start("accept", { "send", '\0\0\0\11{"ok":true}' }, "drain")
    assert.equal('{\n  "ok": true\n}\n', run("json_request.lua", peer.host, peer.port, "stop"))
    assert.matches('"command":"stop"', peer:got())
  end)

  it("json_request says why there is no answer", function()
    local peer = peers.start("accept", "shutdown", "drain")
    assert.matches("^no answer: read_json_packet 127.0.0.1:%d+: closed by the peer\nexit 1\n$",
      run("json_request.lua", peer.host, peer.port))
  end)

  it("redis_client prints every kind of reply", function()
    local replies = {
      ["+OK\r\n"] = "OK\n", [":42\r\n"] = "42\n", ["-ERR no\r\n"] = "error: ERR no\n", ["$-1\r\n"] = "(nil)\n",
      ["$3\r\na\nb\r\n"] = "a\nb\n", ["*2\r\n$1\r\na\r\n:1\r\n"] = "a\n1\n",
    }
    for reply, printed in pairs(replies) do
      local peer = peers.start("accept", { "send", reply }, "drain")
      assert.equal(printed, run("redis_client.lua", peer.host, peer.port, "GET", "key"))
      assert.equal("*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", peer:got())
    end
  end)

  it("check_port tells what is wrong", function()
    local peer = peers.start("accept", "stall")
    assert.matches("^127.0.0.1:%d+ answers after [%d.]+ ms\n$", run("check_port.lua", peer.host, peer.port))
    peer:finish()
    assert.matches("^nobody listens there: connect .*: connection refused\nexit 1\n$",
      run("check_port.lua", peer.host, peer.port))
    local silent = peers.start("--silent")
    assert.matches("^no answer at stage connect: .*\nexit 2\n$", run("check_port.lua", silent.host, silent.port, 0.2))
    assert.matches("^resolve: .*\nexit 3\n$", run("check_port.lua", ("x"):rep(64), 80))
  end)
end)

describe("every example", function()
  it("has its spec", function()
    for name in lfs.dir("examples") do
      if name:match("%.lua$") then
        assert.is_true(seen[name], name .. " is not run")
      end
    end
  end)
end)
