-- A handshake that is cut, or that stalls, at every byte: somebody between the two ends lets only so much of it pass.

local tcp = require("tcp.core")
local certificates = require("support.certificates")
local handshakes = require("support.handshakes")
local tasks = require("support.tasks")
local transports = require("support.transports")
local upgrades = require("support.upgrades")

local clean = handshakes.clean
local spawn, trying, succeeds = tasks.spawn, tasks.trying, tasks.succeeds
local SERVER, with = upgrades.SERVER, upgrades.with

local CA = certificates.contents(transports.certificate("ca"))
local VERSIONS = { "TLSv1.2", "TLSv1.3" }
local AT_ONCE, UNLIMITED = 25, 1e9
-- What a cut may come to, and a stall.
local CUT, STALLED = { closed = true, reset = true }, { timeout = true, closed = true, reset = true }

--- The options of a client that has no session to resume: those are told apart by all its options.
local function fresh(version, number)
  return { ca_bundle = CA .. ("\n"):rep(number), protocols = { version } }
end

--- Carries bytes over until `most` of them have passed, by `pass(bytes)`; then calls `at_the_end`. Gives how many came.
local function carry(from, to, most, at_the_end)
  local passed = 0
  local bytes = from:try_recv()
  while bytes do
    local some = bytes:sub(1, most - passed)
    passed = passed + #some
    if some ~= "" and not to:try_write(some) then
      break
    elseif passed >= most then
      at_the_end()
      return passed
    end
    bytes = from:try_recv()
  end
  to:try_shutdown("send")
  return passed
end

--- One handshake, of which only so many bytes of one side pass. Gives both results and how many passed.
local function attempt(client, server, cut_side, most, is_stall)
  local near, far, near_end, far_end = upgrades.through_relay()
  local function at_the_end()
    if not is_stall then
      near_end:close()
      far_end:close()
    end
  end
  local asking, serving = trying(near, "start_tls", client), trying(far, "start_tls", server)
  local there = spawn(carry, near_end, far_end, cut_side == "client" and most or UNLIMITED, at_the_end)
  local back = spawn(carry, far_end, near_end, cut_side == "server" and most or UNLIMITED, at_the_end)
  local results = { client = asking:join(20), server = serving:join(20) }
  results.client.conn, results.server.conn = near, far
  return results, function()
    for _, conn in ipairs { near, far, near_end, far_end } do
      conn:close()
    end
    return there:join(20), back:join(20)
  end
end

--- What is wrong with a side's result; nil if nothing is.
local function complaint(result, kinds, has_to_fail)
  local err = result.err
  if not err then
    return has_to_fail and "it succeeded" or nil
  elseif not kinds[err.kind] then
    return tostring(err)
  elseif err.stage ~= "handshake" then
    return "stage " .. tostring(err.stage) .. ": " .. tostring(err)
  elseif not result.conn:is_closed() or result.conn:buffered() ~= 0 then
    return "it is open"
  end
end

--- How many bytes of each side's handshake there are at least: signatures vary in length.
local function lengths(version)
  local near, far, near_end, far_end = upgrades.through_relay()
  local asking, serving = trying(near, "start_tls", fresh(version, 1)), trying(far, "start_tls", SERVER)
  local count = { client = 0, server = 0 }
  local carrying = { upgrades.carry(near_end, far_end, function(bytes)
    count.client = count.client + #bytes
    return bytes
  end), upgrades.carry(far_end, near_end, function(bytes)
    -- The tickets of TLS 1.3 come after it.
    if asking:status() == "waiting" then
      count.server = count.server + #bytes
    end
    return bytes
  end) }
  succeeds(asking)
  succeeds(serving)
  for _, task in ipairs(carrying) do
    task:cancel()
  end
  transports.close_all(near, far, near_end, far_end)
  return { client = count.client - 4, server = count.server - 4 }
end

--- Tries every one of them, some at once, and gives the complaints.
local function try_all(list, try)
  local next_one, complaints, workers = 0, {}, {}
  for i = 1, AT_ONCE do
    workers[i] = spawn(function()
      while next_one < #list do
        next_one = next_one + 1
        local at = list[next_one]
        local text = try(at)
        if text then
          complaints[#complaints + 1] = ("at %d: %s"):format(at, text)
        end
      end
    end)
  end
  for _, worker in ipairs(workers) do
    worker:join(60)
  end
  return table.concat(complaints, "\n")
end

local function offsets(most, step)
  local list = {}
  for at = 0, most, step do
    list[#list + 1] = at
  end
  return list
end

for _, version in ipairs(VERSIONS) do
  describe("a handshake of an upgrade, " .. version .. ",", function()
    after_each(clean)

    local length

    before_each(function()
      length = length or lengths(version)
    end)

    for _, side in ipairs { "client", "server" } do
      local other = side == "client" and "server" or "client"

      it("fails at both ends, or at the one that missed something, cut after every byte of the " .. side, function()
        assert.is_true(length[side] > 200, length[side])
        local number = side == "client" and 2 or 3
        assert.equal("", try_all(offsets(length[side], 1), function(at)
          local results, finish = attempt(fresh(version, number), SERVER, side, at)
          local text = complaint(results[other], CUT, true) or complaint(results[side], CUT, false)
          if results[side].value then
            -- It has sent all of its part before it could know.
            results[side].conn:set_read_timeout(5)
            local _, err = results[side].conn:try_read(1)
            text = text or not (err and (CUT[err.kind] or err.kind == "truncated")) and "it reads: " .. tostring(err)
          end
          finish()
          return text or nil
        end))
        clean()
      end)

      it("fails in its time if it stalls after bytes of the " .. side, function()
        local began = tcp.now()
        local short = { handshake_timeout = 0.2 }
        assert.equal("", try_all(offsets(length[side], 11), function(at)
          local client, server = with(fresh(version, 4), short), with(SERVER, short)
          local results, finish = attempt(client, server, side, at, true)
          local text = complaint(results[other], STALLED, true) or complaint(results[side], STALLED, false)
          finish()
          return text
        end))
        assert.is_true(tcp.now() - began < 20)
        clean()
      end)
    end

    it("succeeds in single bytes", function()
      local near, far, near_end, far_end = upgrades.through_relay()
      local function dribble(from, to)
        return spawn(function()
          local bytes = from:try_recv()
          while bytes do
            for i = 1, #bytes do
              to:write(bytes:sub(i, i))
              tcp.sleep(0)
            end
            bytes = from:try_recv()
          end
        end)
      end
      local carrying = { dribble(near_end, far_end), dribble(far_end, near_end) }
      local asking, serving = trying(near, "start_tls", fresh(version, 5)), trying(far, "start_tls", SERVER)
      succeeds(asking)
      succeeds(serving)
      upgrades.is_usable(near, far)
      for _, task in ipairs(carrying) do
        task:cancel()
      end
      transports.close_all(near, far, near_end, far_end)
      clean()
    end)
  end)
end
