-- Calls of tcp.allow that are misuse: they raise, say what is wrong with which entry, and forbid nothing.

local policy = require("support.policy")

--- Asserts that each call raises a text with all of its words after the position, and that nothing of them holds.
-- A case is the text of an argument, and words.
local function raise(cases)
  local arguments = {}
  for i, case in ipairs(cases) do
    arguments[i] = case[1]
  end
  local output = policy.run(([[
    local _, port = listen()
    for i, argument in ipairs %s do
      local call = assert((loadstring or load)("local tcp = ... tcp.allow(" .. argument .. ")", "=script"))
      local ok, problem = pcall(call, tcp)
      print(ok and "accepted" or tostring(problem))
    end
    print(reach("connect", "127.0.0.1", port), reach("connect", "localhost", port, { family = "ipv4" }),
      reach("listen", "127.0.0.1", 0))
  ]]):format(policy.text(arguments)))
  local wrong, count = {}, 0
  for line in output:gmatch("[^\n]+") do
    count = count + 1
    local case = cases[count] or { "after all", "reached\treached\treached" }
    for i = 2, #case do
      if not line:find(case[i], 1, true) then
        wrong[#wrong + 1] = ("%s: %s\n    instead of %s"):format(case[1], line, case[i])
      end
    end
  end
  assert.equal(#cases + 1, count, output)
  assert.equal("", table.concat(wrong, "\n"))
end

-- Whatever list they are in.
local BAD = {
  "", " ", ":", "host:", "host:x", "host:0", "host:70000", "host:65536", "host:-1", "host:80:90", "host:8 0",
  "host: 80", "host:0x50", "host:80.0", " host", "ho st", "host ", "host/", "http://host", "host/path", "host/8",
  "user@host", ".example", "a..b", "a..", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/8/8",
  "10.0.0.0/8:x", "10.0.0.0/255.0.0.0", "10.0.0/8", "/8", "256.0.0.0/8", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.1/8",
  "10.1.2.3/8:80", "[fd12::1]/8", "[::ffff:11.1.2.3]/104", "::1/0", "[::1", "::1]", "[]", "[host]",
  "[127.0.0.1]", "[::]/129", "[::]/x", "[::1]x", "[::1]80", "[::1]:", "[::1]:65536", "[::g]", "[::1]/", "[::1/8]",
  "::1:65536", "127.1", "10.0.0", "10.0.0.256", "010.0.0.1", "*.", "*.*", "**", "*x", "x*", "a.*", "a.*.b", "*..b",
  "*a.example", ":0x50", ":65536", ":-1", ":0", "*:", "*:x", "*:0", "*.example:x", "*.example/8", "*/8", "*.127.1",
  "[fe80::1%lo]", "fe80::1%lo", "unix:", "unix:relative", "unix:/a/../b", "unix:*", "UNIX:/a",
  "unix:/**", "unix:/*/**", "unix:/a/**/b", "/run/app/x", "8080", "::1:80", "::1:18080", "fd00::1:443",
}

describe("tcp.allow", function()
  for _, list in ipairs { "net", "listen", "deny" } do
    it("names a bad entry of " .. list .. ", and forbids nothing then", function()
      local cases = {}
      for i, entry in ipairs(BAD) do
        cases[i] = { ("{ net = {}, listen = {}, deny = {}, %s = { '10.0.0.2', %q } }"):format(list, entry),
          ("bad option '%s' to 'allow' (entry 2, '%s': "):format(list, entry) }
      end
      raise(cases)
    end)
  end

  it("says how a bad entry is written", function()
    local cases = {}
    for entry, hint in pairs {
      ["10.0.0.1/8"] = "the range is written '10.0.0.0/8', the address without '/8'",
      ["[fd12::1]/8"] = "the range is written '[fd00::]/8', the address without '/8'",
      ["10.0.0.0/08"] = "write '/8' for '/08'",
      ["8080"] = "write ':8080' for a port",
      ["/run/app/x"] = "write 'unix:/run/app/x' for a unix socket",
      ["unix:/*/**"] = "'*' does not cross '/', and '**' does not, either",
      ["::1:80"] = "write '[::1]:80' for the port, or '[::1:80]' for the address",
      ["::1:18080"] = "write '[::1]:18080' for the port",
      ["::1:65536"] = "port 1-65535 expected, got '65536'",
    } do
      cases[#cases + 1] = { ("{ net = { %q } }"):format(entry),
        ("bad option 'net' to 'allow' (entry 1, '%s': %s)"):format(entry, hint) }
    end
    cases[#cases + 1] = { "{ listen = { 8080 } }",
      "bad option 'listen' to 'allow' (string as entry 1 expected, got number; write ':8080' for a port)" }
    cases[#cases + 1] = { "{ listen = { 80.5 } }",
      "bad option 'listen' to 'allow' (string as entry 1 expected, got number)" }
    raise(cases)
  end)

  it("takes private in deny only, alone, in lower case", function()
    local cases = {}
    for _, entry in ipairs { "private", "private:80", "Private", "private.", "PRIVATE:1" } do
      for _, list in ipairs { "net", "listen" } do
        cases[#cases + 1] = { ("{ %s = { %q } }"):format(list, entry), "'private' is for 'deny'" }
      end
      if entry ~= "private" then
        cases[#cases + 1] = { ("{ deny = { %q } }"):format(entry), "'private' stands alone, in lower case" }
      end
    end
    raise(cases)
  end)

  it("takes no names in deny, which is about addresses", function()
    local cases = {}
    local names = { "host", "host.example:80", "*.example.com", "localhost", "Private", "private:22", "*", "*:80" }
    for i, entry in ipairs(names) do
      cases[i] = { ("{ net = {}, deny = { %q } }"):format(entry),
        ("bad option 'deny' to 'allow' (entry 1, '%s': "):format(entry) }
    end
    raise(cases)
  end)

  it("names an entry that is no text", function()
    local cases = {}
    for i, list in ipairs { "net", "listen", "deny" } do
      cases[i] = { ("{ %s = { '10.0.0.1', '\\255' } }"):format(list), ("bad option '%s' to 'allow' ("):format(list),
        "entry 2", "UTF-8" }
    end
    raise(cases)
  end)

  it("takes lists of strings", function()
    local cases = {}
    for _, list in ipairs { "net", "listen", "deny" } do
      for _, value in ipairs { "'*'", "true", "5", "print", "io.stdout", "''" } do
        cases[#cases + 1] = { ("{ %s = %s }"):format(list, value), ("bad option '%s' to 'allow' ("):format(list) }
      end
      for _, entry in ipairs { "5", "80.5", "true", "{}", "print", "io.stdout", "{ 'host' }" } do
        cases[#cases + 1] = { ("{ %s = { '10.0.0.1', %s } }"):format(list, entry),
          ("bad option '%s' to 'allow' (string as entry 2 expected, got "):format(list) }
      end
      for _, value in ipairs { "host = '10.0.0.1'", "[0] = '10.0.0.1'", "'10.0.0.1', nil, '10.0.0.2'",
        "[2] = '10.0.0.1'", "[1.5] = '10.0.0.1'", "'10.0.0.1', n = 1", "[true] = '10.0.0.1'" } do
        cases[#cases + 1] = { ("{ %s = { %s } }"):format(list, value), ("bad option '%s' to 'allow' ("):format(list) }
      end
    end
    raise(cases)
  end)

  it("takes one table of known keys", function()
    raise {
      { "", "bad argument #1 to 'allow' (table expected, got nil)" },
      { "nil", "bad argument #1 to 'allow' (table expected, got nil)" },
      { "'*'", "bad argument #1 to 'allow' (table expected, got string)" },
      { "5", "bad argument #1 to 'allow' (table expected, got number)" },
      { "true", "bad argument #1 to 'allow' (table expected, got boolean)" },
      { "print", "bad argument #1 to 'allow' (table expected, got function)" },
      { "{ net = {} }, { net = {} }", "bad argument #2 to 'allow' (nothing more expected)" },
      { "{ nett = {} }", "bad option 'nett' to 'allow' (did you mean 'net'?)" },
      { "{ Net = {} }", "bad option 'Net' to 'allow' (did you mean 'net'?)" },
      { "{ lisen = {}, net = {} }", "bad option 'lisen' to 'allow' (did you mean 'listen'?)" },
      { "{ denny = { '127.0.0.1' }, net = {} }", "bad option 'denny' to 'allow' (did you mean 'deny'?)" },
      { "{ file = false, net = {} }", "bad option 'file' to 'allow' (did you mean 'files'?)" },
      { "{ net = {}, xyzzy = 1 }", "bad option 'xyzzy' to 'allow' (unknown; known are deny, files, listen, net)" },
      { "{ '127.0.0.1' }", "bad option '1' to 'allow' (" },
      { "{ net = {}, '127.0.0.1' }", "bad option '1' to 'allow' (" },
    }
  end)

  it("takes a boolean for files", function()
    local cases = {}
    for _, value in ipairs { "0", "''", "'false'", "{}", "print" } do
      cases[#cases + 1] = { ("{ net = {}, files = %s }"):format(value),
        "bad option 'files' to 'allow' (boolean expected, got " }
    end
    raise(cases)
  end)

  it("does not ask metatables", function()
    policy.prints({ "denied", "denied", "reached" }, [[
      local _, port = listen()
      local function liar(list)
        return setmetatable(list, {
          __index = function() return "127.0.0.1" end, __len = function() return 0 end,
          __pairs = function() return function() end end, __ipairs = function() return function() end end,
        })
      end
      tcp.allow { deny = liar { "127.0.0.9" } }
      print(reach("connect", "127.0.0.9", port))
      tcp.allow(setmetatable({ deny = liar { "127.0.0.8" } }, { __index = function() return {} end }))
      print(reach("connect", "127.0.0.8", port))
      print(reach("connect", "127.0.0.1", port))
    ]])
  end)

  it("says where it was called", function()
    policy.prints({ "script:2: bad option 'net'", "script:3: bad argument #1" }, [=[
      local text = "local tcp, argument = ...\nif argument.net then tcp.allow(argument) end\ntcp.allow(5)"
      for _, argument in ipairs { { net = { "a:b:c" } }, {} } do
        local _, problem = pcall((loadstring or load)(text, "=script"), tcp, argument)
        print(problem:match("^(.-) to 'allow'"))
      end
    ]=])
  end)
end)
