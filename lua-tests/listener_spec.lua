local tcp = require("tcp.core")
local lfs = require("lfs")
local peers = require("support.peers")
local support = require("support")

local fails, misuse = support.fails, support.misuse
local unpack = table.unpack or unpack

-- A label of more than 63 bytes: the resolver refuses it without asking anybody.
local UNKNOWN = ("x"):rep(64)

local function listen(options)
  return tcp.listen("127.0.0.1", 0, options)
end

local function connect(listener, options)
  return tcp.connect("127.0.0.1", listener:local_port(), options)
end

--- Both ends of a new connection.
local function pair(listener)
  local client = connect(listener)
  return client, listener:accept(5)
end

local function close_all(...)
  for _, it in ipairs { ... } do
    it:close()
  end
end

local function new_path()
  local path = os.tmpname()
  os.remove(path)
  return path
end

--- No task of a test outlives it.
local function nothing_is_left()
  tcp.run()
  assert.is_false(tcp.step(0))
end

describe("listen", function()
  after_each(nothing_is_left)

  it("takes literals, names and every address", function()
    local cases = {
      { host = "127.0.0.1", addr = "127.0.0.1:", to = { "127.0.0.1" } },
      { host = "::1", addr = "[::1]:", to = { "::1" } },
      { host = "[::1]", addr = "[::1]:", to = { "::1" } },
      { host = "localhost", addr = "127.0.0.1:", to = { "127.0.0.1" } },
      { host = "LocalHost", addr = "127.0.0.1:", to = { "127.0.0.1" } },
      { host = "0.0.0.0", addr = "0.0.0.0:", to = { "127.0.0.1" } },
      { host = "*", addr = "[::]:", to = { "127.0.0.1", "::1" } },
    }
    for _, case in ipairs(cases) do
      local listener = tcp.listen(case.host, 0)
      assert.is_true(listener:local_port() > 0)
      assert.equal(case.addr .. listener:local_port(), listener:addr())
      assert.equal(listener:addr(), listener:local_addr())
      assert.equal("Listener (" .. listener:addr() .. ")", tostring(listener))
      for _, host in ipairs(case.to) do
        local client = tcp.connect(host, listener:local_port())
        local conn = listener:accept(5)
        assert.equal(host:find(":") ~= nil, client:local_addr():find("[", 1, true) ~= nil)
        client:write("x")
        assert.equal("x", conn:read(1))
        close_all(conn, client)
      end
      listener:close()
    end
  end)

  it("names what it cannot listen on", function()
    local taken = listen()
    local port = taken:local_port()
    local cases = {
      { "address_in_use", "127.0.0.1", port, "listen 127.0.0.1:" .. port .. ": address already in use" },
      { "address_in_use", "*", port, nil },
      { "address_in_use", "127.0.0.1", tostring(port), nil },
      { "system", "192.0.2.1", 0, "listen 192.0.2.1:0: cannot assign requested address" },
      { "system", "2001:db8::1", 0, nil },
      { "resolve", UNKNOWN, 80, nil },
    }
    for _, case in ipairs(cases) do
      local err = fails(case[1], tcp.try_listen(case[2], case[3]))
      assert.equal("listen", err.op)
      assert.is_truthy(err.peer:find(case[2], 1, true))
      if case[4] then
        assert.equal(case[4], tostring(err))
      end
    end
    assert.has_error(function()
      tcp.listen("127.0.0.1", port)
    end)
    taken:close()
  end)

  it("looks names up in a task, too", function()
    local addr
    tcp.run(function()
      local listener = tcp.listen("localhost", 0)
      addr = listener:addr()
      listener:close()
    end)
    assert.matches("^127%.0%.0%.1:%d+$", addr)
  end)

  it("may be cancelled while a name is being looked up", function()
    if not support.succeeds("unshare -m true") then
      return pending("a resolver that never answers needs a mount namespace of its own (root)")
    end
    local address = "127.99.99.96"
    peers.start("--silent-dns", address)
    support.with_nameserver(address, function(prefix)
      assert.equal("cancelled\tlisten\tslow.example:0\n", support.child([[
        local tcp = require("tcp")
        local task = tcp.spawn(function()
          local _, err = tcp.try_listen("slow.example", 0)
          print(err.kind, err.op, err.peer)
        end)
        tcp.sleep(0.05)
        task:cancel()
        tcp.run()
      ]], prefix))
    end)
  end)

  it("needs permission for low ports", function()
    local prefix = "setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all"
    local limit = assert(io.open("/proc/sys/net/ipv4/ip_unprivileged_port_start")):read("*l")
    if not support.succeeds(prefix .. " true") or tonumber(limit) < 81 then
      return pending("a plain user needs root, setpriv, and ports that are privileged")
    end
    local lua, path = os.getenv("TCP_LUA") or "lua", new_path()
    -- The plain user may not read root's temporary files, so the script comes on the command line.
    local file = assert(io.open(path, "w"))
    file:write([[local _, err = require("tcp").try_listen("127.0.0.1", 80) print(err.kind, err.errno, err)]])
    file:close()
    os.execute("chmod 644 " .. path)
    local process = io.popen(prefix .. " " .. lua .. " " .. path .. " 2>&1")
    local output = process:read("*a")
    process:close()
    os.remove(path)
    if output:find("not found") then
      return pending("a plain user cannot read this directory: " .. output:match("[^\n]*"))
    end
    assert.equal("system\t13\tlisten 127.0.0.1:80: permission denied\n", output)
  end)

  it("is told about misuse", function()
    local cases = {
      { "bad argument #1 to 'listen' (string expected, got nil)" },
      { "bad argument #2 to 'listen' (number expected, got nil)", "127.0.0.1" },
      { "bad argument #2 to 'listen' (port out of range 0-65535: 70000)", "127.0.0.1", 70000 },
      { "bad argument #3 to 'listen' (table (options) expected, got number)", "127.0.0.1", 0, 5 },
      { "bad option 'bcklog' to 'listen' (did you mean 'backlog'?)", "127.0.0.1", 0, { bcklog = 1 } },
      { "bad option 'backlog' to 'listen' (number of at least 1 expected, got 0)", "::1", 0, { backlog = 0 } },
      { "bad option 'reuse_port' to 'listen' (boolean expected, got number)", "::1", 0, { reuse_port = 1 } },
    }
    for _, case in ipairs(cases) do
      misuse(case[1], tcp.listen, case[2], case[3], case[4])
    end
    misuse("bad argument #2 to 'try_listen' (number expected, got nil)", tcp.try_listen, "::1")
    local listener = listen()
    misuse("bad argument #1 to 'accept' (seconds expected, 0 or more, got -1)", listener.accept, listener, -1)
    misuse("bad argument #1 to 'try_accept' (seconds expected, 0 or more, got NaN)", listener.try_accept, listener,
      0 / 0)
    for _, name in ipairs { "accept", "try_accept", "connections", "close", "is_closed", "addr", "pollfd" } do
      misuse(("bad self to '%s' (Listener expected, got string; use ':')"):format(name), listener[name], "x")
    end
    listener:close()
  end)

  it("shares a port among those who all ask for it", function()
    local first = listen { reuse_port = true }
    local second = tcp.listen("127.0.0.1", first:local_port(), { reuse_port = true })
    fails("address_in_use", tcp.try_listen("127.0.0.1", first:local_port()))
    local clients, served = {}, 0
    for i = 1, 20 do
      clients[i] = connect(first)
    end
    for _, listener in ipairs { first, second } do
      local conn = listener:try_accept(0)
      while conn do
        served = served + 1
        conn:close()
        conn = listener:try_accept(0)
      end
    end
    assert.equal(20, served)
    close_all(first, second)
    close_all(unpack(clients))
  end)

  it("with ipv6_only leaves IPv4 to others", function()
    local ipv6 = tcp.listen("*", 0, { ipv6_only = true })
    local ipv4 = tcp.listen("0.0.0.0", ipv6:local_port())
    close_all(ipv6, ipv4)
    local both = tcp.listen("::", 0)
    fails("address_in_use", tcp.try_listen("0.0.0.0", both:local_port()))
    both:close()
  end)

  it("takes a port again on which only old connections linger", function()
    local listener = listen()
    local client, conn = pair(listener)
    conn:close()
    assert.equal("", client:read_str())
    close_all(client, listener)
    tcp.listen("127.0.0.1", listener:local_port()):close()
  end)

  it("is not inherited by other programs", function()
    local listener = listen()
    local process = io.popen("echo up; exec sleep 0.3")
    -- Until it runs, the descriptors of this process are its own, too.
    assert.equal("up", process:read("*l"))
    listener:close()
    tcp.listen("127.0.0.1", listener:local_port()):close()
    process:close()
  end)

  it("frees the port of a listener that was collected", function()
    local port = listen():local_port()
    collectgarbage()
    collectgarbage()
    tcp.listen("127.0.0.1", port):close()
  end)
end)

describe("a listener on a unix path", function()
  after_each(nothing_is_left)

  it("knows its ends, and so do its connections", function()
    local path = new_path()
    local name = "unix:" .. path
    local listener = tcp.listen(name)
    assert.equal(name, listener:addr())
    assert.equal(name, listener:local_host())
    assert.is_nil(listener:local_port())
    local client = tcp.connect(name)
    local conn = listener:accept(5)
    assert.same({ name, name, "unix:" }, { conn:host(), conn:local_addr(), conn:remote_addr() })
    assert.is_nil(conn:port())
    assert.is_nil(conn:local_port())
    assert.is_truthy(tostring(conn):find(name, 1, true), "it says where: " .. tostring(conn))
    close_all(client, conn, listener)
    assert.is_nil(lfs.attributes(path))
  end)

  it("replaces what is deserted, and nothing else", function()
    local path = new_path()
    local name = "unix:" .. path
    -- A process that was killed leaves its socket.
    support.child(("require('tcp').listen('%s') io.popen('kill -9 $PPID'):read('*a')"):format(name))
    assert.equal("socket", lfs.attributes(path, "mode"))
    local listener = tcp.listen(name)
    local err = fails("address_in_use", tcp.try_listen(name))
    assert.equal("listen " .. name .. ": address already in use", tostring(err))
    -- Nobody is bothered by the question whether somebody listens.
    fails("timeout", listener:try_accept(0.01))
    local client = tcp.connect(name)
    listener:accept(5):close()
    close_all(client, listener)

    local file = assert(io.open(path, "w"))
    file:write("mine")
    file:close()
    fails("address_in_use", tcp.try_listen(name))
    assert.equal(4, lfs.attributes(path, "size"))
    os.remove(path)
    lfs.mkdir(path)
    fails("address_in_use", tcp.try_listen(name))
    lfs.rmdir(path)
    fails("system", tcp.try_listen(name .. "/no/such/directory"))
    fails("system", tcp.try_listen("unix:/tmp/" .. ("x"):rep(200)))
    misuse("bad argument #2 to 'listen' (nil (a unix path has no port) expected, got number)", tcp.listen, name, 80)
  end)

  it("is unlinked by close and by collection, unless somebody has replaced it", function()
    local path = new_path()
    local name = "unix:" .. path
    assert.is_false(tcp.listen(name):is_closed())
    collectgarbage()
    collectgarbage()
    assert.is_nil(lfs.attributes(path))
    local listener = tcp.listen(name)
    os.remove(path)
    local other = tcp.listen(name)
    close_all(listener, listener)
    assert.equal("socket", lfs.attributes(path, "mode"))
    tcp.connect(name):close()
    other:close()
    assert.is_nil(lfs.attributes(path))
  end)
end)
