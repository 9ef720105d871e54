-- What specs of misuse are made of: mistakes with arguments and options, and what is to be said about them.

local unpack = table.unpack or unpack
local INF, NAN = math.huge, 0 / 0
-- How Lua names this file in positions: the calls that go wrong are made here.
local SOURCE = debug.getinfo(1, "S").short_src

-- A value of every type, by the name that messages have for it.
local SAMPLES = {
  boolean = true, number = 5, string = "x", table = {}, ["function"] = print, userdata = io.stdout,
  thread = coroutine.create(function() end),
}
local NOT_STRING = "nil boolean table function userdata thread"
local NOT_NUMBER = "nil boolean string table function userdata thread"

--- Words of `list` that are not among `words`.
local function without(list, words)
  return (list:gsub("%a+", function(word)
    return (" " .. words .. " "):find(" " .. word .. " ", 1, true) and "" or word
  end))
end

-- A mistake is a table of a value and what is said about it.

local function of_types(types, expected)
  local mistakes = {}
  for name in types:gmatch("%a+") do
    mistakes[#mistakes + 1] = { value = SAMPLES[name], problem = ("%s expected, got %s"):format(expected, name) }
  end
  return mistakes
end

local function join(...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, entry in ipairs(list) do
      all[#all + 1] = entry
    end
  end
  return all
end

--- Mistakes with whole numbers of at least `least`. `types` are those that are none.
local function size(least, types)
  local mistakes = of_types(types or NOT_NUMBER, "number")
  for _, value in ipairs { 1.5, -0.5, "1.5", NAN, INF, -INF } do
    mistakes[#mistakes + 1] = { value = value, problem = "number has no integer representation" }
  end
  for _, value in ipairs { least - 1, -1, -7, "-7", -1e15 } do
    local problem = ("number of at least %d expected, got %d"):format(least, value)
    mistakes[#mistakes + 1] = { value = value, problem = problem }
  end
  return mistakes
end

--- The same where infinity is no limit.
local function limit(least, types)
  local mistakes = {}
  for _, mistake in ipairs(size(least, types)) do
    if mistake.value ~= INF then
      mistakes[#mistakes + 1] = mistake
    end
  end
  return mistakes
end

local function seconds(types)
  return join(of_types(types or NOT_NUMBER, "number"), {
    { value = -1, problem = "seconds expected, 0 or more, got -1" },
    { value = -0.5, problem = "seconds expected, 0 or more, got -0.5" },
    { value = "-1", problem = "seconds expected, 0 or more, got -1" },
    { value = NAN, problem = "seconds expected, 0 or more, got NaN" },
    { value = -INF, problem = "seconds expected, 0 or more, got -inf" },
  })
end

local function words(expected, types)
  return join(of_types(types or NOT_STRING, "string"), {
    { value = "x", problem = expected .. " expected, got 'x'" },
    { value = "", problem = expected .. " expected, got ''" },
    { value = 5, problem = expected .. " expected, got '5'" },
    { value = "\255", problem = "string is not UTF-8" },
  })
end

local STRING = of_types(NOT_STRING, "string")
local BOOLEAN = of_types("nil number string table function userdata thread", "boolean")

local closed_file = assert(io.tmpfile())
closed_file:close()
local CLOSED_FILE = { { value = closed_file, problem = "open file expected, got a closed one" } }

local KEEPALIVE = join(of_types("nil table function userdata thread", "boolean or number (idle seconds)"),
  of_types("string", "number"), {
    { value = 0, problem = "1 to 32767 seconds expected" },
    { value = 0.5, problem = "1 to 32767 seconds expected" },
    { value = 32768, problem = "1 to 32767 seconds expected" },
    { value = INF, problem = "1 to 32767 seconds expected" },
    { value = -1, problem = "seconds expected, 0 or more, got -1" },
    { value = NAN, problem = "seconds expected, 0 or more, got NaN" },
  })

local OFF_OR_SECONDS = join(of_types("nil boolean table function userdata thread", "false or number (seconds)"),
  seconds("string"))

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

-- A case is a list of arguments, what the message blames, and the problem with it.

local function case(blamed, problem, ...)
  return { blamed = blamed, problem = problem, count = select("#", ...), ... }
end

--- Cases of mistakes at a position, after good arguments.
local function at(position, mistakes, ...)
  local good = { ... }
  assert(#good == position - 1)
  local cases = {}
  for _, mistake in ipairs(mistakes) do
    good[position] = mistake.value
    cases[#cases + 1] = case("argument #" .. position, mistake.problem, unpack(good, 1, position))
  end
  return cases
end

--- Cases of mistakes in a table of options after good arguments. `known` has the mistakes of every option.
local function in_options(known, misspelt, ...)
  local good = { ... }
  local position = #good + 1
  local cases = {}
  local function add(name, problem, options)
    good[position] = options
    cases[#cases + 1] = case(("option '%s'"):format(name), problem, unpack(good, 1, position))
  end
  for _, name in ipairs(sorted_keys(known)) do
    for _, mistake in ipairs(known[name]) do
      if mistake.value ~= nil then
        add(name, mistake.problem, { [name] = mistake.value })
      end
    end
  end
  for wrong, right in pairs(misspelt) do
    add(wrong, ("did you mean '%s'?"):format(right), { [wrong] = known[right][1].value or SAMPLES.table })
  end
  local unknown = "unknown; known are " .. table.concat(sorted_keys(known), ", ")
  for _, name in ipairs { "xyzzy", "", "a rather long name that nobody would take for another" } do
    add(name, unknown, { [name] = 1 })
  end
  for _, key in ipairs { 1, 1.5, true } do
    add(tostring(key), unknown, { [key] = 1 })
  end
  return cases
end

--- Cases of the last table of a read, after good arguments.
local function for_this_call(...)
  return in_options({ timeout = seconds() }, { timout = "timeout", Timeout = "timeout", timeouts = "timeout" }, ...)
end

-- What a read does not take. Its last argument may be a table: then it is for this call.
local READ_NUMBER = without(NOT_NUMBER, "table")
local OPTIONAL_NUMBER = without(NOT_NUMBER, "nil table")
local OPTIONAL_FORMAT = words("'l' or 'L'", without(NOT_STRING, "nil table"))
local OTHER_FORMATS = {
  { value = "*l", problem = "'l' or 'L' expected, got '*l'" },
  { value = "n", problem = "'l' or 'L' expected, got 'n'" },
  { value = "lL", problem = "'l' or 'L' expected, got 'lL'" },
}
local TIME = seconds(without(NOT_NUMBER, "nil"))
local NO_NUMBER_FROM_TABLE = case("argument #1", "number expected, got nil", { timeout = 1 })

--- A value as a script would write it.
local function show(value)
  if type(value) == "string" then
    return ("%q"):format(value)
  elseif type(value) == "table" then
    local key, inner = next(value)
    return key == nil and "{}" or ("{ [%s] = %s }"):format(show(key), show(inner))
  end
  return (tostring(value):gsub(":? .*", ""))
end

--- What a call says that is misuse, without the position, which has to be that of the call.
local function told(fn, ...)
  local line = debug.getinfo(1, "l").currentline + 1
  local ok, err = pcall(fn, ...)
  if ok then
    return "accepted"
  elseif type(err) ~= "string" then
    return "not misuse: " .. tostring(err)
  end
  local position = ("%s:%d: "):format(SOURCE, line)
  if err:sub(1, #position) ~= position then
    return "position " .. position .. " expected in front: " .. err
  end
  return err:sub(#position + 1)
end

--- What is wrong with the answers of a function, or of a method of `self`, to its cases. One line each.
local function differences(fn, name, cases, self)
  local found = {}
  for _, it in ipairs(cases) do
    local expected = ("bad %s to '%s' (%s)"):format(it.blamed, name, it.problem)
    local answer
    if self then
      answer = told(fn, self, unpack(it, 1, it.count))
    else
      answer = told(fn, unpack(it, 1, it.count))
    end
    if answer ~= expected then
      local shown = {}
      for i = 1, it.count do
        shown[i] = show(it[i])
      end
      found[#found + 1] = ("%s(%s): %s\n    instead of %s"):format(name, table.concat(shown, ", "), answer, expected)
    end
  end
  return table.concat(found, "\n")
end

local function names_of_functions(t)
  local names = {}
  for name, value in pairs(t) do
    if type(value) == "function" then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

local function names_with_cases(fallible, plain)
  local names = {}
  for name in pairs(fallible) do
    names[#names + 1] = name
    names[#names + 1] = "try_" .. name
  end
  for name in pairs(plain) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

--- Calls `use(name, cases)` for every function, in both forms where it has two.
local function each_form(fallible, plain, use)
  for _, name in ipairs(names_with_cases(fallible, plain)) do
    use(name, plain[name] or fallible[name] or fallible[name:gsub("^try_", "")])
  end
end

--- What is wrong with the answers of methods that are called with something else before the colon. One line each.
local function wrong_selfs(methods, expected_type, names)
  local found = {}
  local function check(got, name, ...)
    local expected = ("bad self to '%s' (%s expected, got %s; use ':')"):format(name, expected_type, got)
    local answer = told(methods[name], ...)
    if answer ~= expected then
      found[#found + 1] = expected .. " expected, got " .. answer
    end
  end
  for _, name in ipairs(names) do
    check("nil", name)
    for got, value in pairs(SAMPLES) do
      check(got, name, value)
    end
    check("table", name, {})
  end
  return table.concat(found, "\n")
end

return {
  wrong_selfs = wrong_selfs,
  SAMPLES = SAMPLES,
  NOT_STRING = NOT_STRING,
  NOT_NUMBER = NOT_NUMBER,
  without = without,
  of_types = of_types,
  join = join,
  size = size,
  limit = limit,
  seconds = seconds,
  words = words,
  STRING = STRING,
  BOOLEAN = BOOLEAN,
  CLOSED_FILE = CLOSED_FILE,
  KEEPALIVE = KEEPALIVE,
  OFF_OR_SECONDS = OFF_OR_SECONDS,
  sorted_keys = sorted_keys,
  case = case,
  at = at,
  in_options = in_options,
  for_this_call = for_this_call,
  READ_NUMBER = READ_NUMBER,
  OPTIONAL_NUMBER = OPTIONAL_NUMBER,
  OPTIONAL_FORMAT = OPTIONAL_FORMAT,
  OTHER_FORMATS = OTHER_FORMATS,
  TIME = TIME,
  show = show,
  told = told,
  differences = differences,
  names_of_functions = names_of_functions,
  names_with_cases = names_with_cases,
  each_form = each_form,
  NO_NUMBER_FROM_TABLE = NO_NUMBER_FROM_TABLE,
}
