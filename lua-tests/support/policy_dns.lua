-- A name server of the specs' own: a process that answers from a table, and tells every question that reached it.

local support = require("support")
local policy = require("support.policy")
local tcp = require("tcp.core")

local dns = {}

-- `ANSWERS[name]` is a list of lists of addresses: the n-th question of a type is answered with those of the n-th list
-- that are of this type, and every later one with those of the last. Other names do not exist. Names that begin with
-- "late" have to wait for the first question about another one.
local SERVER = [=[
local ANSWERS, ADDRESS = %s, %q
local tcp = require("tcp.core")
local asked = {}

local function bytes(address)
  if not address:find(":") then
    return (address:gsub("(%%d+)%%.?", function(byte) return string.char(tonumber(byte)) end))
  end
  -- Written in full.
  return (address:gsub("(%%x%%x)(%%x%%x):?", function(high, low)
    return string.char(tonumber(high, 16), tonumber(low, 16))
  end))
end

local function short(number)
  return string.char(math.floor(number / 256), number %% 256)
end

local function name_of(question)
  local labels, at = {}, 13
  local length = question:byte(at)
  while length > 0 do
    labels[#labels + 1] = question:sub(at + 1, at + length)
    at = at + length + 1
    length = question:byte(at)
  end
  local kind = question:byte(at + 1) * 256 + question:byte(at + 2)
  return table.concat(labels, "."), kind, question:sub(13, at + 4)
end

-- RFC 1035, section 4; AAAA is RFC 3596.
local LENGTHS = { [1] = 4, [28] = 16 }

local function answer(question)
  local name, kind, section = name_of(question)
  local lists = ANSWERS[name:lower()]
  local key = name:lower() .. kind
  asked[key] = (asked[key] or 0) + 1
  local records, count = "", 0
  for _, address in ipairs(lists and (lists[asked[key]] or lists[#lists]) or {}) do
    local data = bytes(address)
    if #data == LENGTHS[kind] then
      count = count + 1
      records = records .. "\192\12" .. short(kind) .. short(1) .. short(0) .. short(0) .. short(#data) .. data
    end
  end
  local flags = lists and "\133\128" or "\133\131"
  return question:sub(1, 2) .. flags .. short(1) .. short(count) .. short(0) .. short(0) .. section .. records
end

local socket = tcp.udp_listen(ADDRESS, 53)
io.stdout:setvbuf("line")
print("ready")
local held, holds = {}, true
while true do
  local question, host, port = socket:recv_from()
  if question == "end" then
    break
  end
  local name = name_of(question)
  print(name)
  holds = holds and name:find("^late") ~= nil
  held[#held + 1] = function()
    socket:send_to(answer(question), host, port)
  end
  while not holds and held[1] do
    table.remove(held, 1)()
  end
end
]=]

dns.CANNOT = "a name server of one's own needs a mount namespace of its own (root)"

--- Whether there can be one here.
function dns.is_possible()
  return support.succeeds("unshare -m true")
end

-- Specs that run at the same time do not meet.
local function new_address()
  local number = math.floor(tcp.now() * 1e6) % 65536
  return ("127.98.%d.%d"):format(math.floor(number / 256), number % 254 + 1)
end

--- Starts a server with these answers, and calls `use(run, asked)`: `run(script)` is `policy.run` where it is asked,
-- and `asked()`, the last call, gives the names in the questions that had come by then, one for each.
function dns.with_server(answers, use)
  local address = new_address()
  support.with_child(SERVER:format(policy.text(answers), address), function(process)
    assert(process:read("*l") == "ready", "the name server does not start")
    local function asked()
      -- It comes behind all questions.
      local socket = tcp.udp(address, 53)
      socket:send("end")
      socket:close()
      local names = {}
      for name in process:lines() do
        names[#names + 1] = name
      end
      return names
    end
    support.with_nameserver(address, function(prefix)
      use(function(script)
        return policy.run(script, prefix)
      end, asked)
    end)
  end)
end

return dns
