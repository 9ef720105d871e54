-- What tcp.allow is about: each operation that reaches somebody or listens, and none else.

local certificates = require("support.certificates")
local policy = require("support.policy")
local transports = require("support.transports")

local prints, text = policy.prints, policy.text
local TLS = { client = text(transports.CLIENT), server = text(transports.SERVER) }

describe("net", function()
  it("covers whatever connects", function()
    prints({ "denied", "denied", "denied", "denied", "denied", "denied", "denied", "denied", "alone" }, [[
      local listener, port = listen()
      require("tcp")
      tcp.allow { net = { "127.0.0.9" } }
      local function raises(fn, ...)
        local ok, err = pcall(fn, ...)
        return not ok and tcp.is_error(err) and err.kind
      end
      print(reach("connect", "127.0.0.1", port))
      print(reach("connect_tls", "127.0.0.1", port))
      print(reach("connect", "127.0.0.1", port, { tls = true }))
      print(raises(tcp.connect, "127.0.0.1", port))
      print(raises(tcp.connect_tls, "127.0.0.1", port))
      print(raises(connect, "127.0.0.1", port))
      print(raises(connect_tls, "127.0.0.1", port))
      print(reach("connect", "127.0.0.1", port, { timeout = 0 }))
      print((listener:try_accept(0)) and "met" or "alone")
    ]])
  end)

  it("covers UDP: sockets with a peer, and send_to", function()
    prints({ "denied\tudp", "denied\tsend_to", "denied\tsend_to", "denied\tsend_to", "1\tnil", "x", "timeout" }, [[
      local forbidden, allowed = tcp.udp_listen("127.0.0.1", 0), tcp.udp_listen("127.0.0.9", 0)
      local port = forbidden:local_port()
      tcp.allow { net = { "127.0.0.9" } }
      local function tell(value, err)
        print(err and err.kind or value, err and err.op)
      end
      local socket, listening = tcp.udp(), tcp.udp_listen("*", 0)
      tell(tcp.try_udp("127.0.0.1", port))
      tell(socket:try_send_to("forbidden", "127.0.0.1", port))
      tell(socket:try_send_to("forbidden", "localhost", port))
      tell(listening:try_send_to("forbidden", "::ffff:127.0.0.1", port))
      tell(socket:try_send_to("x", "127.0.0.9", allowed:local_port()))
      print((allowed:recv(10, 60)))
      print(select(2, forbidden:try_recv(10, 0)).kind)
    ]])
  end)

  it("covers answers to datagrams, whoever sent them", function()
    prints({ "question", "denied" }, [[
      local server = tcp.udp_listen("127.0.0.1", 0)
      local client = tcp.udp("127.0.0.1", server:local_port())
      client:send("question")
      tcp.allow { net = {} }
      local data, host, port = server:recv_from(100, 60)
      print(data)
      local _, err = server:try_send_to("answer", host, port)
      print(err.kind)
    ]])
  end)

  it("covers names and literals that are only resolved, without their ports", function()
    prints({ "127.0.0.1", "127.0.0.9", "denied", "denied", "denied", "denied", "denied" }, [[
      tcp.allow { net = { "localhost:1", "127.0.0.9:2" } }
      print(tcp.resolve("localhost", { family = "ipv4" }))
      print(table.concat(tcp.resolve_all("127.0.0.9"), " "))
      for _, host in ipairs { "127.0.0.1", "::1", "host.example", "127.1" } do
        print(reach("resolve", host))
      end
      print(reach("resolve_all", "[::1]"))
    ]])
  end)

  it("covers what is resolved also where a port of an address is denied, but not for that", function()
    prints({ "127.0.0.9", "denied", "127.0.0.9" }, [[
      tcp.allow { deny = { "127.0.0.9:1", ":2" } }
      print(tcp.resolve("127.0.0.9"))
      print(reach("connect", "127.0.0.9", 1))
      tcp.allow { deny = { "127.0.0.8" } }
      print(tcp.resolve("127.0.0.9"))
    ]])
  end)

  it("is not about what is listened on or accepted", function()
    prints({ "reached", "reached", "reached", "hello" }, [[
      local listener, port = listen()
      local client = tcp.connect("127.0.0.1", port)
      client:write("hello")
      tcp.allow { net = {} }
      print(reach("listen", "127.0.0.1", 0))
      print(reach("serve", "127.0.0.1", 0, function() end))
      print(reach("udp_listen", "127.0.0.1", 0))
      print(listener:accept():read(5))
    ]])
  end)

  it("is not about the address that a connection is bound to", function()
    prints({ "127.0.0.7", "127.0.0.7" }, [[
      local _, port = listen()
      tcp.allow { net = { "127.0.0.1" }, listen = {} }
      for _, bind in ipairs { "127.0.0.7", "127.0.0.7:0" } do
        local conn = tcp.connect("127.0.0.1", port, { bind = bind })
        print(conn:local_host())
      end
    ]])
  end)

  it("lets a bound address be denied as little", function()
    prints({ "127.0.0.7" }, [[
      local _, port = listen()
      tcp.allow { deny = { "127.0.0.7" } }
      print(tcp.connect("127.0.0.1", port, { bind = "127.0.0.7" }):local_host())
    ]])
  end)

  it("is not about sockets that nobody is reached by", function()
    prints({ "reached", "reached" }, [[
      tcp.allow { net = {}, listen = {} }
      print(reach("udp"))
      local socket = tcp.udp()
      socket:close()
      print("reached")
    ]])
  end)

  it("is not about TLS on a connection that is there, nor about the name asked for", function()
    prints({ "TLSv1.3", "TLSv1.3" }, ([[
      local SERVER, CLIENT = %s, %s
      local listener, port = listen()
      local near, far = tcp.connect("127.0.0.1", port), listener:accept()
      tcp.allow { net = { "127.0.0.1" } }
      local function upgrade(near, far)
        tcp.spawn(function()
          SERVER.server = true
          far:start_tls(SERVER)
        end)
        CLIENT.sni = "localhost"
        near:start_tls(CLIENT)
        print(near:protocol())
      end
      upgrade(near, far)
      upgrade(tcp.connect("127.0.0.1", port), listener:accept())
    ]]):format(TLS.server, TLS.client))
  end)
end)

describe("listen", function()
  it("covers whatever listens", function()
    prints({ "denied\tlisten", "denied\tlisten", "denied\tserve", "denied\tudp_listen", "denied\tlisten" }, [[
      tcp.allow { listen = { "127.0.0.9" } }
      local function tell(value, err)
        print(err and err.kind .. "\t" .. err.op or value)
      end
      tell(tcp.try_listen("127.0.0.1", 0))
      tell(tcp.try_listen("localhost", 0))
      tell(tcp.try_serve("127.0.0.1", 0, function() end))
      tell(tcp.try_udp_listen("127.0.0.1", 0))
      tell(tcp.try_listen("127.0.0.1", 0, { reuse_port = true }))
    ]])
  end)

  it("is not about who is reached", function()
    prints({ "reached", "reached" }, [[
      local _, port = listen()
      tcp.allow { listen = {} }
      print(reach("connect", "127.0.0.1", port))
      print(reach("udp", "127.0.0.1", port))
    ]])
  end)

  it("accepts whoever comes", function()
    prints({ "hello" }, [[
      tcp.allow { listen = { "127.0.0.1" }, net = { "127.0.0.1" } }
      local listener, port = listen()
      tcp.connect("127.0.0.1", port, { bind = "127.0.0.77" }):write("hello")
      print(listener:accept():read(5))
    ]])
  end)

  it("needs an entry without a port for port 0", function()
    prints({ "denied", "reached", "reached", "denied" }, [[
      local spare, port = listen()
      spare:close()
      tcp.allow { listen = { "127.0.0.1:" .. port, "127.0.0.9" } }
      print(reach("listen", "127.0.0.1", 0))
      print(reach("listen", "127.0.0.9", 0))
      print(reach("listen", "127.0.0.1", port))
      print(reach("udp_listen", "127.0.0.1", 0))
    ]])
  end)

  local CASES = {
    { { "127.0.0.1" }, { "127.0.0.1 0", "127.0.0.1 4321", "::ffff:127.0.0.1 0" },
      { "127.0.0.2 0", "0.0.0.0 0", ":: 0", "* 0", "::1 0", "localhost 0" } },
    { { "127.0.0.0/30:4321" }, { "127.0.0.1 4321", "127.0.0.3 4321" }, { "127.0.0.4 4321", "127.0.0.1 0" } },
    { { "localhost" }, { "localhost 0", "LOCALHOST. 0" }, { "127.0.0.1 0", "* 0" } },
    { { "*" }, { "* 0", "0.0.0.0 0", "127.0.0.1 1", ":: 0", "localhost 0" }, { "unix:/nowhere/x" } },
    { { ":4321" }, { "127.0.0.1 4321", "::1 4321", "0.0.0.0 4321", "* 4321" }, { "127.0.0.1 4322", "* 0" } },
    { { "[::1]:4321" }, { "::1 4321", "[::1] 4321" }, { ":: 4321", "* 4321", "127.0.0.1 4321" } },
    { { "unix:/nowhere/*" }, { "unix:/nowhere/x" }, { "unix:/nowhere/x/y", "127.0.0.1 0", "* 0" } },
    { {}, {}, { "127.0.0.1 0", "* 0", "unix:/nowhere/x", "localhost 0", ":: 1" } },
  }
  for _, case in ipairs(CASES) do
    for _, operation in ipairs { "listen", "udp_listen" } do
      it("= { " .. table.concat(case[1], ", ") .. " }, for " .. operation, function()
        if not policy.NOWHERE then
          return pending(policy.NO_NETWORK)
        end
        local targets = { {}, {} }
        for i = 1, 2 do
          for _, target in ipairs(case[i + 1]) do
            if operation == "listen" or not target:find("^unix:") then
              targets[i][#targets[i] + 1] = target
            end
          end
        end
        policy.decides({ { listen = case[1] } }, targets[1], targets[2], operation)
      end)
    end
  end

  it("has denied addresses, too", function()
    if not policy.NOWHERE then
      return pending(policy.NO_NETWORK)
    end
    policy.decides({ { listen = { "*" }, deny = { "127.0.0.0/8", "[::1]:1" } } }, { "10.0.0.1 1", "::1 2" },
      { "127.0.0.1 0", "::1 1", "localhost 0", "127.1 0", "::ffff:127.0.0.1 0" }, "listen")
    -- Every address of the machine is none of the public ones.
    policy.decides({ { listen = { "*" }, deny = { "private" } } }, { "8.8.8.8 1" },
      { "127.0.0.1 0", "10.0.0.1 1", "* 0", "0.0.0.0 80", ":: 80" }, "listen")
  end)
end)

describe("a unix path", function()
  local folder

  before_each(function()
    folder = certificates.folder()
  end)

  after_each(function()
    os.execute("rm -rf " .. folder .. "/*")
    certificates.remove_files()
  end)

  --- Asserts how connecting and listening on paths below the test's folder go. `FOLDER` is the folder.
  local function reaches(entries, passes, stops, prepare)
    local expected, paths = {}, {}
    for i, list in ipairs { passes, stops } do
      for _, path in ipairs(list) do
        paths[#paths + 1] = path
        expected[#expected + 1] = (i == 1 and "reached " or "denied ") .. path
      end
    end
    local script = ([[
      local FOLDER = %q
      local lfs = require("lfs")
      local listeners = {}
      %s
      local function entries()
        local all = %s
        for i, entry in ipairs(all) do
          all[i] = entry:gsub("FOLDER", FOLDER)
        end
        return all
      end
      tcp.allow { net = entries(), listen = entries() }
      for _, path in ipairs(%s) do
        local target = "unix:" .. path:gsub("FOLDER", FOLDER)
        local how = reach("connect", target)
        local listening = reach("listen", target)
        if how ~= "denied" and listening ~= "denied" then
          how = "reached"
        elseif how ~= listening then
          how = how .. " but " .. listening
        end
        print(how .. " " .. path)
      end
    ]]):format(folder, prepare or "", text(entries), text(paths))
    assert.equal(table.concat(expected, "\n") .. "\n", policy.run(script))
  end

  it("passes by its own entry only", function()
    reaches({ "unix:FOLDER/a" }, { "FOLDER/a", "FOLDER//a", "FOLDER/./a" },
      { "FOLDER/b", "FOLDER/ab", "FOLDER/A", "FOLDER", "FOLDER/a/b", "FOLDER/a ", "/a", "a" })
    reaches({ "*", ":1", "0.0.0.0/0" }, {}, { "FOLDER/a", "a" })
  end)

  it("passes by a *, which does not cross /", function()
    reaches({ "unix:FOLDER/*" }, { "FOLDER/a", "FOLDER/.hidden", "FOLDER/*", "FOLDER/a.b:1" },
      { "FOLDER/sub/a", "FOLDER/", "FOLDER", "FOLDER/../a", "/tmp/a" })
    reaches({ "unix:FOLDER/a*.sock", "unix:FOLDER/*/x" }, { "FOLDER/a.sock", "FOLDER/abc.sock", "FOLDER/sub/x" },
      { "FOLDER/b.sock", "FOLDER/a.sockets", "FOLDER/sub/a.sock", "FOLDER/a/b.sock", "FOLDER/sub/sub/x", "FOLDER/x",
        "FOLDER/sub/y" }, "lfs.mkdir(FOLDER .. '/sub')")
  end)

  it("takes every other sign of an entry as it is", function()
    reaches({ "unix:FOLDER/a?[b].%w+" }, { "FOLDER/a?[b].%w+" },
      { "FOLDER/axb", "FOLDER/axb.x", "FOLDER/a?b.%w+", "FOLDER/a?[b].x" })
  end)

  it("is denied if it has a .., wherever that leads", function()
    reaches({ "unix:FOLDER/*", "unix:/*" }, { "FOLDER/a", "FOLDER/..a", "FOLDER/a..b", "FOLDER/..." },
      { "FOLDER/../a", "FOLDER/sub/../a", "FOLDER/..", "../a", "FOLDER/a/..", "/../tmp/a", ".." },
      "lfs.mkdir(FOLDER .. '/sub')")
  end)

  it("is that of what a link leads to", function()
    local links = [[
      for _, name in ipairs { "open", "shut" } do
        lfs.mkdir(FOLDER .. "/" .. name)
      end
      listeners[1] = tcp.listen("unix:" .. FOLDER .. "/shut/socket")
      listeners[2] = tcp.listen("unix:" .. FOLDER .. "/open/socket")
      lfs.link(FOLDER .. "/shut", FOLDER .. "/open/folder", true)
      lfs.link(FOLDER .. "/shut/socket", FOLDER .. "/open/link", true)
      lfs.link("link", FOLDER .. "/open/link2", true)
      lfs.link(FOLDER .. "/shut/nothing", FOLDER .. "/open/dangling", true)
      lfs.link("../shut/socket", FOLDER .. "/open/relative", true)
      lfs.link("loop", FOLDER .. "/open/loop", true)
      lfs.link(FOLDER .. "/open/socket", FOLDER .. "/shut/out", true)
      lfs.link(FOLDER .. "/open", FOLDER .. "/shut/way", true)
      lfs.chdir(FOLDER .. "/open")
    ]]
    reaches({ "unix:FOLDER/open/*" }, { "FOLDER/open/new", "FOLDER/shut/way/new", "new", "./new" },
      { "FOLDER/open/link", "FOLDER/open/link2", "FOLDER/open/dangling", "FOLDER/open/relative",
        "FOLDER/open/folder/new", "FOLDER/open/folder/socket", "link", "folder/socket", "FOLDER/shut/socket",
        "./folder/./new", "FOLDER/open/loop" }, links)
  end)

  --- Asserts how connecting goes to the sockets `real/one` and `real/other`, and by the links `link` and `to-one`.
  local function leads(lines, rules)
    prints(lines, ([[
      local FOLDER = %q
      local lfs = require("lfs")
      lfs.mkdir(FOLDER .. "/real")
      lfs.link(FOLDER .. "/real", FOLDER .. "/link", true)
      lfs.link(FOLDER .. "/real/one", FOLDER .. "/to-one", true)
      local one = tcp.listen("unix:" .. FOLDER .. "/real/one")
      local other = tcp.listen("unix:" .. FOLDER .. "/real/other")
      local function below(...)
        local entries = { ... }
        for i, entry in ipairs(entries) do
          entries[i] = "unix:" .. FOLDER .. entry
        end
        return entries
      end
      %s
      for _, path in ipairs(below("/real/one", "/link/one", "/to-one", "/real/other", "/link/other")) do
        print(reach("connect", path))
      end
      one:close()
      other:close()
    ]]):format(folder, rules))
  end

  it("passes by an entry through a link, as does what that leads to", function()
    leads({ "reached", "reached", "reached", "reached", "reached" }, "tcp.allow { net = below('/link/*') }")
    leads({ "reached", "reached", "reached", "denied", "denied" }, "tcp.allow { net = below('/to-one') }")
    leads({ "denied", "denied", "denied", "reached", "reached" }, "tcp.allow { net = below('/*/other') }")
  end)

  it("is denied by an entry through a link, as is what that leads to", function()
    leads({ "denied", "denied", "denied", "reached", "reached" }, "tcp.allow { deny = below('/link/one') }")
    leads({ "denied", "denied", "denied", "reached", "reached" }, "tcp.allow { deny = below('/to-one') }")
    leads({ "denied", "denied", "denied", "denied", "denied" }, "tcp.allow { deny = below('/link/*') }")
    leads({ "denied", "denied", "denied", "reached", "reached" },
      "tcp.allow { net = below('/*/*'), deny = below('/real/one') }")
  end)

  it("that is a link is not replaced where its place is forbidden", function()
    prints({ "link", "link" }, ([[
      local FOLDER = %q
      local lfs = require("lfs")
      lfs.mkdir(FOLDER .. "/open")
      lfs.mkdir(FOLDER .. "/shut")
      -- Nobody answers there.
      lfs.link(FOLDER .. "/open/gone", FOLDER .. "/shut/in", true)
      lfs.link(FOLDER .. "/shut/gone", FOLDER .. "/open/out", true)
      tcp.allow { listen = { "unix:" .. FOLDER .. "/open/*" } }
      local one = tcp.try_listen("unix:" .. FOLDER .. "/shut/in")
      print(lfs.symlinkattributes(FOLDER .. "/shut/in", "mode"))
      local other = tcp.try_listen("unix:" .. FOLDER .. "/open/out")
      print(lfs.symlinkattributes(FOLDER .. "/open/out", "mode"))
      assert(not other and not lfs.attributes(FOLDER .. "/shut/gone"))
      if one then
        one:close()
      end
    ]]):format(folder))
  end)

  it("that is denied is not touched", function()
    prints({ "denied", "reached" }, ([[
      local path = %q .. "/stale"
      local listener = tcp.listen("unix:" .. path)
      tcp.allow { listen = { "unix:/nowhere/*" } }
      print(reach("listen", "unix:" .. path))
      print(reach("connect", "unix:" .. path))
      listener:close()
    ]]):format(folder))
  end)
end)
