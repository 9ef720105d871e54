-- What specs of start_tls share: plain connections to be upgraded, both sides' upgrade, and what comes of it.

local assert = require("luassert")
local tcp = require("tcp.core")
local handshakes = require("support.handshakes")
local support = require("support")
local tasks = require("support.tasks")
local transports = require("support.transports")

local opens = handshakes.opens

local upgrades = {}

-- How long what has to come may take.
local PATIENCE = 10

--- These options, and some more.
function upgrades.with(options, more)
  local all = {}
  for _, some in ipairs { options, more } do
    for name, value in pairs(some) do
      all[name] = value
    end
  end
  return all
end

--- The options of a client that trusts the tests' authority, and those of a server.
upgrades.CLIENT = transports.CLIENT
upgrades.SERVER = upgrades.with(transports.SERVER, { server = true })

-- 1 MiB of lines that all differ.
local lines = {}
for i = 1, 65536 do
  lines[i] = ("%015d\n"):format(i)
end
upgrades.LARGE = table.concat(lines)

local function place(suffix, where, client)
  local it = { suffix = suffix, client = client }

  --- Both ends of a plain connection: the one that connected, and the one that was accepted.
  function it.pair(connect_options, listen_options)
    local host, port = where()
    local listener = tcp.listen(host, port, listen_options)
    local near = opens(tcp.connect(host, port and listener:local_port(), connect_options))
    local far = opens(listener:accept(PATIENCE))
    listener:close()
    return near, far
  end

  --- The same after their upgrade.
  function it.secured(client_options, server_options)
    local near, far = it.pair()
    local serving = tasks.trying(far, "start_tls", upgrades.with(upgrades.SERVER, server_options or {}))
    near:start_tls(upgrades.with(client, client_options or {}))
    tasks.succeeds(serving)
    return near, far
  end

  return it
end

upgrades.tcp = place("over TCP", function()
  return "127.0.0.1", 0
end, upgrades.CLIENT)

upgrades.unix = place("over a unix socket", function()
  local path = os.tmpname()
  os.remove(path)
  return "unix:" .. path
end, upgrades.with(upgrades.CLIENT, { sni = "localhost" }))

upgrades.places = { upgrades.tcp, upgrades.unix }

--- Asserts that an upgrade has failed like this, and that there is no way back. Gives the error.
function upgrades.failed(kind, conn, value, err)
  support.fails(kind, value, err)
  assert.equal("start_tls", err.op)
  assert.is_nil(err.written)
  upgrades.is_over(conn)
  return err
end

--- Asserts that a connection has been closed, and that nothing can be had of it.
function upgrades.is_over(conn)
  assert.is_true(conn:is_closed(), "it is open")
  assert.equal(0, conn:buffered())
  for _, name in ipairs { "recv", "read_line", "read_str" } do
    support.fails("closed", conn["try_" .. name](conn))
  end
  support.fails("closed", conn:try_start_tls(upgrades.unix.client))
  support.fails("closed", conn:try_peek(1))
  support.fails("closed", conn:try_write("x"))
  for _, name in ipairs { "cipher", "protocol", "alpn", "server_name", "peer_cert", "resumed" } do
    assert.is_nil(conn[name](conn), name)
  end
end

--- The same with a client or server that is told how to: gives its error. `options` are those of the other side's.
function upgrades.fails(kind, conn, options)
  return upgrades.failed(kind, conn, conn:try_start_tls(options))
end

--- Asserts that lines come through both ways.
function upgrades.is_usable(near, far)
  near:write_line("to far")
  far:write_line("to near")
  assert.equal("to far", far:read_line({ timeout = PATIENCE }))
  assert.equal("to near", near:read_line({ timeout = PATIENCE }))
end

--- The first flight of a client that wants these options.
function upgrades.hello(options)
  local near, far = upgrades.tcp.pair()
  near:set_read_timeout(0)
  support.fails("timeout", near:try_start_tls(options or upgrades.CLIENT))
  local hello = far:read(5)
  hello = hello .. far:read(hello:byte(4) * 256 + hello:byte(5))
  near:close()
  far:close()
  return hello
end

--- Carries what the one gives to the other, changed by `change(bytes)`, until it gives nil.
function upgrades.carry(from, to, change)
  return tasks.spawn(function()
    local bytes = from:try_recv(65536)
    while bytes do
      bytes = change and change(bytes) or bytes
      if not to:try_write(bytes) then
        break
      end
      bytes = from:try_recv(65536)
    end
    to:try_shutdown("send")
  end)
end

--- Both ends of a connection through somebody between them, and his two ends: the client's, the server's.
function upgrades.through_relay()
  local near, near_end = upgrades.tcp.pair()
  local far_end, far = upgrades.tcp.pair()
  return near, far, near_end, far_end
end

return upgrades
