-- What specs of TLS sessions share: connections of which something was read, and what both ends know of them.

local assert = require("luassert")
local tcp = require("tcp.core")
local certificates = require("support.certificates")
local transports = require("support.transports")

local PATIENCE = 10
local CA = certificates.contents(transports.certificate("ca"))

local sessions = {}

sessions.VERSIONS = { "TLSv1.2", "TLSv1.3" }

local function copy(options, more)
  local all = {}
  for _, some in ipairs { options or {}, more or {} } do
    for name, value in pairs(some) do
      all[name] = value
    end
  end
  return all
end

sessions.copy = copy

local count = 0

--- TLS options of a client under which no session has been met.
function sessions.fresh(more)
  count = count + 1
  return copy({ ca_bundle = ("%s\n# session %d\n"):format(CA, count) }, more)
end

--- The same of a server: what others were given is of no use here.
function sessions.fresh_server(more)
  count = count + 1
  local cert = ("%s\n# session %d\n"):format(certificates.contents(transports.certificate("server")), count)
  return copy({ cert = cert, key = transports.certificate("server", "key") }, more)
end

--- A listener with these options, or some under which no session has been begun.
function sessions.listen(more, port)
  return tcp.listen("127.0.0.1", port or 0, { tls = sessions.fresh_server(more) })
end

--- What a connection says of its session.
function sessions.facts(conn)
  local certificate = conn:peer_cert()
  return {
    resumed = conn:resumed(), alpn = conn:alpn(), cipher = conn:cipher(), protocol = conn:protocol(),
    server_name = conn:server_name(), peer = certificate and certificate.fingerprint,
  }
end

--- Connects, has the server say something and the client answer, and gives what both ends know; or nil and both errors.
function sessions.meet(listener, tls, host)
  local far, far_err
  local serving = tcp.spawn(function()
    local conn = listener:accept(PATIENCE)
    conn:set_timeout(PATIENCE)
    local line
    line, far_err = conn:try_read_line()
    if line then
      far = sessions.facts(conn)
      conn:write_line("hello")
      conn:try_recv()
    end
    conn:close()
  end)
  local conn, err = tcp.try_connect(host or "127.0.0.1", listener:local_port(),
    { timeout = PATIENCE, read_timeout = PATIENCE, family = "ipv4", tls = tls })
  local near, line
  if not conn and not err.stage then
    -- The options cannot be used, and nobody comes.
    serving:cancel()
    tcp.run()
    error(err)
  end
  if conn then
    near = sessions.facts(conn)
    conn:try_write_line("hi")
    line, err = conn:try_read_line()
    conn:close()
  end
  serving:join(PATIENCE)
  tcp.run()
  if not line then
    return nil, err, far_err
  end
  assert.equal("hello", line)
  return near, far
end

--- Whether a session was resumed, on which both ends have to agree.
function sessions.resumes(listener, tls, host)
  local near, far = sessions.meet(listener, tls, host)
  assert(near, tostring(far))
  assert.equal(near.resumed, far.resumed)
  return near.resumed
end

--- Asserts that the second connection resumes the session of the first.
function sessions.begins(listener, tls, host)
  assert.is_false(sessions.resumes(listener, tls, host))
  assert.is_true(sessions.resumes(listener, tls, host))
end

return sessions
