local tcp = require("tcp.core")
local support = require("support")
local transports = require("support.transports")

local fails = support.fails

local function refused()
  return select(2, tcp.try_connect("127.0.0.1", 1))
end

describe("error objects", function()
  it("are printed as op, peer and message", function()
    assert.equal("connect 127.0.0.1:1: connection refused", tostring(refused()))
    local _, err = tcp.json.try_decode("[")
    assert.equal("decode: not JSON: the text ends within a list at line 1 column 1", tostring(err))
  end)

  it("are concatenated with strings on either side", function()
    local err = refused()
    assert.equal("failed: connect 127.0.0.1:1: connection refused", "failed: " .. err)
    assert.equal("connect 127.0.0.1:1: connection refused!", err .. "!")
    assert.equal(tostring(err) .. tostring(err), err .. err)
  end)

  it("are raised by x, with the position of the script's call, and returned by try_x without", function()
    local line = debug.getinfo(1, "l").currentline + 1
    local ok, err = pcall(function() return (tcp.connect("127.0.0.1", 1)) end)
    assert.is_false(ok)
    assert.equal("refused", err.kind)
    assert.matches("errors_spec%.lua:" .. line .. "$", err.where)
    assert.equal(err.where .. ": connect 127.0.0.1:1: connection refused", tostring(err))
    assert.is_nil(refused().where)
  end)

  it("raised through pcall alone have the position of the pcall", function()
    local line = debug.getinfo(1, "l").currentline + 1
    local _, err = pcall(tcp.connect, "127.0.0.1", 1)
    assert.matches("errors_spec%.lua:" .. line .. "$", err.where)
  end)

  it("pass through pcall, xpcall, coroutines and error unchanged", function()
    local _, first = pcall(tcp.connect, "127.0.0.1", 1)
    local _, again = pcall(error, first)
    assert.equal(first, again)
    local _, handled = xpcall(function() error(first) end, function(err) return err end)
    assert.equal(first, handled)
    local _, resumed = coroutine.resume(coroutine.create(function() error(first, 0) end))
    assert.equal(first, resumed)
  end)

  it("are told from other values by is_error", function()
    local err = refused()
    assert.is_true(tcp.is_error(err))
    assert.is_true(tcp.is_error(err, "refused"))
    assert.is_false(tcp.is_error(err, "timeout"))
    for _, other in ipairs { "refused", 1, {}, { kind = "refused" }, print } do
      assert.is_false(tcp.is_error(other))
      assert.is_false(tcp.is_error(other, "refused"))
    end
    assert.is_false(tcp.is_error(nil))
  end)

  it("is_error knows every documented kind, and no other", function()
    for _, kind in ipairs { "timeout", "resolve", "refused", "unreachable", "closed", "reset", "truncated",
      "certificate", "tls", "json", "too_large", "denied", "address_in_use", "busy", "cancelled", "system" } do
      assert.is_false(tcp.is_error(nil, kind))
    end
    support.misuse("bad argument #2 to 'is_error' (no kind of error is called 'timout'; did you mean 'timeout'?)",
      tcp.is_error, refused(), "timout")
  end)

  it("are taken by traceback as strings are", function()
    local function main()
      tcp.connect("127.0.0.1", 1)
    end
    local ok, text = xpcall(main, tcp.traceback)
    assert.is_false(ok)
    assert.matches("^[^\n]*errors_spec%.lua:%d+: connect 127%.0%.0%.1:1: connection refused\nstack traceback:", text)
    assert.matches("in [^\n]*main", text)
    assert.matches("^plain\nstack traceback:\n[^\n]*errors_spec", tcp.traceback("plain"))
    local t = {}
    assert.equal(t, tcp.traceback(t))
    local thread = coroutine.create(function() end)
    assert.matches("^connect 127", tcp.traceback(thread, refused()))
    assert.is_string(tcp.traceback())
  end)

  for _, over in ipairs(transports.all) do
    it("carry only the fields that apply" .. over.suffix, function()
      local conn = over.connect_to("accept", { "send", "x" }, "close")
      local err = fails("closed", conn:try_read(2))
      assert.equal("read", err.op)
      assert.equal(conn:remote_addr(), err.peer)
      for _, field in ipairs { "data", "written", "stage", "errno", "alert", "task", "where" } do
        assert.is_nil(err[field])
      end
      conn:close()
    end)
  end

  it("of misuse are strings, with the position of the script's call, in both forms", function()
    for _, name in ipairs { "connect", "try_connect" } do
      local line = debug.getinfo(1, "l").currentline + 1
      local ok, err = pcall(function() return (tcp[name]("localhost", 70000)) end)
      assert.is_false(ok)
      assert.matches("errors_spec%.lua:" .. line
        .. ": bad argument #2 to '" .. name .. "' %(port out of range 0%-65535: 70000%)$", err)
    end
  end)
end)

describe("the clock", function()
  it("goes forward, and sleep waits for it", function()
    local began = tcp.now()
    tcp.sleep(0.03)
    assert.is_true(tcp.now() - began >= 0.03)
    tcp.sleep(0)
    assert.is_true(tcp.now() - began < 5)
  end)

  it("takes no time that is not one", function()
    support.misuse("bad argument #1 to 'sleep' (seconds expected, 0 or more, got -1)", tcp.sleep, -1)
    support.misuse("bad argument #1 to 'sleep' (number expected, got nil)", tcp.sleep)
    local ok, err = pcall(tcp.sleep, 0 / 0)
    assert.is_false(ok)
    assert.matches("seconds expected, 0 or more, got %-?nan", err:lower())
  end)
end)
