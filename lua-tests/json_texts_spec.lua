local tcp = require("tcp.core")
local shared = require("support.json")
local support = require("support")
local transports = require("support.transports")

local json, null = tcp.json, tcp.null
local encode, decode = json.encode, json.decode
local fails = support.fails
local assert_same, refuses, malformed = shared.assert_same, shared.refuses, shared.malformed
local texts, generator, random_double = shared.texts, shared.generator, shared.random_double
local character, HAS_INTEGERS = shared.character, shared.HAS_INTEGERS

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
      assert.matches("json_texts_spec%.lua:" .. line .. "$", err.where)
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

  for _, over in ipairs(transports.all) do
    it("have the rules of packets and documents" .. over.suffix, function()
      local conn = over.connect_to("accept", "echo")
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
  end

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
