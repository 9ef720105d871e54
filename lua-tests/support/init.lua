-- What most specs need.

local assert = require("luassert")
local tcp = require("tcp.core")
local peers = require("support.peers")

local support = {}

--- Connects to a new peer that plays the given actions. A table without a name in front is for `connect`.
function support.connect_to(first, ...)
  if type(first) == "table" and first[1] == nil then
    local peer = peers.start(...)
    return tcp.connect(peer.host, peer.port, first), peer
  end
  local peer = peers.start(first, ...)
  return tcp.connect(peer.host, peer.port), peer
end

--- Asserts that a `try_` form answered nil and an error object of this kind, and gives the object.
function support.fails(kind, value, err)
  assert.is_nil(value)
  assert.is_true(tcp.is_error(err), "an error object expected, got " .. tostring(err))
  assert.equal(kind, err.kind, tostring(err))
  return err
end

--- Asserts that a call raises a string that ends with `text` after the position of the call.
function support.misuse(text, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok, "misuse was accepted: " .. text)
  assert.equal("string", type(err))
  assert.equal(text, (err:gsub("^[^:]+:%d+: ", "")))
end

--- Iterates over what a `try_` method gives until nil. For Lua 5.1, too, where an iterator may not wait.
function support.each(conn, method)
  return function()
    return (conn[method](conn))
  end
end

return support
