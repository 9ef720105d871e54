local tcp = require("tcp.core")
local shared = require("support.json")
local support = require("support")

local json, null = tcp.json, tcp.null
local encode, decode = json.encode, json.decode
local fails = support.fails
local assert_same, refuses, malformed = shared.assert_same, shared.refuses, shared.malformed
local texts, array_text, object_text = shared.texts, shared.array_text, shared.object_text
local SIZES = shared.SIZES

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
    local twice = { 1 }
    assert.equal("[[1],[1],[[1]]]", encode({ twice, twice, { twice } }))
    assert.equal('{"a":[[1],[1]]}', encode({ a = { twice, twice } }))
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
