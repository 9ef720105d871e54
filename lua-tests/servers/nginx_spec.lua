require("tcp")
local support = require("support")
local nginx = require("support.nginx")
local servers = require("support.servers")
local transports = require("support.transports")

local fails = support.fails
local request, read_head, read_response = nginx.request, nginx.read_head, nginx.read_response

local SMALL = "hello\r\n\0world"

local function read_chunks(conn)
  local chunks = {}
  repeat
    local chunk = conn:read(tonumber(conn:read_line():match("^%x+"), 16))
    assert.equal("\r\n", conn:read(2))
    chunks[#chunks + 1] = chunk
  until chunk == ""
  return table.concat(chunks), #chunks - 1
end

if not servers.find("nginx") then
  describe("nginx", function()
    pending("is not installed: apt-get install nginx")
  end)
  return
end

local large = nginx.large_body()

for _, over in ipairs(transports.all) do
  describe("nginx" .. over.suffix, function()
    local server, conn

    setup(function()
      server = nginx.start({
        small = SMALL,
        large = large,
        pieces = 'one, <!--# include virtual="/small" -->, three',
      }, over.is_tls and nginx.certificate("server") or nil)
    end)

    teardown(function()
      server:stop()
    end)

    before_each(function()
      conn = over.tcp.connect(server.host, server.port, { read_timeout = 30, write_timeout = 30 })
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
      local old = connect(server.host, server.port, { tls = over.is_tls and transports.CLIENT })
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
end
