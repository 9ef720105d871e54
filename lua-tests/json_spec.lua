local tcp = require("tcp.core")
local support = require("support")

local json, null = tcp.json, tcp.null
local encode, decode = json.encode, json.decode
local fails = support.fails

-- Lua 5.3 and later.
local HAS_INTEGERS = math.type ~= nil
-- Not a literal: on Lua 5.1 that may come out as 0.
local NEGATIVE_ZERO = -1 / math.huge
local SMALLEST, LARGEST = 2.0 ^ -1074, (2 - 2.0 ^ -52) * 2.0 ^ 1023
-- Around the 16 elements or members up to which a container is collected before its table is made.
local SIZES = { 0, 1, 15, 16, 17, 31, 32, 33, 100 }

--- Whether two values are alike: kinds of numbers, signs of zeros and marks of arrays count.
local function same(a, b)
  if type(a) == "number" and type(b) == "number" then
    return a == b and (a ~= 0 or 1 / a == 1 / b) and (not HAS_INTEGERS or math.type(a) == math.type(b))
  elseif type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  elseif getmetatable(a) ~= getmetatable(b) then
    return false
  end
  for key, value in pairs(a) do
    if not same(value, b[key]) then
      return false
    end
  end
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  return true
end

local function assert_same(expected, actual, name)
  assert.is_true(same(expected, actual), name or tostring(expected) .. " expected, got " .. tostring(actual))
end

--- Asserts that a value cannot be encoded, for this reason at this path.
local function refuses(message, value, options)
  local err = fails("json", json.try_encode(value, options))
  assert.equal(message, err.message)
  assert.equal("encode", err.op)
  return err
end

--- Asserts that a text cannot be decoded.
local function malformed(text)
  local err = fails("json", json.try_decode(text))
  assert.equal("decode", err.op)
  assert.is_true(err.data == text, "data of " .. text:sub(1, 50))
  assert.matches("^not JSON: .+ at line %d+ column %d+$", err.message)
  return err
end

--- The numbers of a list as text.
local function texts(count, form)
  local list = {}
  for i = 1, count do
    list[i] = form:gsub("%%", i)
  end
  return list
end

local function array_text(count, element)
  return "[" .. table.concat(texts(count, element or "%"), ",") .. "]"
end

local function object_text(count, value)
  return "{" .. table.concat(texts(count, '"k%":' .. (value or "%")), ",") .. "}"
end

--- Pseudo-random integers 1 to `limit`, the same on every Lua.
local function generator(seed)
  local state = seed
  return function(limit)
    state = state * 16807 % 2147483647
    return state % limit + 1
  end
end

--- A double of any size, subnormals among them.
local function random_double(random)
  local mantissa = random(67108864) * 134217728 + random(134217728)
  local sign = random(2) == 1 and 1 or -1
  return sign * mantissa * 2.0 ^ (random(2045) - 1075)
end

--- The UTF-8 of a code point.
local function character(code)
  local function rest(shift)
    return 128 + math.floor(code / shift) % 64
  end
  if code < 0x80 then
    return string.char(code)
  elseif code < 0x800 then
    return string.char(192 + math.floor(code / 64), rest(1))
  elseif code < 0x10000 then
    return string.char(224 + math.floor(code / 4096), rest(64), rest(1))
  end
  return string.char(240 + math.floor(code / 262144), rest(4096), rest(64), rest(1))
end

describe("json null", function()
  it("is tcp.null and tcp.json.null, a light userdata", function()
    assert.equal("userdata", type(null))
    assert.equal(null, json.null)
    assert.equal(null, decode("null"))
    assert.equal("null", encode(null))
  end)

  it("equals lua-cjson's", function()
    local found, cjson = pcall(require, "cjson")
    if not found then
      return pending("lua-cjson is not installed: luarocks install lua-cjson")
    end
    assert.equal(cjson.null, null)
    assert.equal("[null]", encode({ cjson.null }))
  end)

  it("is what nil encodes as", function()
    assert.equal("null", encode(nil))
    assert.equal("null", encode())
    assert.equal("null", (json.try_encode(nil)))
  end)

  it("keeps its place in arrays and objects", function()
    local text = '[null,{"a":null},null]'
    local value = decode(text)
    assert.equal(3, #value)
    assert.equal(null, value[2].a)
    assert.equal(text, encode(value))
  end)
end)

describe("json arrays and objects", function()
  it("that are empty go back as they came", function()
    for _, text in ipairs { "[]", "{}", "[[],{}]", '{"a":[]}', '{"a":{}}', "[[[]]]" } do
      assert.equal(text, encode(decode(text)))
    end
  end)

  it("are told apart by array_mt, which every decoded array has and no object", function()
    assert.equal("table", type(json.array_mt))
    local value = decode('[{"a":[1]},[]]')
    for _, list in ipairs { value, value[1].a, value[2] } do
      assert.equal(json.array_mt, getmetatable(list))
    end
    assert.is_nil(getmetatable(value[1]))
    assert.equal("[]", encode(setmetatable({}, json.array_mt)))
  end)

  it("are arrays if the keys are 1 to n, in whatever order they were set", function()
    assert.equal('[1,"b",[true]]', encode({ 1, "b", { true } }))
    for _, count in ipairs { 1, 2, 16, 17, 1000 } do
      local backwards, shuffled = {}, {}
      for i = count, 1, -1 do
        backwards[i] = i
        -- 7919 is a prime: every position comes once.
        local position = i * 7919 % count + 1
        shuffled[position] = position
      end
      assert.equal(array_text(count), encode(backwards))
      assert.equal(array_text(count), encode(shuffled))
    end
  end)

  it("are objects if the keys are names, or there is none", function()
    assert.equal("{}", encode({}))
    assert.equal('{"a":1}', encode({ a = 1 }))
    assert.equal('{"":{}}', encode({ [""] = {} }))
    assert.equal('{"1":true}', encode({ ["1"] = true }))
  end)

  it("array and object mark a table, return it, and mark it anew", function()
    local t = {}
    assert.equal(t, json.array(t))
    assert.equal(json.array_mt, getmetatable(t))
    assert.equal("[]", encode(t))
    assert.equal(t, json.object(t))
    assert.equal("{}", encode(t))
    assert.equal("[]", encode(json.array(t)))
    assert.equal("{}", encode(json.object(decode("[]"))))
    assert.equal('[[],{"a":[]}]', encode({ json.array({}), { a = json.array({}) } }))
  end)

  it("array and object leave a table with another metatable alone", function()
    local metatables = {
      {}, { __index = {} }, { __metatable = false }, { __metatable = "locked" }, { __metatable = json.array_mt },
    }
    for _, metatable in ipairs(metatables) do
      for _, name in ipairs { "array", "object" } do
        local t = setmetatable({}, metatable)
        support.misuse(("bad argument #1 to '%s' (the table has a metatable of its own)"):format(name), json[name], t)
        assert.equal(metatable, debug.getmetatable(t))
      end
    end
  end)

  it("object makes names of integer keys, and leaves the table as it is", function()
    local t = json.object { "a", "b", [10] = "c", [-1] = "d", [0] = "e" }
    assert.same({ ["1"] = "a", ["2"] = "b", ["10"] = "c", ["-1"] = "d", ["0"] = "e" }, decode(encode(t)))
    assert.equal("a", t[1])
    assert.is_nil(t["1"])
    assert.same({ ["1"] = "a", name = "b" }, decode(encode(json.object { "a", name = "b" })))
    assert.equal('{"9007199254740992":1}', encode(json.object { [2 ^ 53] = 1 }))
    for _, key in ipairs { 1.5, true, print, {} } do
      fails("json", json.try_encode(json.object { [key] = 1 }))
    end
  end)

  it("have null in holes up to twice the number of elements, and are refused beyond", function()
    assert.equal("[null,1]", encode({ nil, 1 }))
    assert.equal("[1,2,null,null,3]", encode({ 1, 2, [5] = 3 }))
    for _, count in ipairs { 1, 2, 3, 10, 50 } do
      for _, mark in ipairs { function(t) return t end, json.array } do
        local holed = {}
        for i = 1, count - 1 do
          holed[i] = i
        end
        holed[2 * count] = "last"
        local value = decode(encode(mark(holed)))
        assert.equal(2 * count, #value)
        assert.equal(null, value[count])
        assert.equal("last", value[2 * count])
        holed[2 * count], holed[2 * count + 1] = nil, "last"
        local err = fails("json", json.try_encode(mark(holed)))
        assert.equal(("a list of %d elements up to position %d at $"):format(count, 2 * count + 1), err.message)
      end
    end
  end)

  it("of no sensible size are refused without trying", function()
    for _, position in ipairs { 1e6, 2 ^ 31, 2 ^ 32, 2 ^ 53 } do
      fails("json", json.try_encode({ 1, [position] = 2 }))
      fails("json", json.try_encode(json.array { [position] = 2 }))
    end
  end)

  it("with both positions and names are refused", function()
    local message = "a list that has names too at $"
    refuses(message, { 1, a = 1 })
    refuses(message, { a = 1, [3] = 2 })
    refuses(message, { 1, 2, 3, a = 1, b = 2, c = 3, d = 4 })
    refuses(message, { 1, a = 1 }, { pretty = true })
    refuses(message, json.array { 1, a = 1 })
  end)

  it("array means an array: names in it are refused", function()
    refuses("a list that has names too at $", json.array { a = 1 })
    refuses("a list that has names too at $.b", { b = json.array { a = {} } }, { pretty = true })
  end)

  it("with keys that are neither positions nor names are refused", function()
    for _, key in ipairs { 0, -1, 1.5, 1e300, math.huge, true, false, null, {}, print, io.stdout } do
      for _, t in ipairs { { [key] = 1 }, { 1, 2, [key] = 1 }, json.array { [key] = 1 } } do
        fails("json", json.try_encode(t))
        fails("json", json.try_encode(t, { pretty = true }))
      end
    end
  end)

  it("keep every element, however many there are", function()
    for _, count in ipairs(SIZES) do
      local text = array_text(count)
      local list = decode(text)
      assert.equal(count, #list)
      for i = 1, count do
        assert.equal(i, list[i])
      end
      assert.is_nil(list[count + 1])
      assert.equal(text, encode(list))
    end
  end)

  it("keep every member, however many there are", function()
    for _, count in ipairs(SIZES) do
      local object = decode(object_text(count))
      for i = 1, count do
        assert.equal(i, object["k" .. i])
        object["k" .. i] = nil
      end
      assert.is_nil(next(object))
    end
  end)

  it("keep what is nested in them, whatever its size", function()
    for _, outer in ipairs { 1, 15, 16, 17, 33 } do
      for _, inner in ipairs { 0, 15, 16, 17, 33 } do
        local list = array_text(outer, array_text(inner, '"a"'))
        assert.equal(list, encode(decode(list)))
        local mixed = array_text(outer, object_text(inner, "[%,%,{}]"))
        local value = decode(mixed)
        assert.equal(outer, #value)
        for i = 1, outer do
          for j = 1, inner do
            assert.equal(j, value[i]["k" .. j][2])
          end
        end
        assert_same(value, decode(encode(value)))
      end
    end
  end)

  it("may be large", function()
    local count = 100000
    local list = decode(array_text(count))
    assert.equal(count, #list)
    assert.is_true(array_text(count) == encode(list))
    local lists = decode(array_text(count, '[%,"x"]'))
    assert.equal(count, #lists)
    assert.equal(count, lists[count][1])
    local object = decode(object_text(count))
    assert.equal(count, object["k" .. count])
    assert_same(object, decode(encode(object)))
  end)

  it("of duplicate keys take the last", function()
    assert.equal('{"a":3}', encode(decode('{"a":1,"a":2,"a":3}')))
    assert.equal('{"a":null}', encode(decode('{"a":1,"a":null}')))
    assert.equal('{"a":[]}', encode(decode('{"a":{"b":1},"\\u0061":[]}')))
  end)

  it("of duplicate keys take the last wherever the two stand", function()
    for _, count in ipairs { 15, 16, 17, 20, 33, 40 } do
      for first = 1, count, 3 do
        for second = first + 1, count do
          local members = texts(count, '"k%":%')
          members[second] = ('"k%d":"last"'):format(first)
          local object = decode("{" .. table.concat(members, ",") .. "}")
          assert.equal("last", object["k" .. first])
          assert.is_nil(object["k" .. second])
        end
      end
    end
  end)

  it("that appear twice, but not in themselves, are fine", function()
    local shared = { 1 }
    assert.equal("[[1],[1],[[1]]]", encode({ shared, shared, { shared } }))
    assert.equal('{"a":[[1],[1]]}', encode({ a = { shared, shared } }))
  end)

  it("that contain themselves are refused, with the path", function()
    local list = {}
    list[1] = list
    refuses("a table that contains itself at $[1]", list)
    local object = { child = { {} } }
    object.child[2] = { back = object }
    refuses("a table that contains itself at $.child[2].back", object)
    refuses("a table that contains itself at $.child[2].back", object, { pretty = true })
    local marked = json.object { {} }
    marked[1] = marked
    fails("json", json.try_encode(marked))
  end)
end)

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

describe("json nesting", function()
  --- `depth` containers in each other, as the letters of `kinds` say in turn.
  local function nested_text(depth, kinds)
    local opening, closing = {}, {}
    for i = 1, depth do
      local is_list = kinds:sub((i - 1) % #kinds + 1, (i - 1) % #kinds + 1) == "a"
      opening[i] = is_list and "[" or (i < depth and '{"a":' or "{")
      closing[depth + 1 - i] = is_list and "]" or "}"
    end
    return table.concat(opening) .. table.concat(closing)
  end

  local function nested(depth, kinds)
    local value
    for i = depth, 1, -1 do
      if kinds:sub((i - 1) % #kinds + 1, (i - 1) % #kinds + 1) == "a" then
        value = json.array { value }
      else
        value = { a = value }
      end
    end
    return value
  end

  for _, kinds in ipairs { "a", "o", "ao", "oa", "aao" } do
    it(("of 128 levels is accepted, of 129 refused, in both directions (%s)"):format(kinds), function()
      local text = nested_text(128, kinds)
      assert.equal(text, encode(decode(text)))
      assert.equal(text, encode(nested(128, kinds)))
      assert_same(decode(text), decode(encode(nested(128, kinds), { pretty = true })))
      for _, depth in ipairs { 129, 130, 200, 1000 } do
        assert.matches("nesting deeper than 128", malformed(nested_text(depth, kinds)).message)
        local err = fails("json", json.try_encode(nested(depth, kinds)))
        assert.matches("^nesting deeper than 128 at %$[%[%.]", err.message)
        fails("json", json.try_encode(nested(depth, kinds), { pretty = true }))
      end
    end)
  end

  it("does not count what stands beside each other", function()
    local text = "[" .. ("[[[[]]]],"):rep(200) .. "[]]"
    assert.equal(text, encode(decode(text)))
  end)

  it("of 128 levels may have many elements and members on every level", function()
    for _, count in ipairs { 14, 15, 16, 17 } do
      local members = table.concat(texts(count, '"k%":%'), ",")
      local text = ("{" .. members .. ',"n":'):rep(127) .. "{}" .. ("}"):rep(127)
      local value = decode(text)
      assert_same(value, decode(encode(value)))
      text = ("[" .. table.concat(texts(count, "%"), ",") .. ","):rep(127) .. "[]" .. ("]"):rep(127)
      assert.equal(text, encode(decode(text)))
    end
  end)

  it("without end is refused early", function()
    malformed(("["):rep(1000000))
    malformed(('{"a":'):rep(1000000))
  end)
end)

describe("json encode", function()
  it("refuses what JSON has no word for, with its path", function()
    local thread = coroutine.create(function() end)
    for name, value in pairs { ["function"] = print, userdata = io.stdout, thread = thread } do
      refuses(("a %s is not a JSON value at $"):format(name), value)
      refuses(("a %s is not a JSON value at $.a[2]"):format(name), { a = { 1, value } })
      refuses(("a %s is not a JSON value at $.a[2]"):format(name), { a = { 1, value } }, { pretty = true })
      refuses(("a %s as key at $.a"):format(name), { a = { [value] = 1 } })
    end
    refuses("key 1.5 at $[2]", { 1, { [1.5] = 1 } })
    refuses("key true at $", { [true] = 1 })
    refuses("position 0 in a list at $", { [0] = 1 })
  end)

  it("names the path in words, positions and quoted names", function()
    refuses("a function is not a JSON value at $.items[3].name", { items = { {}, {}, { name = print } } })
    local names = {
      name = ".name", snake_case = ".snake_case", a1 = ".a1", ["a b"] = '["a b"]', ["x-y"] = '["x-y"]', [""] = '[""]',
      ["a.b"] = '["a.b"]', ["\195\169"] = '["\195\169"]', ['q"'] = '["q\\""]', ["new\nline"] = '["new\\nline"]',
    }
    for name, part in pairs(names) do
      refuses("a function is not a JSON value at $" .. part, { [name] = print })
      local message = "a function is not a JSON value at $.a" .. part .. "[1]"
      refuses(message, { a = { [name] = { print } } }, { pretty = true })
    end
    refuses('a function is not a JSON value at $["7"][2]', json.object { [7] = { 1, print } })
    refuses("a function is not a JSON value at $[4]", { 1, nil, 3, print })
  end)

  it("tells booleans and strings from each other", function()
    assert.equal('[true,false,"true","null",""]', encode({ true, false, "true", "null", "" }))
  end)

  it("lays out prettily, with keys sorted", function()
    local cases = {
      { 5, "5" }, { "a", '"a"' }, { null, "null" }, { {}, "{}" }, { json.array({}), "[]" },
      { { 1, 2 }, "[\n  1,\n  2\n]" },
      { { a = 1 }, '{\n  "a": 1\n}' },
      { { b = 1, a = 2, B = 3, [""] = 4, ["\195\169"] = 5 },
        '{\n  "": 4,\n  "B": 3,\n  "a": 2,\n  "b": 1,\n  "\195\169": 5\n}' },
      { { {}, json.array({}), { {} } }, "[\n  {},\n  [],\n  [\n    {}\n  ]\n]" },
      { { a = { b = { c = true } } }, '{\n  "a": {\n    "b": {\n      "c": true\n    }\n  }\n}' },
      { { 1, nil, { x = "y" } }, '[\n  1,\n  null,\n  {\n    "x": "y"\n  }\n]' },
      { { nil, { 1 } }, "[\n  null,\n  [\n    1\n  ]\n]" },
      { json.object({ "a", "b" }), '{\n  "1": "a",\n  "2": "b"\n}' },
      { json.object({ [10] = 1, [9] = 2, x = 3 }), '{\n  "10": 1,\n  "9": 2,\n  "x": 3\n}' },
      { { a = "b\nc" }, '{\n  "a": "b\\nc"\n}' },
    }
    for _, case in ipairs(cases) do
      assert.equal(case[2], encode(case[1], { pretty = true }))
    end
  end)

  it("sorts the keys of large objects, too", function()
    local object, names = {}, {}
    for i = 1, 1000 do
      names[i] = ("k%04d"):format(i * 7919 % 1000)
      object[names[i]] = true
    end
    table.sort(names)
    local expected = "{\n  \"" .. table.concat(names, '": true,\n  "') .. '": true\n}'
    assert.equal(expected, encode(object, { pretty = true }))
  end)

  it("is compact unless asked", function()
    for _, options in ipairs { {}, { pretty = false } } do
      assert.equal('[1,{"a":[]}]', encode({ 1, { a = json.array({}) } }, options))
    end
    assert.equal("[1,2]", encode({ 1, 2 }, nil))
  end)

  it("leaves a value as it was, also one that it refuses", function()
    local value = { list = { 1, 2 }, object = json.object { 1, 2 }, bad = { print } }
    fails("json", json.try_encode(value))
    assert.same({ list = { 1, 2 }, object = { 1, 2 }, bad = { print } }, value)
    assert.equal("[1]", encode({ 1 }))
  end)
end)

describe("json decode", function()
  it("takes every kind of value as a document, with white space around it", function()
    local documents = {
      ["true"] = true, ["false"] = false, ["null"] = null, ["1"] = 1, ['"a"'] = "a", ['""'] = "",
    }
    for text, value in pairs(documents) do
      assert.equal(value, decode(text))
      assert.equal(value, decode(" \t\r\n" .. text .. "\n\r\t "))
    end
    assert.same({ { a = { true, null } } }, decode(' [ {\n"a" :\t[ true ,\r\nnull ] } ] '))
  end)

  it("refuses everything else", function()
    local texts_that_are_none = {
      -- No document, or more than one.
      "", " ", "\n\t\r ", "1 2", "[1][2]", "{}{}", "null x", '"a""b"', "1\n2", "1,", ",1", "\0", "[1]\0",
      -- Byte order marks, other white space, comments.
      "\239\187\1911", "\239\187\191", "\255\254[\0]\0", "\194\1601", "\v1", "\f1", "// x\n1", "1 // x", "/* x */1",
      "[1 /* x */]", "# x\n1",
      -- Commas and colons.
      "[1,]", "[,1]", "[1,,2]", "[,]", "[1 2]", '{"a":1,}', '{,"a":1}', "{,}", '{"a":1 "b":2}', '{"a" 1}', '{"a"::1}',
      '{"a":}', '{"a"}', '{"a",1}', '["a":1]', "[1;2]",
      -- Names.
      "{a:1}", "{1:2}", "{null:1}", "{'a':1}", "{[]:1}", "{true:1}",
      -- Words.
      "tru", "truee", "nul", "nulL", "True", "TRUE", "Null", "None", "nil", "undefined", "yes", "NaN", "nan",
      "Infinity", "-Infinity", "inf", "-inf", "-NaN",
      -- Numbers.
      "01", "-01", "00", "-", "+1", "--1", "-+1", ".5", "-.5", "1.", "-1.", "1.e5", "1e", "1e+", "1E-", "1e1.5",
      "1.2.3", "0x10", "1_000", "1,000", "1f", "1d", "[01]", '{"a":+1}', "e5", "1 .5",
      -- Strings.
      "'a'", '"a', '"', '"a\\', '"a\\"', '"a\nb"', '"a\tb"', '"a\0b"', '"\31"', '"\\x41"', '"\\\'"', '"\\a"', '"\\v"',
      '"\\0"', '"\\U0041"', "`a`", '"a"b',
      -- Escapes of characters.
      '"\\u"', '"\\u12"', '"\\u123"', '"\\u123g"', '"\\u 123"', '"\\u-123"', '"\\u+123"', '"\\u{41}"',
      '"\\ud800"', '"\\udbff"', '"\\udc00"', '"\\udfff"', '"\\ud800\\u0041"', '"\\ud800\\ud800"', '"\\ud800x"',
      '"\\ud800\\n"', '"\\ude00\\ud83d"', '"\\ud800\\u"', '{"\\ud800":1}', "\\u0041",
      -- Brackets.
      "[", "{", "]", "}", "[1", "[1,", "[[]", '{"a"', '{"a":', '{"a":1', '{"a":1,', "[}", "{]", "[1}", '{"a":1]', "[]]",
      "{}}", "([])", "<a/>", "[\1]",
    }
    for _, text in ipairs(texts_that_are_none) do
      malformed(text)
      malformed(" " .. text .. " ")
    end
  end)

  it("refuses what is malformed deep inside, whatever stands around it", function()
    for _, count in ipairs { 1, 15, 16, 17, 40 } do
      local front = table.concat(texts(count, "%"), ",")
      malformed("[" .. front .. ",]")
      malformed("[" .. front .. ",nul]")
      malformed('{"a":[' .. front .. ",[" .. front .. "}]}")
      malformed("{" .. table.concat(texts(count, '"k%":[%]'), ",") .. ',"last"}')
    end
    assert.equal("[1]", encode(decode("[1]")))
  end)

  it("fails with the text, and a message with line and column", function()
    local places = {
      ["[1 2]"] = { 1, 4 }, ["[\n1,\n  x]"] = { 3, 3 }, ['{"a":\n\n1,}'] = { 3, 3 }, ["nul"] = { 1, 3 },
      ["[1]\n[2]"] = { 2, 1 },
    }
    for text, place in pairs(places) do
      local err = malformed(text)
      assert.matches((" at line %d column %d$"):format(place[1], place[2]), err.message)
      assert.equal("decode: " .. err.message, tostring(err))
      assert.is_nil(err.peer)
    end
    malformed("[" .. ("1,"):rep(1000000) .. "]")
  end)
end)

describe("json encode and decode", function()
  it("raise what their try_ forms return", function()
    local calls = { { "encode", print, "encode: a function is not a JSON value at $" },
      { "decode", "[1,]", "decode: not JSON: trailing comma at line 1 column 4" } }
    for _, call in ipairs(calls) do
      local name, argument, text = call[1], call[2], call[3]
      local line = debug.getinfo(1, "l").currentline + 1
      local ok, err = pcall(function() return (json[name](argument)) end)
      assert.is_false(ok)
      assert.is_true(tcp.is_error(err, "json"))
      assert.matches("json_spec%.lua:" .. line .. "$", err.where)
      assert.equal(err.where .. ": " .. text, tostring(err))
      local returned = fails("json", json["try_" .. name](argument))
      assert.equal(text, tostring(returned))
      assert.equal(err.data, returned.data)
    end
  end)

  it("give one value, in both forms", function()
    for _, name in ipairs { "encode", "try_encode" } do
      assert.equal("[1]", json[name]({ 1 }))
      assert.equal(1, select("#", json[name]({ 1 })))
    end
    for _, name in ipairs { "decode", "try_decode" } do
      assert.is_false(json[name]("false"))
      assert.equal(null, json[name]("null"))
      assert.equal(1, select("#", json[name]("false")))
    end
  end)

  it("are each other's inverse", function()
    local random = generator(20240607)

    local function text()
      local characters = {}
      for i = 1, random(12) - 1 do
        local limits = { 32, 128, 128, 128, 0x800, 0xD800, 0x10000, 0x110000 }
        local code = random(limits[random(#limits)]) - 1
        characters[i] = character((code >= 0xD800 and code <= 0xDFFF) and 0xFFFD or code)
      end
      return table.concat(characters)
    end

    local function integer()
      local whole = random(2097151) * 4294967296 + random(2147483646)
      local choices = { random(1000) - 500, whole, -whole }
      if HAS_INTEGERS then
        choices[4] = random(2147483646) * 4294967296 + whole
        choices[5], choices[6] = math.maxinteger, math.mininteger
      end
      return choices[random(#choices)]
    end

    local value
    local function array(depth)
      local list = json.array({})
      for i = 1, random(20) - 1 do
        list[i] = value(depth - 1)
      end
      return list
    end

    local function object(depth)
      local members = {}
      for _ = 1, random(20) - 1 do
        members[text()] = value(depth - 1)
      end
      return members
    end

    local makers = {
      function() return null end, function() return random(2) == 1 end, integer,
      function() return random_double(random) end, text, text, array, object, array, object,
    }
    function value(depth)
      return makers[random(depth > 0 and #makers or 6)](depth)
    end

    for i = 1, 120 do
      local made = i % 2 == 0 and array(4) or object(4)
      for _, options in ipairs { {}, { pretty = true } } do
        local written = encode(made, options)
        local read = decode(written)
        assert_same(made, read, written)
        assert.is_true(encode(read, { pretty = true }) == encode(made, { pretty = true }), written)
      end
    end
  end)

  it("have the rules of packets and documents", function()
    local conn = support.connect_to("accept", "echo")
    local deep = nil
    for _ = 1, 129 do
      deep = { deep }
    end
    for _, form in ipairs { "json", "json_packet" } do
      local write, read = conn["write_" .. form], conn["read_" .. form]
      local try_write = conn["try_write_" .. form]
      for _, text in ipairs { "[]", "{}", "[null,[[]],{}]", '"\\u0000\195\169"', "-0.0", "null", "false" } do
        write(conn, decode(text))
        assert_same(decode(text), read(conn))
      end
      write(conn, json.object { "a" })
      assert.same({ ["1"] = "a" }, read(conn))
      for message, value in pairs {
        ["nesting deeper than 128"] = deep, ["string that is not UTF%-8 at %$%.a"] = { a = "\255" },
        ["inf is not a JSON number"] = math.huge, ["a list that has names too"] = { 1, a = 2 },
      } do
        local err = fails("json", try_write(conn, value))
        assert.matches("^" .. message, err.message)
        assert.equal("write_" .. form, err.op)
      end
    end
    conn:write_packet(("["):rep(129) .. ("]"):rep(129))
    local err = fails("json", conn:try_read_json_packet())
    assert.matches("nesting deeper than 128", err.message)
    assert.equal(258, #err.data)
    conn:write('{"a":1,"a":2}')
    assert.equal(2, conn:read_json().a)
    conn:close()
  end)

  it("in a recursion without end give an error, not the end of the process", function()
    for _, call in ipairs { 'tcp.json.decode("[1]")', "tcp.json.encode({ 1 })" } do
      local output = support.child(([[
        local tcp = require("tcp.core")
        collectgarbage("stop")
        local function deeper()
          %s
          deeper()
        end
        print(pcall(deeper) == false, tcp.json.encode(tcp.json.decode("[1]")))
      ]]):format(call))
      assert.equal("true\t[1]\n", output, call)
    end
  end)

  it("without enough memory give an error, not the end of the process", function()
    if support.child("", "test -d /proc/self;") ~= "" or support.child("", "ulimit -v 1000000;") ~= "" then
      return pending("the memory of a process can be limited on Linux only")
    end
    local output = support.child([[
      local tcp = require("tcp.core")
      local text = "[" .. ("[1,2,3,4,5,6,7,8,9],"):rep(2000000) .. "1]"
      local ok = pcall(tcp.json.decode, text)
      text = nil
      collectgarbage()
      print(ok, tcp.json.encode(tcp.json.decode("[1]")))
    ]], "ulimit -v 300000;")
    assert.equal("false\t[1]\n", output)
  end)
end)
