local tcp = require("tcp.core")
local shared = require("support.json")
local support = require("support")

local json = tcp.json
local encode, decode = json.encode, json.decode
local fails = support.fails
local assert_same, refuses, malformed = shared.assert_same, shared.refuses, shared.malformed
local generator, random_double, character = shared.generator, shared.random_double, shared.character
local HAS_INTEGERS, NEGATIVE_ZERO = shared.HAS_INTEGERS, shared.NEGATIVE_ZERO
local SMALLEST, LARGEST = shared.SMALLEST, shared.LARGEST

describe("json numbers", function()
  if HAS_INTEGERS then
    it("that are integers of 64 bits are exact, larger ones become floats", function()
      local integers = {
        ["0"] = 0, ["1"] = 1, ["-1"] = -1, ["9007199254740993"] = 9007199254740993,
        ["9223372036854775807"] = math.maxinteger, ["-9223372036854775808"] = math.mininteger,
      }
      for text, value in pairs(integers) do
        assert_same(value, decode(text))
        assert.equal(text, encode(value))
      end
      assert_same(2.0 ^ 63, decode("9223372036854775808"))
      assert_same(-(2.0 ^ 63), decode("-9223372036854775809"))
      assert_same(2.0 ^ 64, decode("18446744073709551615"))
      assert_same(1e40, decode("1" .. ("0"):rep(40)))
    end)

    it("that are floats stay floats", function()
      assert.equal("1.0", encode(1.0))
      assert.equal("-3.0", encode(-3.0))
      for _, text in ipairs { "1.0", "-1.0", "1e0", "1E2", "1.5e+1", "0.0", "-0", "-0.0", "0e5" } do
        assert.equal("float", math.type(decode(text)), text)
        assert_same(decode(text), decode(encode(decode(text))))
      end
      for _, value in ipairs { 1e15, 2.0 ^ 53, 2.0 ^ 63, 1e100, -2.0 ^ 63 } do
        assert_same(value, decode(encode(value)))
      end
    end)
  else
    it("that are whole are written without a fraction", function()
      assert.equal("1", encode(1.0))
      assert.equal("[0,-3,100]", encode({ 0, -3.0, 1e2 }))
      assert.equal("9007199254740992", encode(2 ^ 53))
      assert.equal("-9007199254740992", encode(-2 ^ 53))
      for exponent = 0, 1023 do
        local text = encode(2 ^ exponent)
        assert.is_nil(text:find("%.0+$") or text:find("%.0*e"), text)
        assert.equal(2 ^ exponent, tonumber(text))
      end
      assert.equal(1, decode("1.0"))
      assert.equal("1", encode(decode("1.0")))
    end)

    it("beyond 2^53 are rounded", function()
      assert.equal(2 ^ 53, decode("9007199254740993"))
      assert.equal(2 ^ 53 + 4, decode("9007199254740995"))
      assert.equal(2 ^ 63, decode("9223372036854775807"))
      assert.equal(-2 ^ 63, decode("-9223372036854775808"))
      assert.equal(2 ^ 64, decode("18446744073709551615"))
    end)
  end

  it("keep the sign of zero", function()
    assert.equal(-math.huge, 1 / decode("-0.0"))
    assert.equal(-math.huge, 1 / decode("-0"))
    assert.equal(math.huge, 1 / decode("0"))
    assert.equal(-math.huge, 1 / decode(encode(NEGATIVE_ZERO)))
  end)

  it("are read to the nearest double", function()
    local hard = {
      ["0.1"] = 0.1, ["0.30000000000000004"] = 0.1 + 0.2, ["1e23"] = 1e23, ["5e-324"] = SMALLEST,
      ["2.4703282292062327e-324"] = 0, ["2.4703282292062328e-324"] = SMALLEST, ["1e-400"] = 0,
      ["2.2250738585072011e-308"] = 2.0 ^ -1022 - SMALLEST, ["2.2250738585072014e-308"] = 2.0 ^ -1022,
      ["1.7976931348623157e308"] = LARGEST, ["1.7976931348623158e308"] = LARGEST,
      ["9007199254740993.0"] = 2.0 ^ 53, ["9007199254740993.00000000000000000001"] = 2.0 ^ 53 + 2,
      ["0.500000000000000166533453693773481063544750213623046875"] = 0.5 + 2.0 ^ -52,
    }
    for text, value in pairs(hard) do
      assert.equal(value, decode(text), text)
      assert.equal(-value, decode("-" .. text), text)
    end
    assert.equal(1, decode("0." .. ("9"):rep(400)))
    assert.equal(1, decode("0." .. ("0"):rep(399) .. "1e400"))
  end)

  it("with random digits are read as Lua reads them", function()
    local random = generator(11)
    for _ = 1, 2000 do
      local digits = {}
      for i = 1, random(25) do
        digits[i] = random(10) - 1
      end
      local text = ("%d.%se%d"):format(random(10) - 1, table.concat(digits), random(630) - 330)
      assert.equal(tonumber(text), decode(text), text)
    end
  end)

  it("are written so that they read back the same", function()
    local random = generator(7)
    local numbers = {
      0, 1, -1, 0.1, 1 / 3, 1e15, 1e16, 1e17, 1e21, 1e22, 1e23, 123456789012, 2 ^ 31, 2 ^ 32, 2 ^ 53, 2 ^ 53 + 2,
      2 ^ 62, 2 ^ 63, 2 ^ 64, SMALLEST, LARGEST, -LARGEST, 2.0 ^ -1022, 2.0 ^ -1022 - SMALLEST, NEGATIVE_ZERO,
    }
    for _ = 1, 5000 do
      numbers[#numbers + 1] = random_double(random)
      numbers[#numbers + 1] = (random(2147483647) - 1073741824) * 2.0 ^ (random(80) - 60)
    end
    for _, number in ipairs(numbers) do
      local text = encode(number)
      assert_same(number, decode(text), text)
      assert.equal(number, tonumber(text))
    end
    local list = json.array(numbers)
    assert_same(list, decode(encode(list)))
  end)

  it("that are none are refused", function()
    local nan = 0 / 0
    for _, value in ipairs { nan, -nan, math.huge, -math.huge } do
      local err = fails("json", json.try_encode({ list = { 1, value } }))
      assert.matches("is not a JSON number at %$%.list%[2%]$", err.message)
    end
    fails("json", json.try_encode(math.huge))
    refuses("inf is not a JSON number at $", math.huge)
    refuses("-inf is not a JSON number at $.a", { a = -math.huge })
  end)

  it("too large for a double are refused", function()
    for _, text in ipairs { "1e309", "-1e309", "1e400", "1.7976931348623159e308", ("9"):rep(400) } do
      malformed(text)
    end
  end)
end)

describe("json strings", function()
  -- By what is wrong with them.
  local INVALID = {
    ["a lone continuation"] = "\128", ["the last continuation"] = "\191", ["two lone continuations"] = "\128\128",
    ["0xFF"] = "\255", ["0xFE"] = "\254", ["0xFE 0xFF"] = "\254\255",
    ["overlong 2 bytes"] = "\192\128", ["overlong 2 bytes, last"] = "\193\191",
    ["overlong 3 bytes"] = "\224\128\128", ["overlong 3 bytes, last"] = "\224\159\191",
    ["overlong 4 bytes"] = "\240\128\128\128", ["overlong 4 bytes, last"] = "\240\143\191\191",
    ["first surrogate"] = "\237\160\128", ["last surrogate"] = "\237\191\191",
    ["surrogate pair"] = "\237\160\189\237\184\128",
    ["beyond U+10FFFF"] = "\244\144\128\128", ["0xF5"] = "\245\128\128\128",
    ["5 bytes"] = "\248\136\128\128\128", ["6 bytes"] = "\252\132\128\128\128\128",
    ["truncated 2 bytes"] = "\195", ["truncated 3 bytes"] = "\226\130", ["truncated 4 bytes"] = "\240\159\152",
    ["a letter where a continuation belongs"] = "\226\130x", ["a second start"] = "\195\195\169",
    ["Latin-1"] = "caf\233",
  }

  it("have to be UTF-8 to be encoded, in values and keys", function()
    for _, bytes in pairs(INVALID) do
      for _, text in ipairs { bytes, "before" .. bytes, bytes .. "after", ("x"):rep(100) .. bytes .. "after" } do
        refuses("string that is not UTF-8 at $", text)
        refuses("string that is not UTF-8 at $.a[2]", { a = { 1, text } })
        for _, options in ipairs { {}, { pretty = true } } do
          local err = fails("json", json.try_encode({ a = { [text] = 1 } }, options))
          assert.matches("^string that is not UTF%-8 at %$%.a", err.message)
        end
      end
    end
  end)

  it("have to be UTF-8 to be decoded, in values and keys", function()
    for name, bytes in pairs(INVALID) do
      for _, text in ipairs { bytes, "before" .. bytes, bytes .. "after", "\\n" .. bytes, bytes .. "\\n" } do
        for _, document in ipairs { '"%s"', '{"%s":1}', '[1,"%s"]', '{"a":{"b":"%s"}}' } do
          assert.equal("json", malformed(document:format(text)).kind, name)
        end
      end
    end
  end)

  it("keep every character, and are written as they are", function()
    for _, code in ipairs { 0x7F, 0x80, 0xE9, 0x7FF, 0x800, 0x2028, 0x20AC, 0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0xFFFF,
      0x10000, 0x1F600, 0x10FFFF } do
      local text = character(code)
      assert.equal('"' .. text .. '"', encode(text))
      assert.equal(text, decode('"' .. text .. '"'))
      assert.same({ [text] = text }, decode(encode({ [text] = text })))
    end
  end)

  it("have their control characters, quotes and backslashes escaped, and nothing else", function()
    assert.equal('"\\b\\t\\n\\f\\r\\"\\\\"', encode('\b\t\n\f\r"\\'))
    assert.equal('"/<>&\127\'"', encode("/<>&\127'"))
    for code = 0, 127 do
      local byte = string.char(code)
      local text = encode("a" .. byte .. "b")
      assert.is_nil(text:find("%c") and code < 32 or nil, "control character " .. code)
      assert.equal("a" .. byte .. "b", decode(text))
      assert.same({ [byte] = byte }, decode(encode({ [byte] = byte })))
    end
    assert.equal('"\\u0000\\u0001\\u001f"', encode("\0\1\31"))
  end)

  it("may have every escape of JSON", function()
    local escapes = {
      ["\\b\\t\\n\\f\\r\\\"\\\\\\/"] = "\b\t\n\f\r\"\\/",
      ["\\u0000"] = "\0", ["a\\u0000b"] = "a\0b", ["\\u0041\\u00e9\\u00E9"] = "A\195\169\195\169",
      ["\\u20ac"] = "\226\130\172", ["\\ud83d\\ude00"] = "\240\159\152\128", ["\\uD83D\\uDE00!"] = "\240\159\152\128!",
      ["\\ud800\\udc00"] = "\240\144\128\128", ["\\udbff\\udfff"] = "\244\143\191\191", ["\\uffff"] = "\239\191\191",
    }
    for text, value in pairs(escapes) do
      assert.equal(value, decode('"' .. text .. '"'))
      assert.equal(value, next(decode('{"' .. text .. '":1}')))
    end
  end)

  it("may be long", function()
    for _, piece in ipairs { "x", "\n", "\226\130\172", '"' } do
      local text = piece:rep(1000000)
      assert.is_true(decode(encode(text)) == text)
      assert.is_true(next(decode(encode({ [text] = 1 }))) == text)
    end
  end)
end)
