#!/usr/bin/env lua
-- JSON against lua-cjson: a 100-byte packet and a 300 KB array of records, both directions, the two modules
-- in turn in one run. Prints the median time of each and the ratio (above 1: tcp is faster).
--
-- Usage: lua bench/json.lua [rounds]

local tcp = require("tcp.core")
local cjson = require("cjson")

local rounds = tonumber(arg and arg[1]) or 15

local packet = '{"command":"update","id":184467,"values":[10,20,30],"ok":true,"name":"sensor-17","ratio":0.25,"x":1}'

local function records()
  local list = {}
  for i = 1, 2000 do
    list[i] = {
      id = i, name = "record number " .. i, price = i * 1.25, active = i % 3 == 0,
      tags = { "red", "green", "blue" }, note = "a \"quoted\" note, line\nbreak", parent = i - 1,
    }
  end
  return tcp.json.encode(list)
end

local function median(list)
  table.sort(list)
  return list[math.floor((#list + 1) / 2)]
end

local function seconds(fn, value, times)
  collectgarbage()
  collectgarbage()
  local began = os.clock()
  for _ = 1, times do
    fn(value)
  end
  return (os.clock() - began) / times
end

local function compare(label, ours, theirs, value_of_ours, value_of_theirs, times)
  local us, them, ratios = {}, {}, {}
  seconds(ours, value_of_ours, times)
  seconds(theirs, value_of_theirs, times)
  for i = 1, rounds do
    us[i] = seconds(ours, value_of_ours, times)
    them[i] = seconds(theirs, value_of_theirs, times)
    ratios[i] = them[i] / us[i]
  end
  local ratio = median(ratios)
  print(("%-28s tcp %9.2f us   cjson %9.2f us   ratio %.2f (%.2f-%.2f)"):format(
    label, median(us) * 1e6, median(them) * 1e6, ratio, ratios[1], ratios[#ratios]))
  return ratio
end

local function both(name, text, times)
  local ours, theirs = tcp.json.decode(text), cjson.decode(text)
  assert(#cjson.encode(theirs) > 0 and tcp.json.encode(ours) ~= "")
  local a = compare("decode " .. name, tcp.json.decode, cjson.decode, text, text, times)
  local b = compare("encode " .. name, tcp.json.encode, cjson.encode, ours, theirs, times)
  return math.min(a, b)
end

local list = records()
print((jit and jit.version or _VERSION) .. (", packet of %d bytes, array of %d bytes"):format(#packet, #list))
local worst = math.min(both("packet", packet, 20000), both("array of records", list, 10))
os.exit(worst > 1 and 0 or 1)
