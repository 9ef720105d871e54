-- UDP sockets: how they come about, and their methods, made from Rust's steps.

local core, errors, loop, establish, waiting, connection = ...

local next, pairs, setmetatable, type = next, pairs, setmetatable, type
local raise = errors.raise
local failed, is_taken, wait_in_line = connection.failed, waiting.is_taken, waiting.wait_in_line
local READ, WRITE, READY = waiting.READ, waiting.WRITE, waiting.READY
local cut = core.cut
local PENDING, outcome = core.PENDING, core.outcome

local _ENV = nil -- luacheck: ignore

local methods = {}

for name, step in pairs(core.udp_plain) do
  connection.define_plain(methods, name, step)
end
for name, step in pairs(core.udp_fallible) do
  local define = name == "get_option" and connection.define or connection.define_silent
  define(methods, name, step)
end

local close = methods.close

-- Datagrams that need no wait let the other tasks run after so many.
local SHARE = 64
local spent = 0

local function pass_sometimes()
  spent = spent + 1
  if spent >= SHARE then
    spent = 0
    loop.pass()
  end
end

--- Goes on with a receive that found nothing.
local function settle_receive(name, op, step, self, max, timeout)
  local data, host, port, expiry, has_expiry
  repeat
    local signal, detail = outcome()
    if type(signal) ~= "number" then
      return failed(name, signal, detail)
    elseif not has_expiry then
      expiry, has_expiry = detail, true
    end
    spent = 0
    local ended = wait_in_line(self, expiry, op, READ)
    if ended ~= READY then
      return nil, cut(self, op, ended)
    end
    data, host, port = step(self, max, timeout)
  until data ~= PENDING
  return data, host, port
end

local function receive(name, op, step, self, max, timeout)
  pass_sometimes()
  local data, host, port = step(self, max, timeout, is_taken(self))
  if data == PENDING then
    data, host, port = settle_receive(name, op, step, self, max, timeout)
    waiting.leave_line()
  end
  return data, host, port
end

function methods.recv(self, max, timeout)
  local data, err = receive("recv", "recv", core.udp_recv, self, max, timeout)
  if data == nil then
    return raise(err)
  end
  return data
end

function methods.try_recv(self, max, timeout)
  local data, err = receive("try_recv", "recv", core.udp_recv, self, max, timeout)
  if data == nil then
    return nil, err
  end
  return data
end

function methods.recv_from(self, max, timeout)
  local data, host, port = receive("recv_from", "recv_from", core.udp_recv_from, self, max, timeout)
  if data == nil then
    return raise(host)
  end
  return data, host, port
end

function methods.try_recv_from(self, max, timeout)
  return receive("try_recv_from", "recv_from", core.udp_recv_from, self, max, timeout)
end

-- The look-ups that a socket waits for before it sends.
local look_ups = setmetatable({}, { __mode = "k" })

--- Waits for a look-up, or for the socket to be closed.
local function wait_for_name(self, look_up, expiry, op)
  local all = look_ups[self] or setmetatable({}, { __mode = "k" })
  look_ups[self] = all
  all[look_up] = true
  return wait_in_line(look_up, expiry, op, READ)
end

--- Goes on with a send that has to wait: for its name to be resolved, then for room.
local function settle_send(name, op, step, self, data, host, port)
  local value, look_up, expiry, has_expiry
  repeat
    local signal, detail, more = outcome()
    if type(signal) ~= "number" then
      return failed(name, signal, detail)
    end
    look_up = look_up or more
    local ended
    if signal == READ then
      ended = wait_for_name(self, look_up, detail, op)
    else
      if not has_expiry then
        expiry, has_expiry = detail, true
      end
      ended = wait_in_line(self, expiry, op, WRITE)
    end
    if ended ~= READY then
      local err = cut(signal == READ and look_up or self, op, ended)
      if host ~= nil then
        err.peer = core.peer_name(host, port)
      end
      return nil, err
    elseif look_up then
      value = core.udp_send_on(self, data, look_up)
    else
      value = step(self, data, host, port)
    end
  until value ~= PENDING
  return value
end

local function send(name, op, step, self, data, host, port)
  pass_sometimes()
  local value, err = step(self, data, host, port), nil
  if value == PENDING then
    value, err = settle_send(name, op, step, self, data, host, port)
    waiting.leave_line()
  end
  return value, err
end

local function define_send(name, step)
  local try_name = "try_" .. name

  methods[name] = function(self, data, host, port)
    local value, err = send(name, name, step, self, data, host, port)
    if err ~= nil then
      return raise(err)
    end
    return value
  end

  methods[try_name] = function(self, data, host, port)
    return send(try_name, name, step, self, data, host, port)
  end
end

define_send("send", core.udp_send)
define_send("send_to", core.udp_send_to)

--- Whoever waits for a datagram gets `closed`.
function methods.close(self)
  close(self)
  waiting.dismiss(self)
  for look_up in next, look_ups[self] or {} do
    waiting.dismiss(look_up)
  end
end

return {
  methods = methods,
  close = methods.close,
  install = function(module)
    for _, name in pairs { "udp", "udp_listen" } do
      local begin = core[name]
      local try_name = "try_" .. name

      module[name] = function(host, port, options)
        local socket, err = establish(name, name, begin, core.udp_on, host, port, options)
        if err ~= nil then
          return raise(err)
        end
        return socket
      end

      module[try_name] = function(host, port, options)
        return establish(try_name, name, begin, core.udp_on, host, port, options)
      end
    end
  end,
}
