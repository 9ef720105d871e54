-- What somebody slipped in before an upgrade, in the clear, never looks as if it had come through TLS (CVE-2011-0411).

local tcp = require("tcp.core")
local handshakes = require("support.handshakes")
local support = require("support")
local tasks = require("support.tasks")
local upgrades = require("support.upgrades")

local fails = support.fails
local clean = handshakes.clean
local trying = tasks.trying
local CLIENT, SERVER, with = upgrades.CLIENT, upgrades.SERVER, upgrades.with

-- Descriptors are counted before `after_each`.
local function test(name, body)
  it(name, function()
    body()
    clean()
  end)
end

--- A TLS record (RFC 8446, section 5.1).
local function record(kind, body)
  return string.char(kind, 3, 3, math.floor(#body / 256), #body % 256) .. body
end

--- A message of the handshake (section 4).
local function message(kind, body)
  return record(22, string.char(kind, 0, math.floor(#body / 256), #body % 256) .. body)
end

local RANDOM = ("r"):rep(32)
-- An X25519 key, and that this is TLS 1.3.
local SHARE = "\0\51\0\36\0\29\0\32" .. ("k"):rep(32) .. "\0\43\0\2\3\4"

local FORGED_13 = message(2, "\3\3" .. RANDOM .. "\32" .. ("s"):rep(32) .. "\19\1\0\0\46" .. SHARE)
local FORGED_12 = message(2, "\3\3" .. RANDOM .. "\0\192\43\0")
-- Its random bytes say that it is one (section 4.1.3).
local FORGED_RETRY = message(2, "\3\3\207\33\173\116\229\154\97\17\190\29\140\2\30\101\184\145\194\162"
  .. "\17\22\122\187\140\94\7\158\9\226\200\168\51\156" .. "\0\19\1\0\0\12\0\51\0\2\0\23\0\43\0\2\3\4")

local ALERT = { fatal = record(21, "\2\40"), closing = record(21, "\1\0"), unknown = record(21, "\7\7") }

-- What is slipped in, and never readable.
local INJECTED = {
  ["a line"] = "250 slipped in\r\n",
  ["the end of a line"] = "\r\n",
  ["one byte"] = "x",
  ["a zero"] = "\0",
  ["many lines"] = ("250-slipped in\r\n"):rep(5000),
  ["a whole fatal alert"] = ALERT.fatal,
  ["a closing alert"] = ALERT.closing,
  ["an alert of no known level"] = ALERT.unknown,
  ["an alert and a line"] = ALERT.fatal .. "250 slipped in\r\n",
  ["a closing alert and a line"] = ALERT.closing .. "250 slipped in\r\n",
  ["half a record"] = "\22\3\3\0\32\2\0",
  ["the first byte of a record"] = "\22",
  ["data in a record"] = record(23, "250 slipped in\r\n"),
  ["an empty record of data"] = record(23, ""),
  ["an empty record of a handshake"] = record(22, ""),
  ["a record longer than any may be"] = "\22\3\3\255\255" .. ("x"):rep(100),
  ["a record of no known type"] = record(99, "250 slipped in\r\n"),
  ["the end of a handshake"] = message(20, RANDOM),
  ["a key update"] = message(24, "\0"),
  ["a ticket"] = message(4, ("t"):rep(50)),
  ["a request for a renegotiation"] = message(0, ""),
}

local FROM_SERVERS = {
  ["a forged ServerHello of TLS 1.3"] = FORGED_13,
  ["a forged ServerHello of TLS 1.2"] = FORGED_12,
  ["a forged HelloRetryRequest"] = FORGED_RETRY,
}

-- Where that is another kind than tls: who says goodbye hangs up.
local KINDS = { ["a closing alert"] = "closed", ["a closing alert and a line"] = "closed" }

-- How it comes: with the line before, or after that was read. `say(bytes)` is the other side's.
local WAYS = {
  ["in the segment of the line before"] = function(conn, say, slipped)
    say("220 go\r\n" .. slipped)
    assert.equal("220 go", conn:read_line({ timeout = 10 }))
  end,
  ["in a segment of its own"] = function(conn, say, slipped)
    say("220 go\r\n")
    assert.equal("220 go", conn:read_line({ timeout = 10 }))
    say(slipped)
    -- It has arrived, unread.
    tcp.sleep(0.002)
  end,
  ["and is looked at before the upgrade"] = function(conn, say, slipped)
    say("220 go\r\n" .. slipped)
    assert.equal("220 go", conn:read_line({ timeout = 10 }))
    assert.equal(slipped:sub(1, 1), conn:peek(1))
  end,
}

--- Asserts that the upgrade of `conn` fails although `other` upgrades, too.
local function never_secure(conn, options, other, other_options, kind)
  -- Who waits for the rest of a forged record does not wait for ever.
  local late = { handshake_timeout = 2 }
  local answering = trying(other, "start_tls", with(other_options, late))
  local value, err = conn:try_start_tls(with(options, late))
  upgrades.failed(kind or "tls", conn, value, err)
  assert.equal("handshake", err.stage)
  assert.is_nil(err.data)
  local result = answering:join(10)
  assert.is_nil(result.value)
  upgrades.is_over(other)
end

describe("what was slipped in before a client's upgrade", function()
  after_each(clean)

  for name, slipped in pairs(with(INJECTED, FROM_SERVERS)) do
    for way, arrive in pairs(WAYS) do
      test(("makes it fail: %s, %s"):format(name, way), function()
        local near, far = upgrades.tcp.pair()
        arrive(near, function(bytes) far:write(bytes) end, slipped)
        never_secure(near, CLIENT, far, SERVER, KINDS[name])
      end)
    end
  end

  test("makes it fail over a unix socket", function()
    local near, far = upgrades.unix.pair()
    far:write("220 go\r\n250 slipped in\r\n")
    assert.equal("220 go", near:read_line())
    assert.equal(16, near:buffered())
    never_secure(near, upgrades.unix.client, far, SERVER)
  end)

  test("makes it fail where nothing is verified", function()
    local near, far = upgrades.tcp.pair()
    far:write("220 go\r\n250 slipped in\r\n")
    assert.equal("220 go", near:read_line())
    never_secure(near, { verify = false }, far, SERVER)
  end)

  test("is told apart from a server's refusal by what was read before", function()
    local near, far = upgrades.tcp.pair()
    far:write("220 go\r\n250 slipped in\r\n")
    local before = near:read_line()
    local err = upgrades.fails("tls", near, CLIENT)
    assert.equal("220 go", before)
    assert.equal('the server does not speak TLS here: it sent "250 slipped in"', err.message)
    far:close()
  end)

  test("makes it fail if a read was looking for the end of it", function()
    local near, far = upgrades.tcp.pair()
    far:write("220 go\r\n250 slipped")
    assert.equal("220 go", near:read_line())
    fails("timeout", near:try_read_line({ timeout = 0.01 }))
    fails("timeout", near:try_read_until("250-", { timeout = 0.01 }))
    fails("timeout", near:try_read(100, { timeout = 0.01 }))
    never_secure(near, CLIENT, far, SERVER)
  end)
end)

describe("what was slipped in before a server's upgrade", function()
  after_each(clean)

  for name, slipped in pairs(with(INJECTED, { ["a forged ClientHello"] = false })) do
    for way, arrive in pairs(WAYS) do
      test(("makes it fail: %s, %s"):format(name, way), function()
        local near, far = upgrades.tcp.pair()
        arrive(far, function(bytes) near:write(bytes) end, slipped or upgrades.hello())
        never_secure(far, SERVER, near, CLIENT, KINDS[name])
      end)
    end
  end

  test("makes it fail over a unix socket", function()
    local near, far = upgrades.unix.pair()
    near:write("STARTTLS\r\nMAIL FROM:<>\r\n")
    assert.equal("STARTTLS", far:read_line())
    never_secure(far, SERVER, near, upgrades.unix.client)
  end)
end)

describe("an alert that is only a warning, slipped in before an upgrade,", function()
  after_each(clean)

  -- RFC 5246, section 7.2: it may be passed over. Nothing of it can be read.
  for name, description in pairs { user_canceled = "\90", unrecognized_name = "\112" } do
    test("brings nothing that can be read: " .. name, function()
      for _, is_servers in ipairs { true, false } do
        local near, far = upgrades.tcp.pair()
        local one, other = near, far
        if is_servers then
          one, other = far, near
        end
        other:write("220 go\r\n", record(21, "\1" .. description))
        assert.equal("220 go", one:read_line())
        local answering = trying(other, "start_tls", is_servers and CLIENT or SERVER)
        if one:try_start_tls(is_servers and SERVER or CLIENT) then
          tasks.succeeds(answering)
          assert.equal(0, one:buffered())
          upgrades.is_usable(near, far)
        else
          upgrades.is_over(one)
          answering:join(10)
        end
      end
    end)
  end
end)
