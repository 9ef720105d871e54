local tcp = require("tcp.core")
local support = require("support")
local servers = require("support.servers")

local fails = support.fails

describe("memcached", function()
  if not servers.find("memcached") then
    pending("is not installed: apt-get install memcached")
    return
  end

  local server, conn

  local function ask(line)
    conn:write_line(line)
    return conn:read_line()
  end

  local function store(command, key, value, unique)
    local line = ("%s %s 7 0 %d%s\r\n"):format(command, key, #value, unique and " " .. unique or "")
    conn:write(line, value, "\r\n")
    return conn:read_line()
  end

  -- The values of a get or gets by key; of a gets also their unique numbers.
  local function fetch(command)
    local values, uniques = {}, {}
    local line = ask(command)
    while line ~= "END" do
      local key, length, unique = line:match("^VALUE (%S+) 7 (%d+) ?(%d*)$")
      values[key], uniques[key] = conn:read(tonumber(length)), unique
      assert.equal("\r\n", conn:read(2))
      line = conn:read_line()
    end
    return values, uniques
  end

  local function stats()
    local found = {}
    local line = ask("stats")
    while line ~= "END" do
      local name, value = line:match("^STAT (%S+) (.*)$")
      found[name] = value
      line = conn:read_line()
    end
    return found
  end

  setup(function()
    server = servers.start("memcached", function(it)
      -- Only root is asked for -u.
      return { "-l", it.host, "-p", it.port, "-U", 0, "-u", "root" }
    end)
  end)

  teardown(function()
    server:stop()
  end)

  before_each(function()
    conn = tcp.connect(server.host, server.port, { read_timeout = 30, write_timeout = 30 })
    assert.equal("OK", ask("flush_all"))
  end)

  after_each(function()
    conn:close()
  end)

  it("gives binary values back as they went", function()
    for _, value in ipairs { "", "plain", "a\r\nEND\r\n\0", ("\0\r\n\255"):rep(5000) } do
      assert.equal("STORED", store("set", "key", value))
      assert.same({ key = value }, fetch("get key"))
    end
    assert.equal(0, conn:buffered())
  end)

  it("gives nothing for an absent key", function()
    assert.equal("END", ask("get absent"))
  end)

  it("gives several values in one answer", function()
    local expected, keys = {}, {}
    for i = 1, 100 do
      keys[i] = "key" .. i
      expected[keys[i]] = ("%d\r\n"):format(i):rep(i)
      assert.equal("STORED", store("set", keys[i], expected[keys[i]]))
    end
    assert.same(expected, fetch("get absent " .. table.concat(keys, " ") .. " also-absent"))
  end)

  it("stores by cas only what nobody has changed", function()
    store("set", "key", "old")
    local values, uniques = fetch("gets key")
    assert.same({ key = "old" }, values)
    assert.equal("STORED", store("cas", "key", "new", uniques.key))
    assert.equal("EXISTS", store("cas", "key", "newer", uniques.key))
    assert.equal("NOT_FOUND", store("cas", "absent", "x", uniques.key))
    assert.same({ key = "new" }, fetch("get key"))
  end)

  it("deletes once", function()
    store("set", "key", "x")
    assert.equal("DELETED", ask("delete key"))
    assert.equal("NOT_FOUND", ask("delete key"))
    assert.equal("END", ask("get key"))
  end)

  it("counts", function()
    store("set", "n", "41")
    assert.equal("42", ask("incr n 1"))
    assert.equal("2", ask("decr n 40"))
    assert.equal("NOT_FOUND", ask("incr absent 1"))
    store("set", "text", "x")
    assert.matches("^CLIENT_ERROR ", ask("incr text 1"))
  end)

  it("names its version", function()
    assert.matches("^VERSION %d+%.%d+", ask("version"))
  end)

  it("lists its stats up to END, and is the process that was started", function()
    local found = stats()
    assert.equal(server.pid, tonumber(found.pid))
    assert.matches("^%d+%.%d+", found.version)
    assert.equal(0, conn:buffered())
  end)

  it("refuses an item over its limit, and stays usable", function()
    local limit = 1048576
    assert.equal("SERVER_ERROR object too large for cache", store("set", "key", ("x"):rep(2 * limit)))
    assert.equal("END", ask("get key"))
    local value = ("0123456789abcde\n"):rep(65000)
    assert.equal("STORED", store("set", "key", value))
    assert.is_true(value == fetch("get key").key)
  end)

  it("answers nothing to noreply, whatever else is in the write", function()
    conn:write("set a 7 0 1 noreply\r\n1\r\n", "set b 7 0 1 noreply\r\n2\r\n")
    assert.same({ a = "1", b = "2" }, fetch("get a b"))
    assert.equal(0, conn:buffered())
  end)

  it("ends the stream after quit", function()
    conn:write_line("quit")
    assert.is_nil(conn:recv())
    fails("closed", conn:try_read_line())
  end)
end)
