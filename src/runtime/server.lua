-- Servers: a task that accepts, and a task for each connection.
--
-- A server's `handling` has the contexts of its handlers and of what tells of failures, and `running` is their number;
-- `count` is that of its connections. Who waits for room, or for the end of handlers, is in a list of contexts.

local core, errors, contexts, loop, establish, waiting, tasks, listening, connection = ...

local getmetatable, ipairs, next, rawget, setmetatable, tonumber, tostring, type =
  getmetatable, ipairs, next, rawget, setmetatable, tonumber, tostring, type
local misuse, raise = errors.misuse, errors.raise
local append, wake_all = contexts.append, contexts.wake_all
local enter, park = loop.enter, loop.park
local close_connection = connection.methods.close
local READY, TIMED_OUT = contexts.READY, contexts.TIMED_OUT
local cut, self_name = core.cut, core.self_name

local _ENV = nil -- luacheck: ignore

-- Seconds that `close` lets handlers go on, unless it is told otherwise.
local GRACE = 5

local Server = { __name = "Server" }
local methods = {}
Server.__index = methods

local function check_server(name, self)
  if type(self) ~= "table" or getmetatable(self) ~= Server then
    return misuse(name, "bad self to '", "' (Server expected, got " .. self_name(self) .. "; use ':')")
  end
end

---------------------------------------------------------------------------------------------------------------------
-- Failures

--- Whether a failure says no more than that the client of `conn` has left: it happened on this very connection.
local function has_left(conn, failure)
  local identity = core.has_left(conn)
  return identity ~= nil and failure ~= nil and core.origins[failure] == identity
end

--- What has failed, for who has no `on_error`.
local function report(server, what, failure, conn, traceback)
  if not (conn and has_left(conn, failure)) then
    core.report(("tcp: %s failed: %s"):format(what:format(server.place), traceback))
  end
end

local HANDLER, HANDSHAKE, ACCEPTING = "a handler%s", "a TLS handshake", "accepting"

---------------------------------------------------------------------------------------------------------------------
-- Handlers

local handle, start_accepting

-- Handlers in `close`, of whatever server.
local closing = {}

--- How many handlers of this server are in `close`, of whatever server. One whose wait could not begin is not.
local function count_closing(self)
  local count = 0
  for context in next, closing do
    if context.op == "close" and self.handling[context] then
      count = count + 1
    end
  end
  return count
end

--- Whether a context that is in `close` has nobody to wait for. A handler does not wait for others that are there.
local function is_over(self, context)
  return self.running <= (closing[context] and count_closing(self) or 0)
end

--- Wakes those in `close` whose wait is over, all at once: who goes on first is not in `close` any more.
local function tell_closers(self)
  local context = self.closers.first
  while context do
    local behind = context.behind
    if is_over(self, context) then
      contexts.wake(context)
    end
    context = behind
  end
end

--- The connection is done with.
local function release(server, conn)
  if conn then
    close_connection(conn)
    server.count = server.count - 1
  end
  wake_all(server.room)
  tell_closers(server)
end

--- Has a failure told by `on_error`, or tells of it. Whether the connection is in use still.
local function tell(server, what, failure, conn, traceback)
  if not server.on_error then
    return report(server, what, failure, conn, traceback)
  end
  handle(server, conn, true, server.on_error, failure, conn, traceback)
  return true
end

--- The task that accepts has ended, which it does but when the server is closed: another takes over.
local function accept_again(server, context, traceback)
  if not server.has_closed then
    if traceback then
      tell(server, ACCEPTING, context.failure[1], nil, traceback)
    end
    start_accepting(server, true)
  end
end

--- A task of the server's has ended: its handler, or what tells of its failure.
local function ended(context, traceback)
  local server, conn = context.server, context.conn
  if context == server.acceptor then
    return accept_again(server, context, traceback)
  end
  server.handling[context], closing[context] = nil, nil
  server.running = server.running - 1
  if server.running == 0 then
    -- A table that was large once stays large.
    server.handling = {}
  end
  if traceback and context.tells then
    core.report("tcp: on_error failed: " .. traceback)
  elseif traceback then
    local failure, what = context.failure[1], HANDLER
    if context.shakes_hands then
      traceback, what = errors.text(failure), HANDSHAKE
    end
    if tell(server, what, failure, conn, traceback) then
      return
    end
  end
  return release(server, conn)
end

loop.handler_ended = ended

--- Runs `fn` in a task of the server's; `tells`: of a failure. There are many of these: a context with more than eight
-- fields is twice as large.
function handle(server, conn, tells, fn, ...)
  local context = loop.spawn(fn, false, ...)
  context.server, context.conn, context.tells = server, conn, tells or nil
  server.handling[context], server.running = true, server.running + 1
end

--- The first thing that happens on a connection with TLS.
local function shake_hands(conn, server)
  local context = loop.current
  context.shakes_hands = true
  conn:handshake()
  context.shakes_hands = nil
  return server.call(conn)
end

local function begin(server, conn)
  server.count = server.count + 1
  if conn:is_tls() then
    return handle(server, conn, false, shake_hands, conn, server)
  end
  return handle(server, conn, false, server.call, conn)
end

---------------------------------------------------------------------------------------------------------------------
-- Accepting

--- Waits until a handler has ended.
local function wait_for_room(server)
  local context, at, on_time = enter("accept")
  if context then
    append(context, server.room)
    if server.count < server.limit or server.has_closed then
      return contexts.unlink(context)
    end
    park(context, "accept", at, on_time)
  end
end

--- `pauses`: first, as something has gone wrong.
local function accept_all(server, pauses)
  if pauses then
    waiting.wait_a_little(nil, "accept")
  end
  while not server.has_closed do
    if server.count >= server.limit then
      wait_for_room(server)
    else
      local conn, err = listening.try_accept("accept", "accept", server.listener)
      if conn ~= nil then
        begin(server, conn)
      elseif not server.has_closed then
        tell(server, ACCEPTING, err, nil, tostring(err))
        waiting.wait_a_little(nil, "accept")
      end
    end
  end
end

function start_accepting(server, pauses)
  local context = loop.spawn(accept_all, false, server, pauses)
  context.server, server.acceptor = server, context
end

--- `script.lua:12`, in front of it a blank and around it brackets; nothing if it is not known.
local function place_of(handler)
  local place = loop.place_of(handler)
  return place and (" (%s)"):format(place) or ""
end

local function serve(name, host, port, handler, options)
  local listener, err = establish(name, "serve", core.serve, core.listen_on, host, port, handler, options)
  if err ~= nil then
    return nil, err
  end
  local server = setmetatable({
    listener = listener, handler = handler, call = tasks.function_of(name, 3, handler), place = place_of(handler),
    handling = {}, running = 0, count = 0,
    limit = options and tonumber(rawget(options, "max_connections")) or 1 / 0,
    on_error = options and rawget(options, "on_error") or nil, room = {}, closers = {},
  }, Server)
  start_accepting(server)
  return server
end

---------------------------------------------------------------------------------------------------------------------
-- Closing

local function stop_accepting(self)
  self.has_closed = true
  local acceptor = self.acceptor
  if loop.current ~= acceptor and not acceptor.is_ended then
    loop.finish(acceptor, true)
    loop.forget_ended()
  end
  listening.close(self.listener)
end

--- Cancels the handlers that still run; `spares`: not those in `close`.
local function cancel_all(self, spares)
  for context in next, self.handling do
    if not (spares and closing[context]) then
      tasks.cancel(context)
    end
  end
end

--- Waits until none of the others runs. After `expiry`, or if this itself is cut, they are cancelled.
local function wait_for_handlers(self, expiry, is_handler)
  while not is_over(self, loop.context()) do
    local context, outcome, on_time = enter("close", expiry)
    if context then
      append(context, self.closers)
      outcome = park(context, "close", outcome, on_time)
    end
    if outcome == READY then
      return
    end
    cancel_all(self, is_handler)
    if outcome ~= TIMED_OUT then
      return cut(nil, "close", outcome)
    end
    expiry = nil
  end
end

function methods.close(self, grace)
  check_server("close", self)
  local expiry = waiting.expiry_of("close", 1, grace == nil and GRACE or grace)
  if not self.has_closed then
    stop_accepting(self)
  end
  local context = loop.context()
  local own = context.server
  if own then
    closing[context] = true
    context.op = "close"
    tell_closers(own)
  end
  local err = wait_for_handlers(self, expiry, own ~= nil)
  closing[context] = nil
  if err then
    return raise(err)
  end
end

function Server:__close()
  methods.close(self)
end

---------------------------------------------------------------------------------------------------------------------
-- State

--- How many connections are being handled.
function methods.connections(self)
  check_server("connections", self)
  return self.count
end

function methods.is_closed(self)
  check_server("is_closed", self)
  return self.has_closed == true
end

for _, name in ipairs { "addr", "local_addr", "local_host", "local_port" } do
  methods[name] = function(self)
    check_server(name, self)
    local listener = self.listener
    return listener[name](listener)
  end
end

function Server:__tostring()
  return (tostring(self.listener):gsub("^Listener", "Server"))
end

return {
  install = function(module)
    function module.serve(host, port, handler, options)
      local server, err = serve("serve", host, port, handler, options)
      if err ~= nil then
        return raise(err)
      end
      return server
    end

    function module.try_serve(host, port, handler, options)
      return serve("try_serve", host, port, handler, options)
    end
  end,
}
