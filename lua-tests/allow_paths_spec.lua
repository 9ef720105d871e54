-- Entries of tcp.allow about unix sockets, and the paths that they let pass.

local certificates = require("support.certificates")
local policy = require("support.policy")

local prints, text = policy.prints, policy.text

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

  -- A connect to a socket whose backlog is full is tried again.
  it("is looked at anew whenever it is tried again", function()
    prints({ "waiting", "denied", "alone" }, ([[
      local FOLDER = %q
      local lfs = require("lfs")
      lfs.mkdir(FOLDER .. "/open")
      lfs.mkdir(FOLDER .. "/shut")
      local open, shut = FOLDER .. "/open/x", FOLDER .. "/shut/x"
      local full, secret = tcp.listen("unix:" .. open, nil, { backlog = 1 }), tcp.listen("unix:" .. shut)
      lfs.link(shut, FOLDER .. "/open/link", true)
      tcp.allow { net = { "unix:" .. open } }
      repeat until not tcp.try_connect("unix:" .. open, nil, 0)
      local task = tcp.spawn(reach, "connect", "unix:" .. open, nil, 60)
      tcp.sleep(0)
      print(task:status())
      assert(os.rename(FOLDER .. "/open/link", open))
      print(task:join())
      print((secret:try_accept(0)) and "met" or "alone")
      full:close()
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

  -- A host that a peer names may be of any length.
  it("that is too long for any socket is denied at once", function()
    prints({ "denied", "denied", "denied", "denied", "misuse" }, [[
      tcp.allow { net = { "unix:/run/*-*-*-*-*-*-*-*.sock" } }
      print(reach("connect", "unix:/run/" .. ("-"):rep(250)))
      print(reach("connect", "unix:/run/" .. ("-"):rep(4000)))
      print(reach("connect", "unix:/" .. ("a/"):rep(1e6)))
      tcp.allow { listen = {} }
      print(reach("listen", "unix:/" .. ("a/"):rep(1e6)))
      print(pcall(tcp.allow, { net = { "unix:/" .. ("a/"):rep(1e6) } }) and "accepted" or "misuse")
    ]], "timeout 30")
  end)
end)
