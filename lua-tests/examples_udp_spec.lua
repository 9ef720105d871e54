-- The examples that send datagrams: the question for a name, and the one how far away somebody is.

local examples = require("support.examples")
local support = require("support")
local tcp = require("tcp.core")

local PATIENCE = 20

--- What an example printed while `serve` was called.
local function printed_while(serve, name, words)
  local text
  examples.running(name, words, function(output)
    serve()
    text = output:read("*a")
  end)
  return text
end

describe("the example dns_query", function()
  local socket

  before_each(function()
    socket = tcp.udp_listen("127.0.0.1", 0)
  end)

  after_each(function()
    socket:close()
  end)

  local function query_from(host, port)
    local data, its_host, its_port = socket:recv_from(65535, PATIENCE)
    assert.is_true(host == nil or host == its_host and port == its_port)
    return data, its_host, its_port
  end

  --- A record for the name at this position.
  local function record(at, kind, data)
    return "\192" .. string.char(at) .. "\0" .. string.char(kind) .. "\0\1\0\0\14\16\0" .. string.char(#data) .. data
  end

  --- An answer of so many records; `code` and `flags` are the third and the fourth byte.
  local function answer_to(query, count, records, flags, code)
    return query:sub(1, 2) .. string.char(flags or 0x81, 0x80 + (code or 0)) .. "\0\1\0" .. string.char(count)
      .. "\0\0\0\0" .. query:sub(13) .. records
  end

  --- What it prints if it is answered so.
  local function ask(name, count, records, flags, code)
    return printed_while(function()
      local query, host, port = query_from()
      socket:send_to(answer_to(query, count, records, flags, code), host, port)
    end, "dns_query.lua", { "127.0.0.1", socket:local_port(), name, PATIENCE })
  end

  local ADDRESS = record(12, 1, "\127\0\0\9")

  it("asks as RFC 1035 wants it, and never twice by the same number", function()
    local seen = {}
    for i = 1, 3 do
      local output = printed_while(function()
        local query, host, port = query_from()
        assert.equal("\1\0\0\1\0\0\0\0\0\0\3www\7example\0\0\1\0\1", query:sub(3))
        seen[i] = query:sub(1, 2)
        socket:send_to(answer_to(query, 1, ADDRESS), host, port)
      end, "dns_query.lua", { "127.0.0.1", socket:local_port(), i == 2 and "www.example." or "www.example" })
      assert.equal("127.0.0.9\n", output)
    end
    assert.is_false(seen[1] == seen[2] and seen[2] == seen[3])
  end)

  it("prints all addresses, also behind another name", function()
    -- www.example is two.example, whose labels stand in the first record: "two" at 41, and then a pointer to "example".
    local alias = record(12, 5, "\3two\192\16")
    local other = record(12, 28, ("\0"):rep(15) .. "\1")
    local records = alias .. record(41, 1, "\127\0\0\1") .. other .. record(41, 1, "\127\0\0\255")
    assert.equal("127.0.0.1\n127.0.0.255\n", ask("www.example", 4, records))
    -- Names may be written out, too.
    assert.equal("10.0.0.1\n", ask("a", 1, "\1a\0\0\1\0\1\0\0\0\0\0\4\10\0\0\1"))
  end)

  it("says what the server says", function()
    local none = "the name has no such address\n"
    assert.equal(none, ask("www.example", 0, ""))
    assert.equal(none, ask("www.example", 1, record(12, 28, ("\0"):rep(15) .. "\1")))
    assert.equal("there is no such name\n", ask("www.example", 0, "", nil, 3))
    assert.equal("the server answers with code 5\n", ask("www.example", 0, "", nil, 5))
    assert.equal("the answer is too long for a datagram\n", ask("www.example", 1, ADDRESS, 0x83))
  end)

  it("believes only answers to its question", function()
    local output = printed_while(function()
      local query, host, port = query_from()
      local forged = answer_to(query, 1, record(12, 1, "\6\6\6\6"))
      local other_id = string.char((query:byte() + 1) % 256)
      for _, data in ipairs {
        "", query:sub(1, 12), other_id .. forged:sub(2), (forged:gsub("www", "ftp")), forged:sub(1, #query - 1),
      } do
        socket:send_to(data, host, port)
      end
      -- Nor does it listen to anybody else.
      local stranger = tcp.udp_listen("127.0.0.1", 0)
      stranger:send_to(forged, host, port)
      stranger:close()
      socket:send_to(answer_to(query, 1, ADDRESS), host, port)
    end, "dns_query.lua", { "127.0.0.1", socket:local_port(), "www.example", PATIENCE })
    assert.equal("127.0.0.9\n", output)
  end)

  it("asks again when nothing comes, three times in all", function()
    local words = { "127.0.0.1", socket:local_port(), "www.example", 0.5 }
    assert.equal("127.0.0.9\n", printed_while(function()
      local first, host, port = query_from()
      assert.equal(first, query_from(host, port))
      socket:send_to(answer_to(first, 1, ADDRESS), host, port)
    end, "dns_query.lua", words))
    words[4] = 0.05
    assert.matches("^recv 127%.0%.0%.1:%d+: .*\n$", printed_while(function()
      for _ = 1, 3 do
        query_from()
      end
    end, "dns_query.lua", words))
    support.fails("timeout", socket:try_recv(65535, 0))
  end)

  it("is not confused by answers that were cut anywhere", function()
    local records = record(12, 5, "\3two\192\16") .. record(41, 1, "\127\0\0\1")
    for length = 0, #records - 1 do
      local output = ask("www.example", 2, records:sub(1, length))
      assert.equal("the answer is cut off\n", output, length)
    end
    for _, nonsense in ipairs { "\63", ("\63"):rep(40), "\192", "\0\0\1\0\1\0\0\0\0\255\255" } do
      assert.equal("the answer is cut off\n", ask("www.example", 2, nonsense))
    end
  end)

  it("says that nobody is there", function()
    local port = socket:local_port()
    socket:close()
    local output = examples.run("dns_query.lua", { "127.0.0.1", port, "www.example", PATIENCE })
    assert.matches("127%.0%.0%.1:%d+: connection refused\nexit 1\n$", output)
  end)

  it("asks for no name that is none", function()
    for _, name in ipairs { "", ".", "a..b", ("x"):rep(64) .. ".example" } do
      assert.equal("that is not a name\nexit 1\n", examples.run("dns_query.lua", { "127.0.0.1", 53, name }))
    end
    assert.matches("^usage: .*\nexit 1\n$", examples.run("dns_query.lua", { "127.0.0.1", 53 }))
  end)
end)

describe("the example game_ping", function()
  it("tells how long its own server takes", function()
    examples.serving("game_ping.lua", { "serve", "127.0.0.1", 0 }, function(port)
      -- What is no ping is not answered, and harms nobody.
      local socket = tcp.udp("127.0.0.1", port)
      for _, data in ipairs { "", "ping", "ping x", ("x"):rep(9000), "ping 7" } do
        socket:send(data)
      end
      assert.equal("pong 7", socket:recv(100, PATIENCE))
      socket:close()
      local output = examples.run("game_ping.lua", { "127.0.0.1", port, 3, PATIENCE })
      assert.matches("^1: [%d.]+ ms\n2: [%d.]+ ms\n3: [%d.]+ ms\n3 of 3 came back\n", output)
      assert.matches("\n[%d.]+ ms at least, [%d.]+ on average, [%d.]+ at most\n$", output)
    end)
  end)

  --- What it prints while `serve(socket)` is called.
  local function ping(serve, count, seconds)
    local socket = tcp.udp_listen("127.0.0.1", 0)
    local output = printed_while(function()
      serve(socket)
    end, "game_ping.lua", { "127.0.0.1", socket:local_port(), count, seconds })
    socket:close()
    return output
  end

  it("takes no answer for another one", function()
    local output = ping(function(socket)
      for number = 1, 3 do
        local data, host, port = socket:recv_from(100, PATIENCE)
        assert.equal("ping " .. number, data)
        for _, answer in ipairs { "pong " .. number - 1, "", "pong", ("x"):rep(9000), "pong " .. number } do
          socket:send_to(answer, host, port)
        end
      end
    end, 3, PATIENCE)
    assert.matches("\n3 of 3 came back\n", output)
  end)

  it("counts what is lost, and goes on", function()
    local output = ping(function(socket)
      for number = 1, 3 do
        assert.equal("ping " .. number, (socket:recv_from(100, PATIENCE)))
      end
    end, 3, 0.05)
    assert.equal("1: lost\n2: lost\n3: lost\n0 of 3 came back\n", output)
  end)

  it("says that nobody is there", function()
    local socket = tcp.udp_listen("127.0.0.1", 0)
    local port = socket:local_port()
    socket:close()
    local output = examples.run("game_ping.lua", { "127.0.0.1", port, 2, PATIENCE })
    assert.equal("1: refused\n2: refused\n0 of 2 came back\nexit 1\n", output)
  end)
end)
