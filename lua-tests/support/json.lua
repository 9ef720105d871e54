-- What the specs of JSON share.

local assert = require("luassert")
local tcp = require("tcp.core")
local support = require("support")

local json = tcp.json
local fails = support.fails

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

return {
  same = same,
  assert_same = assert_same,
  refuses = refuses,
  malformed = malformed,
  texts = texts,
  array_text = array_text,
  object_text = object_text,
  generator = generator,
  random_double = random_double,
  character = character,
  HAS_INTEGERS = HAS_INTEGERS,
  NEGATIVE_ZERO = NEGATIVE_ZERO,
  SMALLEST = SMALLEST,
  LARGEST = LARGEST,
  SIZES = SIZES,
}
