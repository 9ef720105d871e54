-- nginx for specs, and as much of HTTP as they speak.

local lfs = require("lfs")
local servers = require("support.servers")
local transports = require("support.transports")

local nginx = {}

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
    listen $address$ssl;
    root $root;
    $more
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
    location /session {
      return 200 "$ssl_protocol $ssl_session_reused";
    }
  }
}
]]

local function write_file(path, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
end

--- The line that makes it speak TLS with a certificate of the tests.
function nginx.certificate(name)
  local here = lfs.currentdir() .. "/"
  return ("ssl_certificate %s; ssl_certificate_key %s;"):format(here .. transports.certificate(name),
    here .. transports.certificate(name, "key"))
end

--- Starts it with these files to serve, and with lines of its configuration if it is to speak TLS, HTTP/2 as well if
-- that is said.
function nginx.start(files, tls, http2)
  return servers.start("nginx", function(it)
    local root = it.dir .. "/html"
    assert(lfs.mkdir(root))
    for name, bytes in pairs(files) do
      write_file(root .. "/" .. name, bytes)
    end
    local ssl = (tls and " ssl" or "") .. (http2 and " http2" or "")
    local values = { address = it.host .. ":" .. it.port, root = root, ssl = ssl, more = tls or "" }
    -- What is nginx's own stays.
    write_file(it.dir .. "/nginx.conf", (CONFIGURATION:gsub("%$([%l_]+)", values)))
    return { "-p", it.dir .. "/", "-c", it.dir .. "/nginx.conf" }
  end)
end

function nginx.request(path, headers, method)
  return ("%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"):format(method or "GET", path, headers or "")
end

--- The status and the headers, up to the empty line.
function nginx.read_head(conn)
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

--- Body, status and headers of an answer that tells its length.
function nginx.read_response(conn)
  local status, headers = nginx.read_head(conn)
  return conn:read(headers["content-length"]), status, headers
end

--- Lines that all differ, 5 MiB of them.
function nginx.large_body()
  local lines = {}
  for i = 1, 327680 do
    lines[i] = ("%014d\r\n"):format(i)
  end
  return table.concat(lines)
end

return nginx
