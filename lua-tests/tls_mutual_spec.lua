-- Mutual TLS: what a listener with client_ca makes of clients, and what each side is told.

local certificates = require("support.certificates")
local matrix = require("support.matrix")
local support = require("support")
local tcp = require("tcp.core")

local fails = support.fails
local file, text, says, showing = matrix.file, matrix.text, matrix.says, matrix.showing
local PATIENCE = 10

-- Self-signed clients are trusted if they stand here themselves.
local EVERYBODY = text("pem", "ca", "client-self", "client-self-ca")
local CLIENT_CA = EVERYBODY

-- Which certificate each client shows; `subject` if it is a good one, else what the server is told and the alert that
-- the client gets.
local NONE = { says = { "the client has no certificate" }, alert = { "certificate_required", "handshake_failure" } }
local CLIENTS = {
  ["a good certificate"] = { shows = "client", subject = "CN=client" },
  ["a certificate for any use"] = { shows = "server", subject = "CN=localhost" },
  ["an RSA certificate"] = { shows = "rsa", subject = "CN=localhost" },
  ["a certificate and its intermediate"] = { shows = "client-chain", subject = "CN=client" },
  ["a self-signed certificate that is listed"] = { shows = "client-self", subject = "CN=client" },
  ["a self-signed authority that is listed"] = { shows = "client-self-ca", subject = "CN=client" },
  ["a certificate without its intermediate"] = { shows = "client-leaf",
    says = { "issuer", "Intermediate Authority", "not trusted" }, alert = { "unknown_ca" } },
  ["another authority's certificate"] = { shows = "client-stranger",
    says = { "issuer", "Strange Authority", "not trusted" }, alert = { "unknown_ca" } },
  ["a self-signed certificate that is not listed"] = { shows = "self-end", says = { "self%-signed" },
    alert = { "unknown_ca" } },
  ["an expired certificate"] = { shows = "client-expired", says = { "expired on 2020%-01%-02 03:04:05 UTC" },
    alert = { "certificate_expired" } },
  ["a certificate of the future"] = { shows = "client-future", says = { "not valid before 2090" },
    alert = { "certificate_expired" } },
  ["a certificate for servers"] = { shows = "client-server", says = { "not meant for clients" },
    alert = { "unsupported_certificate" } },
}

--- The TLS options of a client that shows a certificate, or none.
local function client_tls(name, protocol)
  local tls = { ca_bundle = file("ca"), sni = "localhost", protocols = protocol and { protocol } }
  if name then
    tls.client_cert, tls.client_key = file(name), file(name, "key")
  end
  return tls
end

local function server_tls(mode)
  return showing("server", { client_ca = CLIENT_CA, client_auth = mode })
end

local function listen(mode)
  return tcp.listen("127.0.0.1", 0, { tls = server_tls(mode) })
end

local function connect(listener, tls)
  return tcp.try_connect("127.0.0.1", listener:local_port(),
    { tls = tls, timeout = PATIENCE, read_timeout = PATIENCE, write_timeout = PATIENCE })
end

--- Accepts one connection, calls `first(conn)` for a value or an error, and answers a line if there was none. Its join
-- gives the error, the certificate and the line.
local function serving(listener, first)
  return tcp.spawn(function()
    local conn = listener:accept(PATIENCE)
    local seen = {}
    local _
    _, seen.err = first(conn)
    seen.cert = conn:peer_cert()
    if seen.err then
      _, seen.later = conn:try_read(1, { timeout = PATIENCE })
    else
      seen.line = conn:try_read_line { timeout = PATIENCE }
      conn:try_write_line("welcome")
    end
    conn:close()
    return seen
  end)
end

-- What a server may do first with a connection.
local FIRST = {
  handshake = function(conn)
    return conn:try_handshake { timeout = PATIENCE }
  end,
  peek = function(conn)
    return conn:try_peek(1, { timeout = PATIENCE })
  end,
  write = function(conn)
    return conn:try_write("x")
  end,
}

--- What the server saw, what the client read, and its error.
local function meet(mode, tls, first)
  local listener = listen(mode)
  local task = serving(listener, FIRST[first or "handshake"])
  local conn, err = connect(listener, tls)
  local answer
  if conn then
    conn:try_write_line("hello")
    answer, err = conn:try_read_line()
    conn:close()
  end
  local seen = task:join(PATIENCE)
  listener:close()
  tcp.run()
  return seen, answer, err
end

local function is_one_of(value, list)
  for _, it in ipairs(list) do
    if it == value then
      return
    end
  end
  error(("%s is none of %s"):format(tostring(value), table.concat(list, ", ")))
end

local function is_refused(client, seen, answer, err)
  fails("certificate", seen.cert, seen.err)
  says(seen.err.message, client.says)
  assert.equal("handshake", seen.err.stage)
  assert.is_nil(seen.err.alert)
  -- A failed upgrade closes.
  fails(seen.err.op == "start_tls" and "closed" or "certificate", nil, seen.later)
  fails("tls", answer, err)
  is_one_of(err.alert, client.alert)
  assert.equal("the server broke off with TLS alert " .. err.alert, err.message)
end

local function is_welcome(client, seen, answer, err)
  assert.is_nil(err, tostring(err))
  assert.is_nil(seen.err, tostring(seen.err))
  assert.equal("hello", seen.line)
  assert.equal("welcome", answer)
  assert.equal(client.subject, seen.cert and seen.cert.subject)
end

after_each(certificates.remove_files)

for _, protocol in ipairs(matrix.PROTOCOLS) do
  describe("client_auth by " .. protocol, function()
    for _, mode in ipairs { "none", "optional", "required" } do
      for name, client in pairs(CLIENTS) do
        local subject = mode ~= "none" and client.subject or nil
        local is_good = mode == "none" or client.subject
        it(("'%s' %s %s"):format(mode, is_good and "takes" or "refuses", name), function()
          local check = is_good and is_welcome or is_refused
          local expected = is_good and { subject = subject } or client
          check(expected, meet(mode, client_tls(client.shows, protocol)))
        end)
      end
    end

    for _, mode in ipairs { "none", "optional" } do
      it(("'%s' takes no certificate"):format(mode), function()
        is_welcome({}, meet(mode, client_tls(nil, protocol)))
      end)
    end

    it("'required' refuses no certificate", function()
      is_refused(NONE, meet("required", client_tls(nil, protocol)))
    end)

    it("is what it does, whatever the server does first", function()
      for first in pairs(FIRST) do
        is_refused(NONE, meet("required", client_tls(nil, protocol), first))
        is_refused(CLIENTS["an expired certificate"], meet("required", client_tls("client-expired", protocol), first))
      end
    end)

    it("shows the server who the client is by start_tls, too", function()
      local listener = tcp.listen("127.0.0.1", 0)
      for name, check in pairs { ["a good certificate"] = is_welcome, ["an expired certificate"] = is_refused } do
        local task = serving(listener, function(conn)
          local options = server_tls("required")
          options.server = true
          return conn:try_start_tls(options)
        end)
        local conn = tcp.connect("127.0.0.1", listener:local_port(), { read_timeout = PATIENCE })
        local answer
        local _, err = conn:try_start_tls(client_tls(CLIENTS[name].shows, protocol))
        if not err then
          conn:try_write_line("hello")
          answer, err = conn:try_read_line()
        end
        conn:close()
        check(CLIENTS[name], task:join(PATIENCE), answer, err)
      end
      listener:close()
      tcp.run()
    end)
  end)
end

describe("client_ca", function()
  --- What a server makes of a client, if only these are trusted.
  local function trusting(client_ca, name)
    CLIENT_CA = text("pem", client_ca)
    local seen = meet("required", client_tls(name))
    CLIENT_CA = EVERYBODY
    return seen
  end

  it("with the client's own certificate trusts it as it is, and no other", function()
    assert.equal("CN=client", trusting("client", "client").cert.subject)
    assert.equal("CN=localhost", trusting("nameless", "nameless").cert.subject)
    assert.equal("CN=client", trusting("client-leaf", "client-chain").cert.subject)
    fails("certificate", nil, trusting("client", "rsa").err)
    says(fails("certificate", nil, trusting("client-expired", "client-expired").err).message, { "expired on 2020" })
    says(fails("certificate", nil, trusting("client-future", "client-future").err).message, { "not valid before 2090" })
  end)

  it("with an end certificate trusts nothing that its holder issued", function()
    says(fails("certificate", nil, trusting("end", "by-end").err).message, { "not trusted" })
    says(fails("certificate", nil, trusting("ca", "by-end").err).message, { "CA:FALSE" })
  end)

  it("with an authority in the middle trusts what that one issued", function()
    assert.equal("CN=client", trusting("intermediate", "client-leaf").cert.subject)
    assert.equal("CN=client", trusting("intermediate", "client-chain").cert.subject)
    fails("certificate", nil, trusting("intermediate", "client").err)
  end)

  it("trusts no client that is too weak, or out of its authority's constraints", function()
    for name, word in pairs { sha1 = "SHA%-1", ["of-sha1"] = "SHA%-1", ["of-rsa1024"] = "RSA key", deep = "longer",
      ["narrow-dns"] = "name constraints", signing = "not meant for clients" } do
      says(fails("certificate", nil, trusting("ca", name).err).message, { word })
    end
  end)
end)

describe("a listener without client_auth", function()
  it("asks no client for a certificate, even with client_ca", function()
    is_welcome({}, meet(nil, client_tls("client-expired")))
    is_welcome({}, meet(nil, client_tls()))
  end)
end)

describe("a client that is refused by TLS 1.3 after its handshake", function()
  local MEGABYTE = ("x"):rep(1048576)

  --- Calls `use(conn)` 50 times with a connection that will be refused, or the error of connecting.
  local function refused_often(use)
    local listener = listen("required")
    local accepting = tcp.spawn(function()
      local kinds = {}
      for i = 1, 50 do
        local conn = listener:accept(PATIENCE)
        local _, err = conn:try_read(1, { timeout = PATIENCE })
        kinds[i] = err.kind
        conn:close()
      end
      return kinds
    end)
    for i = 1, 50 do
      local name = ({ "client-expired", "client-stranger", false })[i % 3 + 1]
      local conn = assert(connect(listener, client_tls(name, "TLSv1.3")))
      local err = use(conn)
      assert.equal("tls", err.kind, tostring(err))
      assert.equal(({ "certificate_expired", "unknown_ca", "certificate_required" })[i % 3 + 1], err.alert)
      -- It stays so.
      assert.equal(err.alert, fails("tls", conn:try_read(1)).alert)
      assert.equal(err.alert, fails("tls", conn:try_write("x")).alert)
      conn:close()
    end
    for _, kind in ipairs(accepting:join(PATIENCE)) do
      assert.equal("certificate", kind)
    end
    listener:close()
    tcp.run()
  end

  it("gets the alert at its first read", function()
    refused_often(function(conn)
      return fails("tls", conn:try_read_line())
    end)
  end)

  it("gets the alert, and no reset, though it writes 1 MB at once", function()
    refused_often(function(conn)
      local _, err = conn:try_write(MEGABYTE)
      if not err then
        _, err = conn:try_read(1)
      end
      return err
    end)
  end)

  it("gets the alert, and no reset, though it never stops writing", function()
    refused_often(function(conn)
      local ok, err
      repeat
        ok, err = conn:try_write(MEGABYTE)
      until not ok
      return err
    end)
  end)

  it("gets the alert, and no reset, though it reads only when everything is over", function()
    refused_often(function(conn)
      conn:try_write("hello\n")
      tcp.sleep(0.02)
      conn:try_write("hello\n")
      local _, err = conn:try_read_str()
      return err
    end)
  end)

  it("gets the alert, and no reset, as one of 50 that write 1 MB at once", function()
    local listener = listen("required")
    local accepting = tcp.spawn(function()
      for _ = 1, 50 do
        tcp.spawn(function(conn)
          conn:try_handshake { timeout = PATIENCE }
          conn:close()
        end, listener:accept(PATIENCE))
      end
    end)
    local tasks = {}
    for i = 1, 50 do
      tasks[i] = tcp.spawn(function()
        local conn, err = connect(listener, client_tls("client-stranger", "TLSv1.3"))
        local ok = conn and conn:try_write(MEGABYTE)
        while ok and not err do
          ok, err = conn:try_read(1)
        end
        if conn and not err then
          ok, err = conn:try_write("x")
          assert(not ok, "was not refused")
        end
        if conn then
          conn:close()
        end
        return err
      end)
    end
    for _, task in ipairs(tasks) do
      local err = task:join(PATIENCE)
      assert.equal("tls", err.kind, tostring(err))
      assert.equal("unknown_ca", err.alert)
    end
    accepting:join(PATIENCE)
    listener:close()
    tcp.run()
  end)

  it("gets the alert in the tasks that read and write", function()
    refused_often(function(conn)
      local reading = tcp.spawn(function()
        local _, err = conn:try_read_line()
        return err
      end)
      local ok, err
      repeat
        ok, err = conn:try_write(MEGABYTE)
      until not ok
      local read_err = reading:join(PATIENCE)
      assert.equal(read_err.alert, err.alert)
      return read_err
    end)
  end)
end)
