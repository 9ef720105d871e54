-- What specs of tcp.serve share: servers over each transport and clients of theirs, all of which `clean` closes.

local assert = require("luassert")
local tcp = require("tcp.core")
local transports = require("support.transports")

local serving = {}

-- How long may take what does not wait for a clock.
local PATIENCE = 10
serving.PATIENCE = PATIENCE

local servers, connections, failures = {}, {}, {}

local function note(_, _, traceback)
  failures[#failures + 1] = traceback
end

local function merged(...)
  local all = {}
  for i = 1, select("#", ...) do
    for name, value in pairs((select(i, ...)) or {}) do
      all[name] = value
    end
  end
  return all
end

--- Has `clean` close a server, and a connection or listener.
function serving.opens_server(server)
  servers[#servers + 1] = server
  return server
end

function serving.opens(it)
  connections[#connections + 1] = it
  return it
end

--- A path at which nothing is.
function serving.new_path()
  local path = os.tmpname()
  os.remove(path)
  return path
end

--- `suffix` goes behind the names of specs. Handlers must not fail, unless there is an `on_error`.
local function transport(suffix, fixed)
  local over = { suffix = suffix, is_tls = fixed.server ~= nil, is_unix = fixed.is_unix, server_tls = fixed.server }

  --- Host and port for `tcp.serve`.
  function over.place()
    if over.is_unix then
      return "unix:" .. serving.new_path(), nil
    end
    return "127.0.0.1", 0
  end

  function over.serve(handler, options)
    local host, port = over.place()
    return serving.opens_server(tcp.serve(host, port, handler,
      merged({ on_error = note, tls = fixed.server }, options)))
  end

  --- A client that speaks as the server expects it.
  function over.connect(server, options)
    return serving.opens(tcp.connect(server:local_host(), server:local_port(),
      merged({ timeout = PATIENCE, read_timeout = PATIENCE, tls = fixed.client }, options)))
  end

  --- A client that does not: without TLS.
  function over.connect_plainly(server)
    return serving.opens(tcp.connect(server:local_host(), server:local_port(), { read_timeout = PATIENCE }))
  end

  return over
end

serving.plain = transport("", {})
serving.tls = transport(" over TLS", { server = transports.SERVER, client = transports.CLIENT })
serving.unix = transport(" on a unix path", { is_unix = true })
serving.all = { serving.plain, serving.tls, serving.unix }

--- A handler: answers lines in capitals until the client ends.
function serving.echo(conn)
  local line = conn:try_read_line()
  while line and conn:try_write_line(line:upper()) do
    line = conn:try_read_line()
  end
end

--- Asserts that an echo answers this client.
function serving.is_served(client)
  client:write_line("hello")
  assert.equal("HELLO", client:read_line())
end

--- Lets tasks run until the condition holds.
function serving.wait_until(condition, what)
  local deadline = tcp.now() + PATIENCE
  while not condition() do
    assert(tcp.now() < deadline, what or "it does not come to that")
    tcp.sleep(0.001)
  end
end

--- Asserts that this client's connection has been ended by the server, in whatever way.
function serving.is_ended(client)
  local _, err = client:try_read_str()
  assert(not tcp.is_error(err, "timeout"), "the connection was not ended")
end

--- What handlers failed with that had no `on_error` of the test's.
function serving.failures()
  local all = table.concat(failures, "\n")
  failures = {}
  return all
end

--- A server with so many clients, whose handlers wait: each ends when something is pushed into the gate.
function serving.hold(over, count, options)
  local it = { gate = tcp.queue(), begun = 0, ended = 0, cut = 0, clients = {} }
  it.server = over.serve(function(conn)
    it.begun = it.begun + 1
    local value, err = it.gate:try_pop()
    if value then
      it.ended = it.ended + 1
      conn:write_line("done")
    else
      it.cut, it.err = it.cut + 1, err
    end
  end, options)
  for i = 1, count do
    it.clients[i] = over.connect(it.server)
  end
  serving.wait_until(function() return it.begun == count end)
  return it
end

--- Lets so many of its handlers go on.
function serving.release(it, count)
  for i = 1, count do
    it.gate:push(i)
  end
end

--- A task that closes its server, and has begun to. It gives the number of results, and how many handlers had ended,
-- been cancelled, and were left then.
function serving.closing(it, grace)
  local task = tcp.spawn(function()
    local count = select("#", it.server:close(grace))
    return count, it.ended, it.cut, it.server:connections()
  end)
  serving.wait_until(function() return it.server:is_closed() end)
  return task
end

--- What a task gives, in a table.
function serving.results(task)
  return { task:join(PATIENCE) }
end

--- Asserts that a server is closed and that nothing runs any more.
function serving.is_over(server)
  assert.is_true(server:is_closed())
  assert.equal(0, server:connections())
  tcp.with_timeout(PATIENCE, tcp.run)
end

local function close_all()
  while #servers > 0 do
    table.remove(servers):close(0)
  end
  while #connections > 0 do
    table.remove(connections):close()
  end
  tcp.run()
  return true
end

--- Closes what a test opened, and asserts that nothing is left and that nothing failed behind its back.
function serving.clean()
  assert(tcp.try_with_timeout(PATIENCE, close_all))
  assert.is_false(tcp.step(0), "a task is left")
  assert.equal("", serving.failures())
end

--- A test's body that cleans up before its descriptors are counted.
function serving.cleanly(body)
  return function()
    body()
    serving.clean()
  end
end

return serving
