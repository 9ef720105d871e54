-- Which entries let which targets pass. "HOST PORT", where nobody can be reached: only what is denied does not try.

local policy = require("support.policy")

-- Entries of `net`, and targets that pass or are stopped.
local NET = {
  {
    { "*" },
    { "127.0.0.1 80", "8.8.8.8 53", "255.255.255.255 1", "0.0.0.0 1", "::1 80", "[::1] 80", ":: 1", "localhost 80",
      "db.example 65535", "127.1 80", "0x7f000001 80", "2130706433 80", "127.0.0.1. 80", "::ffff:127.0.0.1 80",
      "[fe80::1%lo] 80", "10.0.0.1 0" },
    { "unix:/run/app/x", "unix:x", "unix:*" },
  }, {
    { "*:443" },
    { "127.0.0.1 443", "::1 443", "db.example 443", "127.1 443" },
    { "127.0.0.1 80", "::1 4430", "db.example 44", "db.example 0", "unix:/run/app/x" },
  }, {
    { "db.example" },
    { "db.example 1", "db.example 65535", "DB.Example 5432", "db.example. 5432", "DB.EXAMPLE. 1" },
    { "xdb.example 1", "db.example.org 1", "a.db.example 1", "db 1", "dbxexample 1", "db.exampl 1", "example 1",
      "db.example.. 1", ".db.example 1", "db.example  1", "127.0.0.1 1", "::1 1", "unix:/db.example", "localhost 1",
      "*.example 1", "* 1" },
  }, {
    { "Db.EXAMPLE." },
    { "db.example 1", "DB.example. 1" },
    { "db.example.. 1", "db 1" },
  }, {
    { "db.example:5432" },
    { "db.example 5432", "DB.EXAMPLE. 5432" },
    { "db.example 5433", "db.example 0", "db.example 543", "db.example 54320", "10.0.0.1 5432" },
  }, {
    { "db.example.:5432" },
    { "db.example 5432", "db.example. 5432" },
    { "db.example 1" },
  }, {
    { "localhost" },
    { "localhost 80", "LOCALHOST 80", "localhost. 80" },
    { "127.0.0.1 80", "::1 80", "localhost.localdomain 80", "127.1 80" },
  }, {
    -- The Kelvin sign is a k only for Unicode.
    { "kube.example", "straße.example" },
    { "kube.example 1", "KUBE.example 1", "straße.example 1" },
    { "\226\132\170ube.example 1", "strasse.example 1", "STRASSE.example 1" },
  }, {
    { "xn--bcher-kva.example", "with_line.example", "a-b.example" },
    { "xn--bcher-kva.example 1", "XN--BCHER-KVA.example 1", "with_line.example 1", "a-b.example 1" },
    { "bücher.example 1", "with-line.example 1", "ab.example 1" },
  }, {
    { "*.example.com:443" },
    { "www.example.com 443", "a.b.example.com 443", "WWW.Example.COM. 443", "x_y.example.com 443" },
    { "example.com 443", ".example.com 443", "www.example.com 80", "wwwexample.com 443", "example.com. 443",
      "www.example.com.evil.org 443", "www.example.org 443", "www.example.comm 443", "10.0.0.1 443", "com 443",
      "www.example.com.. 443" },
  }, {
    { "*.com" },
    { "example.com 1", "a.example.com 1" },
    { "com 1", "com. 1", ".com 1", "example.org 1", "examplecom 1" },
  }, {
    -- What has blanks in it is no name: some systems see an address in front of them.
    { "*.example" },
    { "db.example 1" },
    { "127.0.0.1 1", "::1 1", "127.0.0.1 .example 1", "127.0.0.1\t.example 1", "::1%.example 1", "[::1%x.example] 1" },
  }, {
    { "10.0.0.1" },
    { "10.0.0.1 1", "10.0.0.1 65535", "::ffff:10.0.0.1 1", "[::ffff:10.0.0.1] 1", "::FFFF:a00:1 1",
      "0:0:0:0:0:ffff:0a00:0001 1", "[0000:0000:0000:0000:0000:ffff:0a00:0001] 1" },
    { "10.0.0.2 1", "10.0.0.10 1", "1.0.0.1 1", "::10.0.0.1 1", "::ffff:0:10.0.0.1 1", "64:ff9b::10.0.0.1 1",
      "::1 1", "localhost 1", "unix:10.0.0.1" },
  }, {
    -- What the system would take for an address, but is none for the module, is a name.
    { "0.0.0.0/0", "[::]/0" },
    { "127.0.0.1 80", "::1 80", "::ffff:127.0.0.1 80" },
    { "127.1 80", "127.0.1 80", "0x7f000001 80", "0x7f.0.0.1 80", "2130706433 80", "0177.0.0.1 80", "127.0.0.01 80",
      "127.000.000.001 80", "127.0.0.1. 80", "localhost 80", "localhost. 80", "0 80", "１27.0.0.1 80",
      "127。0。0。1 80", "127.0.0.1  80", "\t127.0.0.1 80", "127.0.0.1/8 80", "ip6-localhost 80",
      "unix:/run/app/x" },
  }, {
    { "0.0.0.0/0" },
    { "1.2.3.4 1", "255.255.255.255 1", "0.0.0.0 1", "::ffff:1.2.3.4 1" },
    { ":: 1", "::1 1", "::1.2.3.4 1", "2001:db8::1 1", "db.example 1" },
  }, {
    { "[::]/0" },
    { "::1 1", ":: 1", "2001:db8::1 1", "ffff:: 1", "::1.2.3.4 1" },
    { "1.2.3.4 1", "::ffff:1.2.3.4 1", "[::ffff:102:304] 1", "db.example 1" },
  }, {
    { "10.0.0.0/8:5432" },
    { "10.0.0.0 5432", "10.255.255.255 5432", "::ffff:10.1.2.3 5432" },
    { "9.255.255.255 5432", "11.0.0.0 5432", "10.0.0.1 5433", "db.example 5432", "fd00::1 5432" },
  }, {
    { "10.32.0.0/11", "192.168.4.0/22", "10.0.0.128/25", "10.0.1.6/31", "10.0.2.9/32", "128.0.0.0/1" },
    { "10.32.0.0 1", "10.63.255.255 1", "192.168.4.0 1", "192.168.7.255 1", "10.0.0.128 1", "10.0.0.255 1",
      "10.0.1.6 1", "10.0.1.7 1", "10.0.2.9 1", "128.0.0.0 1", "255.255.255.255 1" },
    { "10.31.255.255 1", "10.64.0.0 1", "10.0.0.127 1", "10.0.1.5 1", "10.0.1.8 1", "10.0.2.8 1", "10.0.2.10 1",
      "127.255.255.255 1", "0.0.0.0 1" },
  }, {
    { "[fd00::]/8" },
    { "fd00:: 1", "[fd12::1] 1", "FDFF::1 1", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 1", "fd00::10.0.0.1 1" },
    { "fc00::1 1", "fe00::1 1", "::fd00 1", "10.0.0.1 1", "fd.example 1" },
  }, {
    { "[2001:db8:8000::]/33", "[2001:db8:0:1::4]/126", "[2001:db8::9]/128", "[fe80::]/10" },
    { "2001:db8:8000:: 1", "2001:DB8:ffff:ffff::1 1", "2001:db8:0:1::7 1", "2001:db8::9 1", "2001:db8:0:0::9 1",
      "febf::1 1", "fe80::1%1 1", "[fe80::1%lo] 1" },
    { "2001:db8:7fff:: 1", "2001:db9:: 1", "2001:db8:0:1::3 1", "2001:db8:0:1::8 1", "2001:db8::8 1", "fec0::1 1" },
  }, {
    { "[fd00::]/8:443", "[::1]:8080" },
    { "fd00::1 443", "[fd00::1] 443", "::1 8080", "0:0:0:0:0:0:0:1 8080", "[0::1] 8080", "::0.0.0.1 8080" },
    { "fd00::1 80", "::1 80", "::1 443", "::2 8080", "127.0.0.1 8080", "localhost 8080" },
  }, {
    { "[::1]" },
    { "::1 1", "[::1] 65535", "0::0001 1", "[::1%lo] 1" },
    { "::2 1", ":: 1", "127.0.0.1 1", "::ffff:127.0.0.1 1", "[::2%lo] 1" },
  }, {
    -- Brackets are needed for a port only.
    { "::1", "fd00::/8", "2001:db8::/32:80" },
    { "::1 1", "fd12::1 1", "2001:db8::1 80" },
    { "::2 1", "fe00:: 1", "2001:db8::1 81" },
  }, {
    -- An entry is the IPv4 address, too.
    { "[::ffff:10.0.0.1]:80" },
    { "10.0.0.1 80", "::ffff:10.0.0.1 80" },
    { "10.0.0.1 81", "10.0.0.2 80", "::10.0.0.1 80" },
  }, {
    { ":8080" },
    { "127.0.0.1 8080", "8.8.8.8 8080", "::1 8080", "[fd00::1] 8080" },
    { "127.0.0.1 80", "::1 8081", "127.0.0.1 0", "unix:/run/app/x" },
  }, {
    -- Ports are taken as Lua's functions take numbers.
    { "127.0.0.1:80", "db.example:0080" },
    { "127.0.0.1 80", "127.0.0.1 0x50", "127.0.0.1 80.0", "127.0.0.1 8e1", "127.0.0.1 0080" },
    { "127.0.0.1 0x51", "127.0.0.1 81.0", "127.0.0.1 8", "127.0.0.1 800", "127.0.0.1 0" },
  }, {
    { "127.0.0.1:65535", "127.0.0.1:1" },
    { "127.0.0.1 65535", "127.0.0.1 1" },
    { "127.0.0.1 0", "127.0.0.1 65534", "127.0.0.1 2" },
  }, {
    { "a.example", "*.b.example:1", "10.0.0.0/8", "unix:/nowhere/*" },
    { "a.example 7", "x.b.example 1", "10.9.8.7 7", "unix:/nowhere/x" },
    { "x.a.example 7", "x.b.example 7", "11.0.0.1 1", "unix:/elsewhere/x" },
  }, {
    {},
    {},
    { "127.0.0.1 80", "::1 80", "localhost 80", "db.example 80", "unix:/run/app/x", "127.1 80", "0.0.0.0 0" },
  },
}

-- Entries of `deny` beside { "*" } in `net`.
local DENY = {
  {
    { "127.0.0.0/8" },
    { "126.255.255.255 80", "128.0.0.0 80", "10.0.0.1 80", "::1 80", "db.example 80" },
    -- Names are looked up first: the system takes all of these for 127.0.0.1.
    { "127.0.0.1 80", "127.255.255.255 80", "::ffff:127.0.0.1 80", "[::ffff:7f00:1] 80", "127.1 80", "0x7f000001 80",
      "2130706433 80", "0177.0.0.1 80", "127.0.0.01 80", "0x7F.1 80", "017700000001 80", "127.000.1 80",
      "localhost 80", "LOCALHOST 80" },
  }, {
    -- Who connects to no address in particular reaches this machine.
    { "127.0.0.0/8", "[::1]" },
    { "10.0.0.1 80" },
    { "0.0.0.0 80", ":: 80", "::ffff:0.0.0.0 80", "0 80", "0x0 80", "[::] 80" },
  }, {
    { "10.0.0.1:80" },
    { "10.0.0.1 81", "10.0.0.2 80", "10.0.0.1 0" },
    { "10.0.0.1 80", "::ffff:10.0.0.1 80", "10.1 80", "0x0a000001 80" },
  }, {
    { ":25" },
    { "10.0.0.1 80", "::1 250", "127.1 24" },
    { "10.0.0.1 25", "::1 25", "127.1 25", "localhost 25" },
  }, {
    { "[fd00::]/8:443", "[::ffff:10.0.0.1]" },
    { "fd00::1 80", "fc00::1 443", "10.0.0.2 1", "::10.0.0.1 1" },
    { "fd00::1 443", "[fdff::] 443", "10.0.0.1 1", "10.1 1", "::ffff:a00:1 1" },
  }, {
    { "0.0.0.0/0" },
    { "::1 1", "2001:db8::1 1" },
    { "10.0.0.1 1", "::ffff:10.0.0.1 1", "localhost 1", "8.8.8.8 1", "10.1 1" },
  }, {
    { "[fe80::]/10" },
    { "fec0::1 1", "127.0.0.1 1" },
    { "fe80::1 1", "[febf::1] 1", "fe80::1%1 1", "[fe80::1%1] 1" },
  }, {
    { "private" },
    { "8.8.8.8 53", "1.1.1.1 1", "9.255.255.255 1", "11.0.0.0 1", "100.63.255.255 1", "100.128.0.0 1", "126.1.1.1 1",
      "128.0.0.1 1", "169.253.255.255 1", "169.255.0.0 1", "172.15.255.255 1", "172.32.0.0 1", "192.167.255.255 1",
      "192.169.0.0 1", "198.17.255.255 1", "198.20.0.0 1", "223.255.255.255 1", "::ffff:8.8.8.8 1",
      "2606:4700:4700::1111 1", "2a00::1 1", "2003::1 1", "2400::1 1", "[64:ff9b::8.8.8.8] 1", "2002:808:808::1 1" },
    { "10.0.0.1 1", "10.255.255.255 1", "172.16.0.0 1", "172.31.255.255 1", "192.168.0.1 1", "192.168.255.255 1",
      "127.0.0.1 1", "127.255.0.1 1", "169.254.169.254 80", "100.64.0.0 1", "100.127.255.255 1", "0.0.0.0 1",
      "0.1.2.3 1", "224.0.0.1 1", "239.255.255.255 1", "255.255.255.255 1", "240.0.0.1 1", "192.0.2.1 1",
      "198.51.100.1 1", "203.0.113.1 1", "198.18.0.0 1", "198.19.255.255 1", "localhost 1", "127.1 1", "10.1 1",
      "0xa9fea9fe 80", "2852039166 80", "3232235521 1" },
  }, {
    { "private" },
    { "2001:4860:4860::8888 1" },
    { "::1 1", ":: 1", "fc00::1 1", "fdff::1 1", "fe80::1 1", "febf::1 1", "ff02::1 1", "2001:db8::1 1",
      "::ffff:127.0.0.1 1", "::ffff:10.0.0.1 1", "[::ffff:c0a8:1] 1", "::ffff:169.254.169.254 80",
      "64:ff9b::10.0.0.1 1", "64:ff9b::7f00:1 1", "2002:7f00:1:: 1", "2002:a00:1::1 1", "2002:c0a8:101:1::1 1",
      "fe80::1%1 1", "2001::1 1", "3fff::1 1", "64:ff9b:1::1 1", "100::1 1", "fec0::1 1", "::10.0.0.1 1", "5f00::1 1" },
  }, {
    { "private", "8.8.8.0/24:53" },
    { "8.8.8.8 80", "8.8.9.8 53" },
    { "10.0.0.1 22", "::1 22", "localhost 22", "8.8.8.8 53" },
  }, {
    {},
    {},
    { "8.8.8.8 80", "127.0.0.1 80", "::1 80", "localhost 80", "2001:4860:4860::8888 1", "unix:/nowhere/x" },
  },
}

--- Each list of entries is a test of its own. UDP sockets do not know unix paths.
local function each(cases, layer_of, operation)
  for _, case in ipairs(cases) do
    local targets = { {}, {} }
    for i = 1, 2 do
      for _, target in ipairs(case[i + 1]) do
        if operation ~= "udp" or not target:find("^unix:") then
          targets[i][#targets[i] + 1] = target
        end
      end
    end
    it("{ " .. table.concat(case[1], ", ") .. " }, among " .. #targets[1] + #targets[2] .. " targets", function()
      if not policy.NOWHERE then
        return pending(policy.NO_NETWORK)
      end
      policy.decides({ layer_of(case[1]) }, targets[1], targets[2], operation)
    end)
  end
end

for _, operation in ipairs { "connect", "udp" } do
  describe("what " .. operation .. " may reach is told by net =", function()
    each(NET, function(entries)
      return { net = entries }
    end, operation)
  end)

  describe("what " .. operation .. " may not reach is told by deny =", function()
    each(DENY, function(entries)
      return { net = { "*" }, deny = entries }
    end, operation)
  end)
end

describe("what may not be reached is told by deny alone =", function()
  each(DENY, function(entries)
    return { deny = entries }
  end, "connect")
end)
