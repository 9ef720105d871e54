-- Wrong arguments of start_tls harm nothing. What is said of each is in misuse_spec.

local handshakes = require("support.handshakes")
local misuses = require("support.misuse")
local tasks = require("support.tasks")
local tls_misuse = require("support.tls_misuse")
local transports = require("support.transports")
local upgrades = require("support.upgrades")

local CLIENT, SERVER, with = upgrades.CLIENT, upgrades.SERVER, upgrades.with

local conn, other

--- Asserts that a connection is plain, and can be upgraded.
local function is_unharmed(options)
  assert.is_false(conn:is_closed())
  assert.is_false(conn:is_tls())
  upgrades.is_usable(conn, other)
  local serving = tasks.trying(other, "start_tls", SERVER)
  conn:start_tls(options or CLIENT)
  tasks.succeeds(serving)
  upgrades.is_usable(conn, other)
end

local function test(name, over, body)
  it(name, function()
    conn, other = upgrades[over].pair()
    body()
    handshakes.clean()
  end)
end

describe("misuse of start_tls", function()
  after_each(handshakes.clean)

  test("leaves a connection as it was", "tcp", function()
    for _, form in ipairs { "start_tls", "try_start_tls" } do
      assert.equal("", misuses.differences(conn[form], form, tls_misuse.upgrades(), conn))
    end
    is_unharmed()
  end)

  test("is an option of the other side", "tcp", function()
    for _, name in ipairs { "verify", "ca_bundle", "crl", "client_cert", "client_key" } do
      local _, err = pcall(conn.start_tls, conn, with(SERVER, { [name] = "x" }))
      assert.matches("bad option '" .. name .. "' to 'start_tls'", err)
    end
    for _, name in ipairs { "client_ca", "client_auth" } do
      local _, err = pcall(conn.start_tls, conn, { [name] = "x" })
      assert.matches("bad option '" .. name .. "' to 'start_tls'", err)
    end
    is_unharmed()
  end)

  test("is told in a task, too", "tcp", function()
    local task = tasks.spawn(conn.start_tls, conn, { verifi = false })
    local ok, err = task:try_join(5)
    assert.is_nil(ok)
    assert.matches("bad option 'verifi' to 'start_tls' %(did you mean 'verify'%?%)$", err)
    is_unharmed()
  end)

  test("is anything but a connection before the colon", "tcp", function()
    assert.equal("", misuses.wrong_selfs(conn, "Connection", { "start_tls", "try_start_tls" }))
    is_unharmed()
  end)

  test("is to verify nobody by name, on a unix path", "unix", function()
    for _, options in ipairs { {}, { ca_bundle = transports.certificate("ca") }, { verify = true } } do
      local answer = misuses.told(conn.start_tls, conn, options)
      assert.equal("bad option 'sni' to 'start_tls' (a unix path is no name that a certificate could cover)", answer)
    end
    is_unharmed { verify = false }
  end)
end)
