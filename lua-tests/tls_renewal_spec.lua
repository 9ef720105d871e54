-- Certificates of listeners that are renewed while they serve: their files are read again, if they can be used.

local lfs = require("lfs")
local certificates = require("support.certificates")
local matrix = require("support.matrix")
local tcp = require("tcp.core")

local file, text = matrix.file, matrix.text
local fill, temporary = certificates.fill, certificates.file
local PATIENCE = 10

local listener, accepting, cert, key

--- Listens with these files.
local function listen(tls)
  tls = tls or { cert = cert, key = key }
  listener = tcp.listen("127.0.0.1", 0, { tls = tls })
  accepting = tcp.spawn(function()
    local conn = listener:try_accept()
    while conn do
      tcp.spawn(function(client)
        local line = client:try_read_line { timeout = PATIENCE }
        while line do
          client:try_write_line(line:upper())
          line = client:try_read_line { timeout = PATIENCE }
        end
        client:close()
      end, conn)
      conn = listener:try_accept()
    end
  end)
end

local function show(name)
  fill(cert, text("pem", name))
  fill(key, text("key", name))
end

local visits = 0

--- A connection of a client that has never been here.
local function connect(sni)
  visits = visits + 1
  local bundle = ("%s\n# %d\n"):format(text("pem", "ca"), visits)
  return tcp.connect("127.0.0.1", listener:local_port(),
    { tls = { ca_bundle = bundle, sni = sni or "localhost" }, read_timeout = PATIENCE })
end

local function is_used(conn)
  conn:write_line("hello")
  assert.equal("HELLO", conn:read_line())
end

local function der(name)
  local process = assert(io.popen("openssl x509 -outform der -in " .. file(name), "r"))
  local bytes = process:read("*a")
  process:close()
  return bytes
end

--- Asserts which certificate a new client is shown.
local function shows(name, sni)
  local conn = connect(sni)
  is_used(conn)
  assert.is_true(der(name) == conn:peer_cert().der, "not the certificate of " .. name)
  conn:close()
end

--- A test that closes its listener before its descriptors are counted.
local function test(name, body)
  it(name, function()
    cert, key = temporary("cert.pem"), temporary("key.pem")
    show("server")
    body()
    listener:close()
    accepting:join(PATIENCE)
    tcp.run()
  end)
end

after_each(certificates.remove_files)

describe("a listener's certificate that is renewed", function()
  test("is shown to whoever comes then", function()
    listen()
    shows("server")
    for _, name in ipairs { "rsa", "chain", "server" } do
      show(name)
      shows(name)
      shows(name)
    end
  end)

  test("by renaming is shown, too", function()
    listen()
    shows("server")
    for _, name in ipairs { "rsa", "server" } do
      fill(cert .. ".new", text("pem", name))
      fill(key .. ".new", text("key", name))
      assert(os.rename(cert .. ".new", cert))
      assert(os.rename(key .. ".new", key))
      shows(name)
    end
  end)

  test("behind a link is shown, too, as certbot does it", function()
    local archive, live = temporary("archive.pem"), temporary("live.pem")
    assert(lfs.link(cert, live, true))
    listen { cert = live, key = key }
    shows("server")
    fill(archive, text("pem", "rsa"))
    os.remove(live)
    assert(lfs.link(archive, live, true))
    fill(key, text("key", "rsa"))
    shows("rsa")
  end)

  test("is shown although the new files are as long and as old", function()
    local length = math.max(#text("pem", "server"), #text("pem", "other-name")) + 10
    local function write(name)
      for path, kind in pairs { [cert] = "pem", [key] = "key" } do
        local content = text(kind, name)
        fill(path, content .. ("\n"):rep(length - #content))
        lfs.touch(path, 1e9, 1e9)
      end
    end
    write("server")
    listen()
    shows("server")
    write("other-name")
    shows("other-name", "other.example")
  end)

  test("lets connections from before be", function()
    listen()
    local before = connect()
    is_used(before)
    show("rsa")
    shows("rsa")
    is_used(before)
    before:close()
  end)

  test("is not shown before its key is there, too", function()
    listen()
    fill(cert, text("pem", "rsa"))
    shows("server")
    shows("server")
    fill(key, text("key", "rsa"))
    shows("rsa")
    fill(key, text("key", "server"))
    shows("rsa")
    fill(cert, text("pem", "server"))
    shows("server")
  end)

  test("is not shown while it is half-written, empty or gone", function()
    listen()
    local whole = text("pem", "rsa")
    for _, content in ipairs { whole:sub(1, 200), whole:sub(1, -20), whole:sub(1, 28), "no PEM\n", "" } do
      fill(key, text("key", "rsa"))
      fill(cert, content)
      shows("server")
      shows("server")
      fill(cert, whole)
      shows("rsa")
      show("server")
      shows("server")
    end
    for _, path in ipairs { cert, key } do
      os.remove(path)
      shows("server")
      assert(lfs.mkdir(path))
      shows("server")
      assert(lfs.rmdir(path))
      show("rsa")
      shows("rsa")
      show("server")
      shows("server")
    end
  end)

  test("is not shown by a pipe in its place, for which nobody waits", function()
    listen()
    os.remove(cert)
    assert(os.execute("mkfifo " .. cert))
    local began = tcp.now()
    shows("server")
    assert.is_true(tcp.now() - began < 2)
    os.remove(cert)
    show("rsa")
    shows("rsa")
  end)

  test("may be in one file with its key", function()
    fill(cert, text("pem", "server") .. text("key", "server"))
    listen { cert = cert, key = cert }
    for _, name in ipairs { "server", "rsa", "server" } do
      fill(cert, text("pem", name) .. text("key", name))
      shows(name)
    end
  end)

  test("may be one of the sni map", function()
    local other, other_key = temporary("other.pem", text("pem", "other-name")), temporary("other.key",
      text("key", "other-name"))
    fill(cert, text("pem", "server"))
    listen { cert = cert, key = key, sni = { ["other.example"] = { cert = other, key = other_key } } }
    shows("other-name", "other.example")
    shows("server")
    show("rsa")
    shows("rsa")
    shows("other-name", "other.example")
    fill(other, "half")
    shows("other-name", "other.example")
    local issued, issued_key = certificates.issue(file("ca"), file("ca", "key"), "subjectAltName=DNS:other.example\n")
    fill(other, certificates.contents(issued))
    fill(other_key, certificates.contents(issued_key))
    local conn = connect("other.example")
    is_used(conn)
    assert.equal("CN=victim.example", conn:peer_cert().subject)
    conn:close()
    shows("rsa")
  end)

  test("is what a client that comes back is served with, too", function()
    listen()
    local options = { tls = { ca_bundle = file("ca"), sni = "localhost" }, read_timeout = PATIENCE }
    for _, name in ipairs { "server", "rsa", "server", "chain" } do
      show(name)
      for _ = 1, 2 do
        local conn = tcp.connect("127.0.0.1", listener:local_port(), options)
        is_used(conn)
        conn:close()
      end
    end
  end)

  test("is read for each of twenty clients at once", function()
    listen()
    local tasks = {}
    for i = 1, 20 do
      tasks[i] = tcp.spawn(function()
        local conn = connect()
        is_used(conn)
        local subject = conn:peer_cert().subject
        conn:close()
        return subject
      end)
      if i % 5 == 0 then
        show(i % 10 == 0 and "rsa" or "server")
      end
    end
    for _, task in ipairs(tasks) do
      assert.equal("CN=localhost", (task:join(PATIENCE)))
    end
  end)
end)
