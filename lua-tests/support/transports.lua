-- What connections run over. Specs that are not about plain sockets as such are run over each of these:
--
--     for _, over in ipairs(transports.all) do
--       describe("reading" .. over.suffix, function()

local tcp = require("tcp.core")
local peers = require("support.peers")

local CERTIFICATES = "build/certificates/"

local transports = {}

--- The path of a certificate of the tests, or with "key" that of its key: tools/certificates.sh tells which there are.
function transports.certificate(name, kind)
  return CERTIFICATES .. name .. "." .. (kind or "pem")
end

--- The TLS options of a client that trusts the tests' authority, and those of a server.
transports.CLIENT = { ca_bundle = transports.certificate("ca") }
transports.SERVER = { cert = transports.certificate("server"), key = transports.certificate("server", "key") }

local function with(options, name, value)
  local all = { [name] = value }
  if type(options) == "table" then
    for key, option in pairs(options) do
      all[key] = option
    end
  elseif options ~= nil then
    all.timeout = options
  end
  return all
end

local function client_options(host, options)
  local tls = transports.CLIENT
  if host:match("^unix:") then
    tls = with(tls, "sni", "localhost")
  end
  return with(options, "tls", tls)
end

-- The module, with TLS for whoever does not ask for anything else.
local over_tls = setmetatable({}, { __index = tcp })

for _, name in ipairs { "connect", "try_connect" } do
  over_tls[name] = function(host, port, options)
    return tcp[name](host, port, client_options(host, options))
  end
end

for _, name in ipairs { "listen", "try_listen" } do
  over_tls[name] = function(host, port, options)
    return tcp[name](host, port, with(options, "tls", transports.SERVER))
  end
end

--- `suffix` goes behind the names of specs. `tcp` is the module, whose connections and listeners use the transport;
-- `start` starts a peer, and `connect_to` also connects to it: a table without a name in front is for `connect`.
local function transport(suffix, module, words)
  local it = { suffix = suffix, tcp = module, is_tls = words ~= nil }

  function it.start(...)
    if words then
      return peers.start(words, ...)
    end
    return peers.start(...)
  end

  function it.connect_to(first, ...)
    if type(first) == "table" and first[1] == nil then
      local peer = it.start(...)
      return module.connect(peer.host, peer.port, first), peer
    end
    local peer = it.start(first, ...)
    return module.connect(peer.host, peer.port), peer
  end

  --- Both ends of a connection, handshake included: the one that connected, and the one that was accepted.
  function it.pair(connect_options, listen_options)
    local listener = module.listen("127.0.0.1", 0, listen_options)
    local far
    local accepting = words and tcp.spawn(function()
      far = listener:accept()
      far:handshake()
    end)
    local near = module.connect("127.0.0.1", listener:local_port(), connect_options)
    if accepting then
      accepting:join()
    else
      far = listener:accept()
    end
    listener:close()
    return near, far
  end

  return it
end

transports.plain = transport("", tcp)
transports.tls = transport(" over TLS", over_tls, { "--tls", "server" })
transports.all = { transports.plain, transports.tls }

--- A listener over TLS, and a plain connection to it.
function transports.plain_client(options)
  local all = { tls = transports.SERVER }
  for name, value in pairs(options or {}) do
    all[name] = value
  end
  local listener = tcp.listen("127.0.0.1", 0, all)
  local client = tcp.connect("127.0.0.1", listener:local_port())
  local conn = listener:accept(10)
  return conn, client, listener
end

--- Closes them all, and waits until nothing is left of them.
function transports.close_all(...)
  for _, it in ipairs { ... } do
    it:close()
  end
  tcp.run()
end

return transports
