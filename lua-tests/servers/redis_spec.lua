local tcp = require("tcp.core")
local support = require("support")
local servers = require("support.servers")

local fails = support.fails

-- A command is an array of bulk strings.
local function command(...)
  local parts = { "*" .. select("#", ...) .. "\r\n" }
  for _, word in ipairs { ... } do
    word = tostring(word)
    parts[#parts + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
  end
  return table.concat(parts)
end

local answer

local answers = {
  ["+"] = function(_, text)
    return text
  end,
  ["-"] = function(_, text)
    return { err = text }
  end,
  [":"] = function(_, text)
    return tonumber(text)
  end,
  ["$"] = function(conn, length)
    if length == "-1" then
      return tcp.null
    end
    local bytes = conn:read(tonumber(length))
    assert.equal("\r\n", conn:read(2))
    return bytes
  end,
  ["*"] = function(conn, count)
    local list = {}
    for i = 1, tonumber(count) do
      list[i] = answer(conn)
    end
    return list
  end,
}

function answer(conn)
  local line = conn:read_line()
  return answers[line:sub(1, 1)](conn, line:sub(2))
end

local function ask(conn, ...)
  conn:write(command(...))
  return answer(conn)
end

describe("redis-server", function()
  if not servers.find("redis-server") then
    pending("is not installed: apt-get install redis-server")
    return
  end

  local server, conn

  setup(function()
    server = servers.start("redis-server", function(it)
      return { "--bind", it.host, "--port", it.port, "--unixsocket", it.dir .. "/redis.sock",
        "--dir", it.dir, "--save", "", "--daemonize", "no" }
    end)
  end)

  teardown(function()
    server:stop()
  end)

  before_each(function()
    conn = tcp.connect(server.host, server.port, { read_timeout = 30, write_timeout = 30 })
    ask(conn, "FLUSHALL")
  end)

  after_each(function()
    conn:close()
  end)

  it("answers PING with a line", function()
    conn:write(command("PING"))
    assert.equal("+PONG\r\n", conn:read_line("L"))
    assert.equal(0, conn:buffered())
  end)

  it("takes an inline command from write_line", function()
    conn:write_line("ECHO hello")
    assert.equal("hello", answer(conn))
  end)

  it("gives binary values back as they went", function()
    local every = {}
    for byte = 0, 255 do
      every[#every + 1] = string.char(byte)
    end
    for _, value in ipairs { "", "a\r\nb", "\0", "\r\n\r\n$3\r\n", "\r", table.concat(every) } do
      assert.equal("OK", ask(conn, "SET", "k\r\n\0", value))
      assert.equal(value, ask(conn, "GET", "k\r\n\0"))
    end
  end)

  it("answers an absent key with a nil bulk, which is no empty one", function()
    assert.equal(tcp.null, ask(conn, "GET", "absent"))
    assert.same({ tcp.null, tcp.null }, ask(conn, "MGET", "absent", "absent too"))
  end)

  it("stays usable after an error", function()
    ask(conn, "SET", "text", "x")
    assert.matches("^ERR unknown command 'NONSENSE'", ask(conn, "NONSENSE").err)
    assert.matches("^WRONGTYPE ", ask(conn, "LPUSH", "text", "y").err)
    assert.equal("x", ask(conn, "GET", "text"))
  end)

  it("answers with integers, negative ones too", function()
    assert.equal(1, ask(conn, "INCR", "n"))
    assert.equal(-41, ask(conn, "DECRBY", "n", 42))
    assert.equal(0, ask(conn, "EXISTS", "absent"))
  end)

  it("answers with arrays in arrays", function()
    local script = "return {1, {-2, {'three\\r\\n', {}}, false}, redis.error_reply('MY error'), {}}"
    local expected = { 1, { -2, { "three\r\n", {} }, tcp.null }, { err = "MY error" }, {} }
    assert.same(expected, ask(conn, "EVAL", script, 0))

    assert.equal(3, ask(conn, "RPUSH", "list", "a", "", "c"))
    assert.same({ "a", "", "c" }, ask(conn, "LRANGE", "list", 0, -1))
    assert.same({}, ask(conn, "LRANGE", "absent", 0, -1))
  end)

  it("answers 1,000 commands of one write in their order", function()
    local commands = {}
    for i = 1, 1000 do
      commands[i] = i % 2 == 1 and command("INCR", "n") or command("ECHO", ("e%d\r\n"):format(i))
    end
    conn:write(commands)
    for i = 1, 1000 do
      assert.equal(i % 2 == 1 and (i + 1) / 2 or ("e%d\r\n"):format(i), answer(conn))
    end
    assert.equal(0, conn:buffered())
  end)

  it("takes and gives 8 MiB", function()
    local lines = {}
    for i = 1, 524288 do
      lines[i] = ("%014d\r\n"):format(i)
    end
    local value = table.concat(lines)
    assert.equal("OK", ask(conn, "SET", "large", value))
    -- Not by assert.equal, which would print them.
    assert.is_true(value == ask(conn, "GET", "large"))
    assert.equal("PONG", ask(conn, "PING"))
  end)

  it("gives a late answer to the read after a timeout", function()
    conn:write(command("BLPOP", "jobs", 0))
    local err = fails("timeout", conn:try_read_line({ timeout = 0.05 }))
    assert.equal("read_line", err.op)
    fails("timeout", conn:try_read(4, { timeout = 0 }))

    local other = tcp.connect(server.host, server.port)
    assert.equal(1, ask(other, "RPUSH", "jobs", "late\r\njob"))
    other:close()

    assert.same({ "jobs", "late\r\njob" }, answer(conn))
    assert.equal("PONG", ask(conn, "PING"))
  end)

  it("delivers the messages of a channel as they are published", function()
    conn:write(command("SUBSCRIBE", "news"))
    assert.same({ "subscribe", "news", 1 }, answer(conn))
    fails("timeout", conn:try_recv(nil, { timeout = 0.05 }))
    local other = tcp.connect(server.host, server.port)
    for i = 1, 3 do
      assert.equal(1, ask(other, "PUBLISH", "news", i))
      assert.same({ "message", "news", tostring(i) }, answer(conn))
    end
    other:close()
  end)

  it("is reached by its unix socket", function()
    local path = "unix:" .. server.dir .. "/redis.sock"
    local unix = tcp.connect(path)
    assert.equal("OK", ask(unix, "SET", "from", "unix\0socket"))
    assert.equal("unix\0socket", ask(conn, "GET", "from"))
    assert.equal(path, unix:remote_addr())
    unix:close()
  end)

  it("ends the stream after QUIT", function()
    assert.equal("OK", ask(conn, "QUIT"))
    assert.is_nil(conn:recv())
    local err = fails("closed", conn:try_read(1))
    assert.equal(server.host .. ":" .. server.port, err.peer)
    assert.equal("", conn:read_str())
  end)
end)
