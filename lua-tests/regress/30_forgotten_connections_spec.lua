-- Connections over TLS that nobody closed kept every task waiting when they were collected, a quarter of a second each.

local tcp = require("tcp.core")
local transports = require("support.transports")

it("forgotten connections keep nobody waiting for long, however many they are", function()
  local over = transports.tls
  local pairs_of = {}
  for i = 1, 12 do
    local far, near = over.pair(nil, { write_timeout = 0.001 })
    near:set_option("send_buffer", 16384)
    near:try_write(("x"):rep(4000000))
    near:try_send_some(("x"):rep(60000))
    pairs_of[i] = far
  end
  local began = tcp.now()
  collectgarbage()
  collectgarbage()
  local taken = tcp.now() - began
  assert.is_true(taken < 1, "it took " .. taken)
  transports.close_all((table.unpack or unpack)(pairs_of)) -- luacheck: ignore
end)
