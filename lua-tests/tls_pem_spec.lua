-- Files and texts of PEM, for every option that takes them.

local certificates = require("support.certificates")
local matrix = require("support.matrix")
local support = require("support")
local tcp = require("tcp.core")
local waits = require("support.waits")

local fails = support.fails
local file, text, says = matrix.file, matrix.text, matrix.says
local temporary, openssl = certificates.file, certificates.openssl
local unpack = table.unpack or unpack
local PATIENCE = 10

local CA, CERT, KEY = file("ca"), file("server"), file("server", "key")
local CLIENT, CLIENT_KEY = file("client"), file("client", "key")

-- Each option, how a side is given it, and what has to be in there: a certificate, a key or a list.
local OPTIONS = {
  { "ca_bundle", "client", "certificate", function(pem)
    return { ca_bundle = pem }
  end },
  { "crl", "client", "list", function(pem)
    return { ca_bundle = CA, crl = pem }
  end },
  { "client_cert", "client", "certificate", function(pem)
    return { ca_bundle = CA, client_cert = pem, client_key = CLIENT_KEY }
  end },
  { "client_key", "client", "key", function(pem)
    return { ca_bundle = CA, client_cert = CLIENT, client_key = pem }
  end },
  { "cert", "server", "certificate", function(pem)
    return { cert = pem, key = KEY }
  end },
  { "key", "server", "key", function(pem)
    return { cert = CERT, key = pem }
  end },
  { "client_ca", "server", "certificate", function(pem)
    return { cert = CERT, key = KEY, client_ca = pem, client_auth = "required" }
  end },
  { "sni.*localhost.*cert", "server", "certificate", function(pem)
    return { cert = CERT, key = KEY, sni = { localhost = { cert = pem, key = KEY } } }
  end },
  { "sni.*localhost.*key", "server", "key", function(pem)
    return { cert = CERT, key = KEY, sni = { localhost = { cert = CERT, key = pem } } }
  end },
}

--- Asserts that a client has sent nothing to an end that it has left.
local function has_heard_nothing(conn)
  assert.is_nil(conn:recv(8192, { timeout = PATIENCE }))
end

--- What each side may be asked with: they give the error.
local WAYS = { client = {}, server = {} }

function WAYS.client.connect(tls)
  local listener = waits.opens(tcp.listen("127.0.0.1", 0))
  local conn, err = tcp.try_connect("127.0.0.1", listener:local_port(), { tls = tls })
  fails(err and err.kind, conn, err)
  -- It need not have connected.
  local far = listener:try_accept(0.01)
  if far then
    has_heard_nothing(waits.opens(far))
  end
  listener:close()
  return err
end

function WAYS.client.start_tls(tls)
  local near, far = waits.pair()
  local value, err = near:try_start_tls(tls)
  -- There is no way back to plaintext.
  assert.is_true(near:is_closed())
  has_heard_nothing(far)
  return fails(err and err.kind, value, err)
end

function WAYS.server.listen(tls)
  local listener, err = tcp.try_listen("127.0.0.1", 0, { tls = tls })
  return fails(err and err.kind, listener, err)
end

function WAYS.server.start_tls(tls)
  local near, far = waits.pair()
  tls.server = true
  -- The client says nothing: nobody waits for it.
  local began = tcp.now()
  local value, err = near:try_start_tls(tls)
  assert.is_true(tcp.now() - began < 2, "waits for the client")
  assert.is_true(near:is_closed())
  has_heard_nothing(far)
  return fails(err and err.kind, value, err)
end

local function literally(words)
  return (words:gsub("%p", "%%%0"))
end

--- Asserts that a message has nothing of a key in it.
local function hides(secret, message)
  for line in secret:gmatch("[%w+/=]+") do
    for first = 1, #line - 7 do
      assert.is_nil(message:find(line:sub(first, first + 7), 1, true), "bytes of a key: " .. message)
    end
  end
end

local MARKS = "%-%-%-%-%-[^-]*%-%-%-%-%-"

--- Gives an option this path in each way, and then what is in there, if that is a text of PEM, and calls `check` with
-- every error.
local function each_way(option, path, content, check)
  local name, give = option[1], option[4]
  for way, try in pairs(WAYS[option[2]]) do
    local err = try(give(path))
    assert.equal(way, err.op)
    says(err.message, { name .. "%W.*" .. literally(path) })
    hides((content or ""):gsub(MARKS, ""), tostring(err))
    check(err)
    if content and content:find("-----BEGIN ", 1, true) then
      err = try(give(content))
      says(err.message, { name })
      hides(content:gsub(MARKS, ""), tostring(err))
      check(err)
    end
  end
end

after_each(function()
  waits.clean()
  certificates.remove_files()
end)

--- A test that leaves nothing behind before its descriptors are counted.
local function test(name, body)
  it(name, waits.cleanly(body))
end

-- What is no PEM of a kind, made of a good one; the message says one of the words.
local FAULTS = {
  ["is empty"] = function()
    return "", { "is empty$" }
  end,
  ["is some text"] = function()
    return "no PEM\n", { "no %s" }
  end,
  ["is bytes"] = function()
    return "\0\1\2\255", { "no %s" }
  end,
  ["has something else in it"] = function(kind)
    return kind == "certificate" and text("key", "server") or text("pem", "server"), { "no %s" }
  end,
  ["has a public key in it"] = function()
    return certificates.contents(openssl("pkey -pubout -in " .. KEY, "public.pem")), { "no %s" }
  end,
  ["is cut off"] = function(_, pem)
    return pem:sub(1, -40), { "malformed" }
  end,
  ["has lost its line breaks"] = function(_, pem)
    return (pem:gsub("\n", " ")), { "malformed" }
  end,
  ["has its line breaks written as \\n"] = function(_, pem)
    return (pem:gsub("\n", "\\n")), { "malformed" }
  end,
  ["is damaged base64"] = function(_, pem)
    return (pem:gsub("\nM", "\n!", 1)), { "malformed" }
  end,
  ["lacks a part"] = function(_, pem)
    return (pem:gsub("(\n%w[^\n]*\n)[^\n]+", "%1", 1)), { "malformed", "cannot be used", "not supported" }
  end,
  ["has nothing of it inside"] = function(_, pem)
    return (pem:gsub("(BEGIN[^\n]*\n).*(\n%-+END)", "%1AAAA%2")), { "malformed", "not supported" }
  end,
}

local function good(kind)
  if kind == "list" then
    return text("crl", "ca")
  end
  return text(kind == "key" and "key" or "pem", "server")
end

for _, option in ipairs(OPTIONS) do
  local name, kind = option[1]:gsub("%.%*", " "), option[3]

  describe("the option " .. name, function()
    test("that is no file is told with its path and why", function()
      for path, told in pairs {
        ["/no/such/file.pem"] = { 2, "no such file or directory" },
        ["/"] = { 21, "is a directory" },
        [CA .. "/x"] = { 20, "not a directory" },
      } do
        each_way(option, path, nil, function(err)
          assert.equal("system", err.kind)
          assert.equal(told[1], err.errno)
          says(err.message, { "^cannot read .*: " .. told[2] .. "$" })
        end)
      end
    end)

    test("that is a pipe or a device is told at once", function()
      local pipe = temporary("pipe")
      assert.is_true(support.succeeds("mkfifo " .. pipe))
      for _, path in ipairs { pipe, "/dev/zero", "/dev/null" } do
        each_way(option, path, nil, function(err)
          assert.equal("system", err.kind)
          says(err.message, { "not a regular file" })
        end)
      end
    end)

    test("that is too large is told before it fills the memory", function()
      local path = temporary("large.pem")
      assert.is_true(support.succeeds("truncate -s 10G " .. path))
      each_way(option, path, nil, function(err)
        assert.equal("tls", err.kind)
        says(err.message, { "over 16 MiB$" })
      end)
    end)

    for fault, make in pairs(FAULTS) do
      test(("that %s is told with its name and the fault"):format(fault), function()
        local content, words = make(kind, good(kind))
        each_way(option, temporary("bad.pem", content), content, function(err)
          assert.equal("tls", err.kind)
          local found = false
          for _, word in ipairs(words) do
            found = found or err.message:find(word:format(kind == "list" and ".*list" or kind)) ~= nil
          end
          assert.is_true(found, err.message)
          assert.is_true(#err.message < 300 and not err.message:find("%d+, %d+"), err.message)
        end)
      end)
    end

    test("that is DER is told to be", function()
      local words = kind == "certificate" and "x509 -in " .. CERT or kind == "key" and "pkey -in " .. KEY
        or "crl -in " .. file("ca", "crl")
      each_way(option, openssl(words .. " -outform der", "der.pem"), nil, function(err)
        assert.equal("tls", err.kind)
        says(err.message, { "is DER, not PEM" })
      end)
    end)
  end)

  if kind == "key" then
    describe("the option " .. name, function()
      test("that is encrypted is told to be", function()
        for command, form in pairs { ["pkey -aes256 -passout pass:secret"] = "pkcs8",
          ["ec -aes256 -passout pass:secret"] = "sec1" } do
          local path = openssl(command .. " -in " .. KEY, form .. ".key")
          each_way(option, path, certificates.contents(path), function(err)
            assert.equal("tls", err.kind)
            says(err.message, { "encrypted" })
          end)
        end
      end)

      test("that belongs to another certificate is told", function()
        for _, other in ipairs { "stranger", "rsa" } do
          each_way(option, file(other, "key"), text("key", other), function(err)
            assert.equal("tls", err.kind)
            says(err.message, { "does not belong to " })
          end)
        end
      end)

      test("that nobody can use is told", function()
        local curve = openssl("ecparam -name secp256k1 -genkey -noout", "curve.key")
        for _, path in ipairs { curve, file("rsa1024", "key") } do
          each_way(option, path, certificates.contents(path), function(err)
            assert.equal("tls", err.kind)
            says(err.message, { "not supported" })
          end)
        end
      end)

      test("that is no PEM and no path is told without a byte of it", function()
        -- The BEGIN line is forgotten: this is a secret, not the name of a file.
        local secret = text("key", "server"):gsub(MARKS .. "\n", "")
        for _, content in ipairs { secret, (secret:gsub("\n", "")) } do
          for _, try in pairs(WAYS[option[2]]) do
            hides(secret, tostring(try(option[4](content))))
          end
        end
      end)
    end)
  end
end

describe("an option of PEM", function()
  test("raises its error by connect, listen and start_tls", function()
    local near, far = waits.pair()
    local port = waits.opens(tcp.listen("127.0.0.1", 0)):local_port()
    local missing = { ca_bundle = "/no/such/ca.pem" }
    for _, call in ipairs {
      { tcp.connect, "127.0.0.1", port, { tls = missing } },
      { tcp.connect_tls, "127.0.0.1", port, { tls = missing } },
      { tcp.listen, "127.0.0.1", 0, { tls = { cert = "/no/such/cert.pem", key = KEY } } },
      { near.start_tls, near, missing },
      { far.start_tls, far, { server = true, cert = "/no/such/cert.pem", key = KEY } },
    } do
      local err = support.raises("system", unpack(call))
      assert.equal(2, err.errno)
    end
  end)

  test("comes in pairs: a certificate needs its key", function()
    local near = waits.pair()
    for _, tls in ipairs { { client_cert = CLIENT }, { client_key = CLIENT_KEY } } do
      for _, call in ipairs { { tcp.connect, "127.0.0.1", 1, { tls = tls } }, { near.start_tls, near, tls } } do
        local ok, err = pcall(unpack(call))
        assert.is_false(ok)
        says(tostring(err), { "client_cert", "client_key" })
      end
    end
    near:close()
  end)
end)
