local tcp = require("tcp")
local support = require("support")
local servers = require("support.servers")

local fails = support.fails

local CONFIGURATION = [[
daemon off;
worker_processes 1;
# Heeded only if root starts it, and then this process can read what it serves.
user root;
pid nginx.pid;
error_log error.log;
events {
  worker_connections 64;
}
http {
  access_log off;
  client_body_temp_path client_body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  default_type text/plain;
  server {
    listen $address;
    root $root;
    location /chunked/ {
      alias $root/;
      # What is processed has no known length.
      ssi on;
      ssi_types *;
    }
    location /impatient/ {
      alias $root/;
      keepalive_timeout 100ms;
    }
  }
}
]]

local SMALL = "hello\r\n\0world"

-- Lines that all differ, 5 MiB of them.
local function large_body()
  local lines = {}
  for i = 1, 327680 do
    lines[i] = ("%014d\r\n"):format(i)
  end
  return table.concat(lines)
end

local function write_file(path, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
end

local function request(path, headers, method)
  return ("%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"):format(method or "GET", path, headers or "")
end

-- The status and the headers, up to the empty line.
local function read_head(conn)
  local status = conn:read_line():match("^HTTP/1%.1 (%d%d%d) ")
  local headers = {}
  local line = conn:read_line()
  while line ~= "" do
    local name, value = line:match("^([^:]+): (.*)$")
    headers[name:lower()] = value
    line = conn:read_line()
  end
  return tonumber(status), headers
end

local function read_response(conn)
  local status, headers = read_head(conn)
  return conn:read(headers["content-length"]), status, headers
end

local function read_chunks(conn)
  local chunks = {}
  repeat
    local chunk = conn:read(tonumber(conn:read_line():match("^%x+"), 16))
    assert.equal("\r\n", conn:read(2))
    chunks[#chunks + 1] = chunk
  until chunk == ""
  return table.concat(chunks), #chunks - 1
end

describe("nginx", function()
  if not servers.find("nginx") then
    pending("is not installed: apt-get install nginx")
    return
  end

  local server, conn
  local large = large_body()

  setup(function()
    server = servers.start("nginx", function(it)
      local root = it.dir .. "/html"
      assert(require("lfs").mkdir(root))
      write_file(root .. "/small", SMALL)
      write_file(root .. "/large", large)
      write_file(root .. "/pieces", 'one, <!--# include virtual="/small" -->, three')
      write_file(it.dir .. "/nginx.conf", (CONFIGURATION:gsub("%$(%l+)", {
        address = it.host .. ":" .. it.port,
        root = root,
      })))
      return { "-p", it.dir .. "/", "-c", it.dir .. "/nginx.conf" }
    end)
  end)

  teardown(function()
    server:stop()
  end)

  before_each(function()
    conn = tcp.connect(server.host, server.port, { read_timeout = 30, write_timeout = 30 })
  end)

  after_each(function()
    conn:close()
  end)

  it("gives a status, headers, an empty line and exactly the body", function()
    conn:write(request("/small"))
    local body, status, headers = read_response(conn)
    assert.equal(200, status)
    assert.matches("^nginx", headers.server)
    assert.equal("text/plain", headers["content-type"])
    assert.equal(SMALL, body)
    assert.equal(0, conn:buffered())
  end)

  it("gives 5 MiB whole", function()
    conn:write(request("/large"))
    local body, status = read_response(conn)
    assert.equal(200, status)
    assert.equal(5 * 1048576, #body)
    assert.is_true(large == body)
  end)

  it("gives 404 with a body of its own", function()
    conn:write(request("/absent"))
    local body, status = read_response(conn)
    assert.equal(404, status)
    assert.matches("404 Not Found", body)
  end)

  it("keeps the connection for a second request", function()
    conn:write(request("/absent"))
    local _, status = read_response(conn)
    assert.equal(404, status)
    conn:write(request("/small"))
    assert.equal(SMALL, (read_response(conn)))
  end)

  it("answers requests of one write in their order", function()
    conn:write({ request("/small"), request("/large"), request("/small", nil, "HEAD"), request("/small") })
    assert.equal(SMALL, (read_response(conn)))
    assert.is_true(large == read_response(conn))
    local _, headers = read_head(conn)
    assert.equal(#SMALL, tonumber(headers["content-length"]))
    assert.equal(SMALL, (read_response(conn)))
  end)

  it("ends the stream after the body if it is asked to close", function()
    conn:write(request("/large", "Connection: close\r\n"))
    local status, headers = read_head(conn)
    assert.equal(200, status)
    assert.equal("close", headers.connection)
    assert.is_true(large == conn:read_str())
    assert.is_nil(conn:recv())
  end)

  it("closes a connection that is kept and not used", function()
    conn:write(request("/impatient/small"))
    assert.equal(SMALL, (read_response(conn)))
    fails("closed", conn:try_read_line())
  end)

  it("gives a body of unknown length in chunks", function()
    conn:write(request("/chunked/pieces"), request("/chunked/large"))
    local _, headers = read_head(conn)
    assert.equal("chunked", headers["transfer-encoding"])
    local body, count = read_chunks(conn)
    assert.equal("one, " .. SMALL .. ", three", body)
    assert.is_true(count > 1)
    read_head(conn)
    assert.is_true(large == read_chunks(conn))
    assert.equal(0, conn:buffered())
  end)

  it("answers the globals of the legacy style", function()
    local old = connect(server.host, server.port)
    send("GET /large HTTP/1.0\r\n\r\n")
    local parts = {}
    repeat
      local part = recv()
      parts[#parts + 1] = part
    until part == ""
    old:close()
    local version, status, body = table.concat(parts):match("^HTTP/(%d%.%d) (%d+) .-\r\n\r\n(.*)$")
    assert.equal("1.1 200", version .. " " .. status)
    assert.is_true(large == body)
  end)
end)
