#!/usr/bin/env lua
-- JSON-RPC 2.0, each message a packet, over TLS: both sides show a certificate, by which the server knows who calls.
--
-- Usage: lua json_rpc.lua serve CERT KEY CA HOST PORT
--        lua json_rpc.lua call CERT KEY CA HOST PORT METHOD [NUMBER...]
--
-- Certificates of one's own, each side's its own authority: CA is the other side's CERT.
--   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -keyout server.key -out server.pem \
--     -subj /CN=server -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=CA:FALSE
-- and the same for client.key and client.pem, with /CN=client.

local tcp = require("tcp")

local methods = {}

function methods.add(_, numbers)
  local sum = 0
  for _, number in ipairs(numbers) do
    sum = sum + number
  end
  return sum
end

function methods.whoami(client)
  return client:peer_cert().subject
end

local function failure(code, message, id)
  return { jsonrpc = "2.0", error = { code = code, message = message }, id = id }
end

local function answer(client, request)
  if type(request) ~= "table" or request.jsonrpc ~= "2.0" or type(request.method) ~= "string" then
    return failure(-32600, "that is not a request", tcp.null)
  elseif not methods[request.method] then
    return failure(-32601, "there is no method " .. request.method, request.id)
  end
  local ok, result = tcp.pcall(methods[request.method], client, request.params)
  if not ok then
    return failure(-32000, tostring(result), request.id)
  end
  return { jsonrpc = "2.0", result = result, id = request.id }
end

local function handle(client)
  local request, err = client:try_read_json_packet()
  -- A packet that is not JSON has been read all the same, and the next one can be.
  while not err or err.kind == "json" do
    local response = err and failure(-32700, err.message, tcp.null) or answer(client, request)
    -- Whoever sends no id wants no answer.
    if response.id then
      client:write_json_packet(response)
    end
    request, err = client:try_read_json_packet()
  end
end

local jobs = {}

function jobs.serve(cert, key, ca, host, port)
  local tls = { cert = cert, key = key, client_ca = ca, client_auth = "required" }
  local server = tcp.serve(host, port, handle, { tls = tls, read_timeout = 60 })
  print("listening on " .. server:addr())
  io.stdout:flush()
  tcp.run()
end

function jobs.call(cert, key, ca, host, port, method, ...)
  local tls = { ca_bundle = ca, client_cert = cert, client_key = key }
  local conn = tcp.connect_tls(host, port, { timeout = 5, read_timeout = 10, tls = tls })
  local params = tcp.json.array({ ... })
  for i, word in ipairs(params) do
    params[i] = tonumber(word) or word
  end
  conn:write_json_packet({ jsonrpc = "2.0", method = method, params = params, id = 1 })
  local response = conn:read_json_packet()
  conn:close()
  if response.error then
    error(("error %d: %s"):format(response.error.code, response.error.message), 0)
  end
  print(tcp.json.encode(response.result))
end

if not jobs[arg[1]] or not arg[6] or arg[1] == "call" and not arg[7] then
  io.stderr:write("usage: lua json_rpc.lua serve|call CERT KEY CA HOST PORT [METHOD [NUMBER...]]\n")
  os.exit(2)
end
local unpack = table.unpack or unpack
local ok, err = pcall(jobs[arg[1]], arg[2], arg[3], arg[4], arg[5], tonumber(arg[6]), unpack(arg, 7))
if not ok then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
