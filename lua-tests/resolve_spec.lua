local tcp = require("tcp.core")
local peers = require("support.peers")
local support = require("support")
local tasks = require("support.tasks")

local fails, raises = support.fails, support.raises

-- A label of more than 63 bytes: the resolver refuses it without asking anybody.
local UNKNOWN = ("x"):rep(64)

-- Literals, and how they are usually spelt.
local LITERALS = {
  ["127.0.0.1"] = "127.0.0.1", ["0.0.0.0"] = "0.0.0.0", ["255.255.255.255"] = "255.255.255.255",
  ["::1"] = "::1", ["::"] = "::", ["[::1]"] = "::1", ["0:0:0:0:0:0:0:1"] = "::1", ["2001:DB8:0:0::7"] = "2001:db8::7",
  ["[2001:0db8::0007]"] = "2001:db8::7", ["fe80::1"] = "fe80::1", ["1:0:0:2:0:0:0:3"] = "1:0:0:2::3",
}

-- Addresses that are names for the module: the system makes of them what it does.
local SPELLINGS = { ["127.1"] = "127.0.0.1", ["2130706433"] = "127.0.0.1", ["0x7f000001"] = "127.0.0.1" }

describe("resolve", function()
  after_each(tasks.finish_all)

  it("gives literals back in their usual spelling", function()
    for literal, usual in pairs(LITERALS) do
      assert.equal(usual, tcp.resolve(literal), literal)
      assert.same({ usual }, { tcp.try_resolve(literal) }, literal)
      assert.same({ usual }, tcp.resolve_all(literal), literal)
      assert.same({ { usual } }, { tcp.try_resolve_all(literal) }, literal)
      assert.equal(usual, tcp.resolve(literal, { family = usual:find(":") and "ipv6" or "ipv4" }))
    end
  end)

  it("leaves odd spellings to the system", function()
    for odd, usual in pairs(SPELLINGS) do
      assert.equal(usual, tcp.resolve(odd), odd)
      assert.same({ usual }, tcp.resolve_all(odd), odd)
    end
  end)

  it("finds names, in a task and outside", function()
    local function find()
      local first = tcp.resolve("localhost")
      assert.is_truthy(first == "127.0.0.1" or first == "::1")
      local all = tcp.resolve_all("LocalHost")
      assert.equal(first, all[1])
      assert.equal("127.0.0.1", tcp.resolve("localhost", { family = "ipv4" }))
      assert.same({ "127.0.0.1" }, tcp.resolve_all("localhost", { family = "ipv4" }))
      assert.equal(first, tcp.resolve("localhost", { timeout = math.huge, family = "any" }))
      assert.equal(first, tcp.resolve("localhost", {}))
    end
    find()
    tcp.run(find)
    coroutine.wrap(find)()
    tcp.run(function() tcp.wrap(find)() end)
  end)

  it("says what is wrong with a name", function()
    for _, name in ipairs { "resolve", "resolve_all" } do
      local err = fails("resolve", tcp["try_" .. name](UNKNOWN))
      assert.same({ name, UNKNOWN, "resolve" }, { err.op, err.peer, err.stage })
      assert.matches("^the name cannot be resolved %(", err.message)
      assert.equal(name, raises("resolve", tcp[name], UNKNOWN).op)
      for literal, family in pairs { ["127.0.0.1"] = "ipv6", ["::1"] = "ipv4", ["[::1]"] = "ipv4" } do
        err = fails("resolve", tcp["try_" .. name](literal, { family = family }))
        local wanted = family == "ipv4" and "IPv4" or "IPv6"
        assert.equal(("the host has no %s address"):format(wanted), err.message)
        assert.same({ name, literal, "resolve" }, { err.op, err.peer, err.stage })
      end
    end
  end)

  it("needs no time for what needs no wait, and has no other", function()
    assert.equal("127.0.0.1", tcp.resolve("127.0.0.1", { timeout = 0 }))
    assert.equal("::1", tcp.with_timeout(0, tcp.resolve, "::1"))
    local task
    task = tcp.spawn(function()
      task:cancel()
      return tcp.resolve("::1")
    end)
    fails("cancelled", task:try_join(10))
    fails("timeout", tcp.try_resolve("localhost", { timeout = 0 }))
  end)

  it("leaves no descriptor behind", function()
    tcp.resolve("localhost")
    collectgarbage("stop")
    finally(function() collectgarbage("restart") end)
    local before = peers.descriptors()
    local function many()
      for _ = 1, 20 do
        tcp.resolve("localhost")
        tcp.resolve_all("::1")
        fails("resolve", tcp.try_resolve(UNKNOWN))
      end
      assert.equal(before, peers.descriptors())
    end
    many()
    tcp.run(many)
  end)

  it("gives tables of one's own", function()
    local first = tcp.resolve_all("127.0.0.1")
    first[1] = "changed"
    assert.same({ "127.0.0.1" }, tcp.resolve_all("127.0.0.1"))
  end)
end)

-- What a machine knows by its hosts file, one address twice.
local HOSTS = [[
127.0.0.1 localhost
10.1.2.3 four.example many.example
10.1.2.4 many.example
10.1.2.4 many.example
2001:db8::6 six.example many.example both.example
192.0.2.9 both.example Upper.Example
]]

local IN_HOSTS = [[
four.example: 10.1.2.3
FOUR.example: 10.1.2.3
six.example: 2001:db8::6
upper.example: 192.0.2.9
both.example: 192.0.2.9 2001:db8::6
many.example: 10.1.2.3 10.1.2.4 2001:db8::6
both.example ipv4: 192.0.2.9
both.example ipv6: 2001:db8::6
six.example ipv6: 2001:db8::6
six.example ipv4: resolve the host has no IPv4 address
four.example ipv6: resolve the host has no IPv6 address
unknown.example: resolve
]]

describe("the hosts file", function()
  local FILES = { ["/etc/hosts"] = HOSTS, ["/etc/host.conf"] = "multi on\n", ["/etc/resolv.conf"] = "" }

  local function child(script)
    local output
    support.with_files(FILES, function(prefix)
      output = support.child(script, prefix)
    end, "true")
    return output
  end

  local function needs_namespaces()
    if not support.succeeds("unshare -rmn true") then
      return pending("a hosts file of its own needs namespaces")
    end
  end

  it("has names of one family, of both, and of many addresses", function()
    needs_namespaces()
    assert.equal(IN_HOSTS, child([[
      local tcp = require("tcp.core")
      local function tell(name, family)
        local all, err = tcp.try_resolve_all(name, { family = family })
        local first, other_err = tcp.try_resolve(name, { family = family })
        if all then
          assert(all[1] == first)
          table.sort(all)
        else
          assert(err.kind == other_err.kind and err.message == other_err.message)
          all = { err.kind, family and err.message }
        end
        print(name .. (family and " " .. family or "") .. ": " .. table.concat(all, " "))
      end
      for _, name in ipairs { "four", "FOUR", "six", "upper", "both", "many" } do tell(name .. ".example") end
      tell("both.example", "ipv4") tell("both.example", "ipv6") tell("six.example", "ipv6")
      tell("six.example", "ipv4") tell("four.example", "ipv6")
      tell("unknown.example")
    ]]))
  end)

  it("is given in the order of the system", function()
    needs_namespaces()
    if not support.succeeds("command -v getent") then
      return pending("getent is missing")
    end
    assert.equal("same\n", child([[
      local tcp = require("tcp.core")
      local process = io.popen("getent ahosts many.example")
      local expected, seen = {}, {}
      for address in process:read("*a"):gmatch("(%S+)%s+STREAM") do
        if not seen[address] then expected[#expected + 1] = address end
        seen[address] = true
      end
      process:close()
      local all = tcp.resolve_all("many.example")
      if #expected < 3 then
        -- It leaves out what this network cannot reach.
        all = tcp.resolve_all("many.example", { family = "ipv4" })
      end
      print(table.concat(all, " ") == table.concat(expected, " ") and "same" or table.concat(all, " ") .. " instead of "
        .. table.concat(expected, " "))
    ]]))
  end)

  it("answers 200 tasks at once", function()
    needs_namespaces()
    assert.equal("200\n", child([[
      local tcp = require("tcp.core")
      local right, all = 0, {}
      for i = 1, 200 do
        all[i] = tcp.spawn(function()
          local name = ({ "four.example", "six.example", "upper.example" })[i % 3 + 1]
          local expected = ({ "10.1.2.3", "2001:db8::6", "192.0.2.9" })[i % 3 + 1]
          if tcp.resolve(name) == expected then right = right + 1 end
        end)
      end
      tcp.run()
      print(right)
    ]]))
  end)
end)

-- Every name is slow: its name server never answers.
local SLOW = {
  ["ends when its time is over, and says where it was"] = { "timeout\tresolve\tresolve\tslow.example\ttrue\n"
    .. "timeout\tresolve_all\tresolve\tslow.example\ttrue\n", [[
    for _, name in ipairs { "try_resolve", "try_resolve_all" } do
      local began = tcp.now()
      local _, err = tcp[name]("slow.example", { timeout = 0.2 })
      local taken = tcp.now() - began
      print(err.kind, err.op, err.stage, err.peer, taken >= 0.2 and taken < 2)
    end
  ]] },
  ["may be cancelled, and cut by with_timeout"] = { "cancelled\tresolve\tresolve\tslow.example\ncancelled\tcancelled\n"
    .. "cancelled\tresolve\tresolve\tslow.example\ntimeout\n", [[
    local function look()
      local _, err = tcp.try_resolve("slow.example", { timeout = 60 })
      print(err.kind, err.op, err.stage, err.peer)
    end
    local task = tcp.spawn(look)
    tcp.sleep(0.05)
    task:cancel()
    print(select(2, task:try_join()).kind, task:status())
    print(select(2, tcp.try_with_timeout(0.05, look)).kind)
    assert(not tcp.step(0))
  ]] },
  ["does not hold up names that are quick"] = { "127.0.0.1\t20\n", [[
    local slow = {}
    for i = 1, 20 do
      slow[i] = tcp.spawn(tcp.resolve, ("slow%d.example"):format(i), { timeout = 60 })
    end
    tcp.sleep(0)
    local quick = tcp.resolve("localhost", { family = "ipv4" })
    local waiting = 0
    for i = 1, 20 do
      if slow[i]:status() == "waiting" then waiting = waiting + 1 end
      slow[i]:cancel()
    end
    print(quick, waiting)
  ]] },
  ["is over with its program"] = { "ended\n", [[
    tcp.spawn(tcp.resolve, "slow.example")
    tcp.sleep(0.05)
    print("ended")
  ]] },
}

-- Prints the kinds of error of 200 look-ups, and whether an echo was disturbed in the meantime.
local MANY = [[
  local tcp = require("tcp.core")
  local server = tcp.listen("127.0.0.1", 0)
  local echo = tcp.spawn(function()
    local conn = server:accept()
    local line = conn:try_read_line()
    while line do
      conn:write_line(line)
      line = conn:try_read_line()
    end
    conn:close()
  end)
  local conn = tcp.connect("127.0.0.1", server:local_port())
  local kinds, ended = {}, 0
  for i = 1, 200 do
    tcp.spawn(function()
      local resolve = i % 2 == 0 and tcp.try_resolve or tcp.try_resolve_all
      local _, err = resolve(("host%d.example"):format(i), { timeout = 1 })
      local what = err.kind .. " " .. err.stage
      kinds[what] = (kinds[what] or 0) + 1
      ended = ended + 1
    end)
  end
  tcp.sleep(0)
  local trips, slowest = 0, 0
  while ended < 200 do
    local at = tcp.now()
    conn:write_line("x")
    conn:read_line()
    slowest = math.max(slowest, tcp.now() - at)
    trips = trips + 1
    tcp.sleep(0.001)
  end
  conn:close()
  server:close()
  echo:join()
  tcp.run()
  for what, count in pairs(kinds) do print(what, count) end
  print(trips > 10 or trips, slowest < 0.5 or slowest)
]]

describe("a slow look-up", function()
  local function against_silence(script)
    if not support.succeeds("unshare -m true") then
      return pending("a resolver that never answers needs a mount namespace of its own (root)")
    end
    local address = "127.99.98.2"
    peers.start("--silent-dns", address)
    return support.with_nameserver(address, function(prefix)
      return support.child(script, prefix)
    end)
  end

  for claim, case in pairs(SLOW) do
    it(claim, function()
      assert.equal(case[1], against_silence("local tcp = require('tcp.core')\n" .. case[2]))
    end)
  end

  it("disturbs nobody, nor do 200 at once", function()
    assert.equal("timeout resolve\t200\ntrue\ttrue\n", against_silence(MANY))
  end)

  for runner_name, runner in pairs {
    ["in the main program"] = "wait()", ["in a coroutine"] = "coroutine.wrap(wait)()",
    ["in a task"] = "tcp.run(wait)", ["beside a task"] = "tcp.spawn(tcp.sleep, 60) wait()",
  } do
    it("is interrupted by Ctrl-C " .. runner_name, function()
      if not support.succeeds("unshare -m true") then
        return pending("a resolver that never answers needs a mount namespace of its own (root)")
      end
      local address = "127.99.98.3"
      peers.start("--silent-dns", address)
      support.with_nameserver(address, function(prefix)
        support.with_child(([[
          local tcp = require("tcp.core")
          local function wait()
            print("waiting")
            io.stdout:flush()
            tcp.resolve("slow.example", { timeout = 60 })
            print("came back")
          end
          print(select(2, pcall(function() %s end)))
          print(tcp.resolve("::1"))
        ]]):format(runner), function(output, pid)
          assert.equal("waiting", output:read("*l"))
          support.wait_until_asleep(pid)
          os.execute("kill -INT " .. pid)
          assert.matches("^[^\n]*interrupted!\n::1\n$", output:read("*a"))
        end, prefix)
      end)
    end)
  end
end)
