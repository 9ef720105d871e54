-- Where the plain bytes end and TLS begins, and where its handshake ends and data begins: they share segments.

local tcp = require("tcp.core")
local handshakes = require("support.handshakes")
local support = require("support")
local tasks = require("support.tasks")
local upgrades = require("support.upgrades")

local fails = support.fails
local clean = handshakes.clean
local spawn, trying, succeeds = tasks.spawn, tasks.trying, tasks.succeeds
local CLIENT, SERVER, LARGE, with = upgrades.CLIENT, upgrades.SERVER, upgrades.LARGE, upgrades.with
local is_usable = upgrades.is_usable
local PATIENCE = 10

-- Descriptors are counted before `after_each`.
local function test(name, body)
  it(name, function()
    body()
    clean()
  end)
end

describe("a client's first flight", function()
  after_each(clean)

  for _, place in ipairs(upgrades.places) do
    test("that came in the same segment as the line before it is taken, " .. place.suffix, function()
      -- The client's end is plain: what its TLS says goes through another connection.
      local near, far, near_end = upgrades.through_relay()
      far:close()
      local raw, server = place.pair()
      local asking = trying(near, "start_tls", place.client)
      raw:write("STARTTLS\r\n", near_end:recv())
      assert.equal("STARTTLS", server:read_line())
      assert.is_true(server:buffered() > 100)
      upgrades.carry(raw, near_end)
      upgrades.carry(near_end, raw)
      assert.is_true(rawequal(server, server:start_tls(SERVER)))
      succeeds(asking)
      is_usable(near, server)
    end)
  end

  test("is taken however little of it came with the line", function()
    for _, count in ipairs { 1, 4, 5, 6, 43, 200 } do
      local near, far, near_end = upgrades.through_relay()
      far:close()
      local raw, server = upgrades.tcp.pair()
      local asking = trying(near, "start_tls", CLIENT)
      local hello = near_end:recv()
      raw:write("STARTTLS\r\n", hello:sub(1, count))
      assert.equal("STARTTLS", server:read_line())
      local serving = trying(server, "start_tls", SERVER)
      tcp.sleep(0.001)
      raw:write(hello:sub(count + 1))
      upgrades.carry(raw, near_end)
      upgrades.carry(near_end, raw)
      succeeds(asking)
      succeeds(serving)
      is_usable(near, server)
    end
  end)
end)

describe("data that comes with the last of the handshake", function()
  after_each(clean)

  --- A server's end and its upgrade, for whom the client's last flight is held until `let_go`.
  local function held_back(options)
    local near, far, near_end, far_end = upgrades.through_relay()
    local serving = trying(far, "start_tls", SERVER)
    local asking = trying(near, "start_tls", with(CLIENT, options))
    far_end:write(near_end:recv())
    upgrades.carry(far_end, near_end)
    succeeds(asking)
    local function let_go(count, ending)
      local parts, length = {}, 0
      while length < count do
        parts[#parts + 1] = near_end:recv(65536)
        length = length + #parts[#parts]
      end
      far_end:write(parts)
      if ending then
        ending(far_end)
      end
      return succeeds(serving)
    end
    return near, far, let_go
  end

  test("is not lost: 1 MiB at once", function()
    local near, far, let_go = held_back()
    local sending = spawn(near.write, near, LARGE)
    let_go(#LARGE)
    assert.is_true(far:buffered() > 0)
    assert.is_true(LARGE == far:read(#LARGE))
    sending:join(PATIENCE)
    far:write("thanks\n")
    assert.equal("thanks", near:read_line())
  end)

  test("is not lost if the stream ends there, with TLS's closing alert", function()
    local near, far, let_go = held_back()
    near:write("last words\n", "and more")
    near:shutdown("send")
    let_go(60, function(wire) wire:shutdown("send") end)
    assert.equal("last words", far:read_line())
    assert.equal("and more", far:read_str())
    assert.is_nil((far:recv()))
    far:write("heard\n")
    assert.equal("heard", near:read_line())
  end)

  test("is not lost if the stream is cut off there", function()
    local near, far, let_go = held_back()
    near:write("last words\n", "and more")
    let_go(60, function(wire) wire:shutdown("send") end)
    assert.equal("last words", far:read_line())
    fails("truncated", far:try_read_str())
    assert.equal("and more", far:read(far:buffered()))
    fails("truncated", far:try_read(1))
  end)

  test("is a client's, too, under TLS 1.2", function()
    local near, far, near_end, far_end = upgrades.through_relay()
    local serving = spawn(function()
      far:start_tls(SERVER)
      far:write("220 welcome\r\n")
    end)
    local asking = trying(near, "start_tls", with(CLIENT, { protocols = { "TLSv1.2" } }))
    upgrades.carry(near_end, far_end)
    upgrades.carry(far_end, near_end, function(bytes)
      -- What comes at once arrives at once.
      tcp.sleep(0.02)
      return bytes
    end)
    succeeds(asking)
    serving:join(PATIENCE)
    assert.equal("TLSv1.2", near:protocol())
    assert.equal("220 welcome", near:read_line())
  end)
end)
