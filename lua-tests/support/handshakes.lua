-- What specs of TLS handshakes among tasks share: connections whose handshake waits, and what has to be over then.

local assert = require("luassert")
local tcp = require("tcp.core")
local tasks = require("support.tasks")
local transports = require("support.transports")

local spawn = tasks.spawn
local secure = transports.tls.tcp
local HOST, PATIENCE = "127.0.0.1", 10
local counts = debug.getregistry()["tcp.counts"]

local handshakes = {}

local opened = {}

--- Has `clean` close it.
function handshakes.opens(it)
  opened[#opened + 1] = it
  return it
end

--- Ends what a test left, and asserts that nothing is watched or read from.
function handshakes.clean()
  for i = #opened, 1, -1 do
    opened[i]:close()
    opened[i] = nil
  end
  tasks.finish_all()
  collectgarbage()
  collectgarbage()
  local left = counts()
  assert.same({ 0, 0 }, { left.registrations, left.reading })
end

--- The seconds that it took.
function handshakes.timed(fn)
  local began = tcp.now()
  fn()
  return tcp.now() - began
end

--- Asserts that so many seconds lie between these.
function handshakes.between(least, most, seconds)
  assert.is_true(seconds >= least and seconds < most, "took " .. seconds)
end

--- A connection that was accepted, and its client's plain end: what comes of TLS is up to the spec.
function handshakes.accepted(options)
  local listener = handshakes.opens(secure.listen(HOST, 0, options))
  local raw = handshakes.opens(tcp.connect(HOST, listener:local_port()))
  return handshakes.opens(listener:accept(PATIENCE)), raw, listener
end

--- Takes what the one says to the other.
local function pump(source, target)
  local bytes = source:try_recv()
  while bytes and target:try_write(bytes) do
    bytes = source:try_recv()
  end
  target:try_shutdown("send")
end

--- A connection that was accepted; a call that lets its client's bytes come, so that the handshake can go on; and the
-- task that connects, which gives its end.
function handshakes.held_up(options)
  local far, raw = handshakes.accepted(options)
  local between_them = handshakes.opens(tcp.listen(HOST, 0))
  local connecting = spawn(function()
    return handshakes.opens(secure.connect(HOST, between_them:local_port(), { timeout = PATIENCE }))
  end)
  local near = handshakes.opens(between_them:accept(PATIENCE))
  return far, function()
    spawn(pump, near, raw)
    spawn(pump, raw, near)
  end, connecting
end

return handshakes
