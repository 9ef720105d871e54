-- A colon for the dot of a module's function.

local misuse = require("support.misuse")
local tcp = require("tcp.core")

local case = misuse.case

--- The case of a call that were right with a dot.
local function colon(expected, ...)
  return { case("argument #1", expected .. " expected, got the module; use '.'", tcp, ...) }
end

local HERE = "127.0.0.1"
local ENDPOINT = "Connection, file or function"

local FALLIBLE = {
  connect = colon("string", HERE, 9),
  connect_tls = colon("string", HERE, 9),
  copy = colon(ENDPOINT, print, print),
  listen = colon("string", HERE, 0),
  resolve = colon("string", HERE),
  resolve_all = colon("string", HERE),
  serve = colon("string", HERE, 0, print),
  udp = misuse.join(colon("string"), colon("string", HERE, 9)),
  udp_listen = colon("string", HERE, 0),
  with_timeout = colon("number", 1, print),
}

local PLAIN = {
  allow = colon("table", {}),
  is_error = misuse.join(colon("value", "closed"), colon("value", {})),
  queue = misuse.join(colon("number"), colon("number", 1)),
  run = misuse.join(colon("function"), colon("function", print)),
  send = colon("string", "hello"),
  sleep = colon("number", 1),
  spawn = colon("function", print),
  step = misuse.join(colon("number"), colon("number", 0)),
  traceback = misuse.join(colon("value", "a message"), colon("value", misuse.SAMPLES.thread, "a message")),
  wrap = colon("function", print),
}

-- Those that take nothing, and Lua's own pcall.
local ANY = { now = {}, pcall = {}, pollfd = {}, recv = {}, stdin = {} }

describe("a colon for a dot is told by", function()
  it("every function: each has its cases here", function()
    local names = misuse.names_with_cases(FALLIBLE, PLAIN)
    for name in pairs(ANY) do
      names[#names + 1] = name
    end
    table.sort(names)
    assert.same(misuse.names_of_functions(tcp), names)
  end)

  misuse.each_form(FALLIBLE, PLAIN, function(name, cases)
    it("tcp." .. name, function()
      assert.equal("", misuse.differences(tcp[name], name, cases))
    end)
  end)

  it("tcp.send also when there is a connection", function()
    local listener = tcp.listen(HERE, 0)
    local conn = tcp.connect(HERE, listener:local_port())
    assert.equal("", misuse.differences(tcp.send, "send", PLAIN.send))
    conn:close()
    listener:close()
  end)
end)

describe("the module is a value like any other for", function()
  it("is_error without a kind, and for traceback without a level", function()
    assert.is_false(tcp.is_error(tcp))
    assert.equal(tcp, tcp.traceback(tcp))
    assert.equal(tcp, tcp.traceback(tcp, 1))
  end)
end)
