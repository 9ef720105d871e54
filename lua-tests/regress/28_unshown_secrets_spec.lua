-- A key in base64 without its BEGIN line was taken for a path, and shown whole in the error.

local tcp = require("tcp.core")
local support = require("support")
local transports = require("support.transports")

it("a key that is no PEM is not shown", function()
  local file = io.open(transports.SERVER.key)
  local lines = file:read("*a"):gsub("%-%-%-%-%-[^\n]*\n", "")
  file:close()
  for _, key in ipairs { lines, (lines:gsub("\n", "")) } do
    local tls = { cert = transports.SERVER.cert, key = key }
    local err = support.fails("tls", tcp.try_listen("127.0.0.1", 0, { tls = tls }))
    assert.equal("key is neither the path of a file nor PEM text (no BEGIN line)", err.message)
  end
end)
