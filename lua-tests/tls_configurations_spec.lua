-- The configurations that are kept for sets of options: how many, which ones, and what they cost.

local certificates = require("support.certificates")
local sessions = require("support.sessions")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local certificate, resumes = transports.certificate, sessions.resumes
-- So many are kept.
local KEPT = 64

local listener

--- The n-th of many sets of options, none of which another test has had.
local function sets(name)
  local ca = certificates.contents(certificate("ca")) .. "# " .. name .. "\n"
  return function(i)
    return { ca_bundle = ca, alpn = { "one", ("%s %d"):format(name, i) } }
  end
end

describe("a client's configurations", function()
  before_each(function()
    listener = sessions.listen { alpn = { "one" } }
  end)

  local function test(name, body)
    it(name, function()
      body()
      listener:close()
      tcp.run()
    end)
  end

  test("are kept for the last sets of options, with their sessions", function()
    local set = sets("last")
    for i = 1, 200 do
      assert.is_false(resumes(listener, set(i)))
    end
    for i = 200 - KEPT + 1, 200 do
      assert.is_true(resumes(listener, set(i)), "set " .. i)
    end
    assert.is_false(resumes(listener, set(200 - KEPT)))
    assert.is_false(resumes(listener, set(1)))
  end)

  test("go in the order in which they were used last", function()
    local set = sets("order")
    for i = 1, KEPT do
      resumes(listener, set(i))
    end
    -- The oldest is used again, so that the second oldest goes.
    assert.is_true(resumes(listener, set(1)))
    resumes(listener, set(KEPT + 1))
    assert.is_true(resumes(listener, set(1)))
    assert.is_true(resumes(listener, set(3)))
    assert.is_false(resumes(listener, set(2)))
  end)

  test("take one place for all names, and for connects that fail", function()
    local set = sets("names")
    resumes(listener, set(0))
    for i = 1, 2 * KEPT do
      local options = sessions.copy(set(1), { sni = ("n%d.example"):format(i) })
      assert.equal("certificate", select(2, sessions.meet(listener, options)).kind)
    end
    assert.is_true(resumes(listener, set(0)))
  end)

  test("take no place if they cannot be made", function()
    local set = sets("unusable")
    resumes(listener, set(0))
    for i = 1, 2 * KEPT do
      local _, err = tcp.try_connect("127.0.0.1", listener:local_port(),
        { tls = { ca_bundle = ("-----BEGIN CERTIFICATE-----\n%d\n"):format(i) } })
      assert.equal("tls", err.kind)
    end
    assert.is_true(resumes(listener, set(0)))
  end)

  test("of a set that is dropped serve the connections that were made with it", function()
    local set = sets("in use")
    local far
    local serving = tcp.spawn(function()
      far = listener:accept(10)
      far:write_line(far:read_line())
    end)
    local conn = tcp.connect("127.0.0.1", listener:local_port(), { tls = set(0) })
    for i = 1, 2 * KEPT do
      tcp.try_connect("127.0.0.1", 1, { tls = set(i) })
    end
    conn:write_line("still here")
    assert.equal("still here", conn:read_line({ timeout = 10 }))
    serving:join(10)
    conn:close()
    far:close()
  end)
end)

-- A process of its own: how much memory it has is not for others to say.
local MEMORY = [[
local tcp = require("tcp.core")
local function resident()
  local file = assert(io.open("/proc/self/statm"))
  local pages = file:read("*l"):match("^%%d+ (%%d+)")
  file:close()
  return pages * 4
end
local CA = assert(io.open(%q)):read("*a")
local function use(first, last)
  for i = first, last do
    %s
    if i %% 100 == 0 then collectgarbage() collectgarbage() end
  end
  return resident()
end
local early = use(1, 300)
local late = use(301, %d)
print(late - early)
]]

-- KiB. What one set of options costs, its authority included, is some 10 of them.
local MOST = 2048

local function growth(what, count)
  local output = support.child(MEMORY:format(certificate("ca"), what, count))
  return assert(tonumber(output), output)
end

describe("the memory of a process", function()
  if not support.succeeds("[ -e /proc/self/statm ]") then
    pending("is not told here")
    return
  end

  it("does not grow with the sets of options of its clients", function()
    local kibibytes = growth([[
      tcp.try_connect("127.0.0.1", 1, { tls = { ca_bundle = CA, alpn = { "x" .. i } } })
      tcp.try_connect("127.0.0.1", 1, { tls = { ca_bundle = CA .. i .. "\n" } })
      tcp.try_connect("127.0.0.1", 1, { tls = { ca_bundle = "mozilla", alpn = { "x" .. i } } })
    ]], 2000)
    assert.is_true(kibibytes < MOST, kibibytes .. " KiB")
  end)

  it("does not grow with the sets of options of its listeners", function()
    local server = ("cert = %q, key = %q"):format(certificate("server"), certificate("server", "key"))
    local kibibytes = growth([[
      tcp.listen("127.0.0.1", 0, { tls = { alpn = { "x" .. i }, ]] .. server .. [[ } }):close()
    ]], 2000)
    assert.is_true(kibibytes < MOST, kibibytes .. " KiB")
  end)

  it("does not grow with the names that a client asks for", function()
    local server = ("cert = %q, key = %q"):format(certificate("server"), certificate("server", "key"))
    local kibibytes = growth([[
      listener = listener or tcp.listen("127.0.0.1", 0, { tls = { ]] .. server .. [[ } })
      local serving = tcp.spawn(function()
        local far = listener:accept(10)
        far:write("x")
        far:try_recv()
        far:close()
      end)
      local tls = { verify = false, sni = "n" .. i .. ".example" }
      local conn = tcp.connect("127.0.0.1", listener:local_port(), { tls = tls })
      conn:read(1)
      conn:close()
      serving:join(10)
    ]], 3000)
    assert.is_true(kibibytes < MOST, kibibytes .. " KiB")
  end)
end)
