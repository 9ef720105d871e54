local lfs = require("lfs")
local support = require("support")
local certificates = require("support.certificates")
local transports = require("support.transports")

local fails, certificate = support.fails, transports.certificate
local CA, SERVER_PEM = transports.certificate("ca"), transports.certificate("server")
local contents, fill, file = certificates.contents, certificates.fill, certificates.file
local serve, connect, accepts = certificates.serve, certificates.connect, certificates.accepts
local refuses, trusting, UNKNOWN = certificates.refuses, certificates.trusting, certificates.UNKNOWN
local issue, refuses_files = certificates.issue, certificates.refuses_files

after_each(certificates.remove_files)

describe("tls.ca_bundle", function()
  it("that holds the server's own certificate trusts it as it is", function()
    accepts("self-signed", trusting(certificate("self-signed")))
    accepts("server", trusting(SERVER_PEM))
    accepts("server", trusting(contents(SERVER_PEM)), "127.0.0.1")
    accepts("leaf", trusting(certificate("leaf")))
    accepts("chain", trusting(certificate("leaf")))
  end)

  it("with one end certificate trusts no other", function()
    assert.equal(UNKNOWN:format("Test Authority"), refuses("rsa", trusting(SERVER_PEM)))
    assert.equal(UNKNOWN:format("Strange Authority"), refuses("stranger", trusting(SERVER_PEM)))
    assert.equal("the certificate is self-signed and not trusted here (ca_bundle may name it)",
      refuses("self-signed", trusting(certificate("self-expired"))))
  end)

  it("with an end certificate trusts nothing that its holder issued", function()
    -- Who may speak for one name may not speak for all (RFC 5280, section 4.2.1.9).
    for _, name in ipairs { "server", "nameless" } do
      local cert, key = issue(certificate(name), certificate(name, "key"))
      refuses_files(cert, key, trusting(certificate(name), "victim.example"))
    end
  end)

  it("with an authority in the middle trusts what that one issued", function()
    accepts("leaf", trusting(certificate("intermediate")))
    accepts("chain", trusting(certificate("intermediate")))
    assert.equal(UNKNOWN:format("Test Authority"), refuses("server", trusting(certificate("intermediate"))))
  end)

  it("is a path, or the text of PEM, as people keep it", function()
    local text = contents(CA)
    local stranger = contents(certificate("stranger-ca"))
    for _, bundle in ipairs {
      CA, text, (text:gsub("\n", "\r\n")), (text:gsub("\n$", "")), "# authorities\n\n" .. text .. "\n# end\n",
      stranger .. text, text .. stranger, contents(certificate("server", "key")) .. text,
      file("several.pem", "Strange:\n" .. stranger .. "\nTest:\n" .. text),
    } do
      accepts("server", trusting(bundle))
    end
    accepts("stranger", trusting(stranger .. text))
    accepts("stranger", trusting(file("several.pem")))
  end)

  it("may be the file that the system has, of which everything can be read", function()
    local path = "/etc/ssl/certs/ca-certificates.crt"
    if not lfs.attributes(path) then
      return pending("there is no " .. path)
    end
    assert.equal(UNKNOWN:format("Test Authority"), refuses("server", trusting(path)))
    accepts("server", trusting(contents(path) .. contents(CA)))
  end)

  it("'mozilla' is the embedded set, whatever the system trusts", function()
    assert.equal(UNKNOWN:format("Test Authority"), refuses("server", trusting("mozilla")))
    fill(file("store.pem"), contents(CA))
    local peer = serve("server")
    assert.equal("certificate\tnil\n", support.child(([[
      local tcp = require("tcp")
      local _, err = tcp.try_connect_tls("localhost", %d, { family = "ipv4", tls = { ca_bundle = "mozilla" } })
      print(err.kind, err.errno)
    ]]):format(peer.port), "env -u SSL_CERT_DIR SSL_CERT_FILE=" .. file("store.pem")))
  end)

  it("is read again by the next connect when the file has changed", function()
    local path = file("ca.pem", contents(CA))
    local peer = serve("server")
    accepts(nil, trusting(path), nil, peer)
    accepts(nil, trusting(path), nil, peer)
    fill(path, contents(certificate("stranger-ca")))
    assert.equal(UNKNOWN:format("Test Authority"), refuses(nil, trusting(path), nil, peer))
    os.remove(path)
    assert.equal(2, fails("system", connect(peer, trusting(path))).errno)
    fill(path, "nothing")
    fails("tls", connect(peer, trusting(path)))
    fill(path .. ".new", contents(CA))
    assert(os.rename(path .. ".new", path))
    accepts(nil, trusting(path), nil, peer)
    fill(path .. ".new", contents(certificate("stranger-ca")))
    assert(os.rename(path .. ".new", path))
    refuses(nil, trusting(path), nil, peer)
  end)

  it("is read again although the new content is as long and as old", function()
    -- As after `cp -p`, or after two writes within one tick of the file system's clock.
    local ours, theirs = contents(CA), contents(certificate("stranger-ca"))
    local length = math.max(#ours, #theirs)
    local path = file("ca.pem", ours .. ("\n"):rep(length - #ours))
    lfs.touch(path, 1e9, 1e9)
    local peer = serve("server")
    accepts(nil, trusting(path), nil, peer)
    fill(path, theirs .. ("\n"):rep(length - #theirs))
    lfs.touch(path, 1e9, 1e9)
    assert.equal(UNKNOWN:format("Test Authority"), refuses(nil, trusting(path), nil, peer))
  end)

  it("that cannot be read is told with its path", function()
    local peer = serve("server")
    for path, told in pairs {
      ["/no/such/ca.pem"] = { 2, "no such file or directory" },
      ["/"] = { 21, "is a directory" },
      [CA .. "/x"] = { 20, "not a directory" },
      ["Mozilla"] = { 2, "no such file or directory" },
    } do
      local err = fails("system", connect(peer, trusting(path)))
      assert.equal(told[1], err.errno)
      assert.equal(("cannot read ca_bundle '%s': %s"):format(path, told[2]), err.message)
      assert.equal("localhost:" .. peer.port, err.peer)
      assert.equal("connect", err.op)
    end
  end)

  it("that may not be read is told with its path", function()
    local prefix = "setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all"
    if not support.succeeds(prefix .. " true") then
      return pending("a plain user needs root and setpriv")
    end
    local path = file("ca.pem", contents(CA))
    os.execute("chmod 755 " .. certificates.folder() .. " && chmod 000 " .. path)
    -- The plain user may not read root's temporary files, so the script comes on the command line.
    local process = io.popen(([[%s %s -e '
      local tcp = require("tcp")
      local listener = tcp.listen("127.0.0.1", 0)
      local options = { tls = { ca_bundle = "%s" } }
      local _, err = tcp.try_connect("127.0.0.1", listener:local_port(), options)
      print(err.kind, err.errno, err.message)' 2>&1]]):format(prefix, support.LUA, path))
    local output = process:read("*a")
    process:close()
    assert.equal(("system\t13\tcannot read ca_bundle '%s': permission denied\n"):format(path), output)
  end)

  it("without a certificate that can be used is told as a failure of tls", function()
    local peer = serve("server")
    local text = contents(CA)
    local malformed = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    local path = file("bundle.pem")
    for content, told in pairs {
      [""] = "%s is empty",
      ["not PEM\n"] = "%s holds no certificate in PEM",
      ["\0\1\2\255"] = "%s holds no certificate in PEM",
      [contents(certificate("ca", "key"))] = "%s holds no certificate in PEM",
      [malformed] = "certificate 1 of %s is malformed",
      [text .. malformed .. text] = "certificate 2 of %s is malformed",
    } do
      fill(path, content)
      local err = fails("tls", connect(peer, trusting(path)))
      assert.equal(told:format("ca_bundle '" .. path .. "'"), err.message)
      if content:find("-----BEGIN ", 1, true) then
        err = fails("tls", connect(peer, trusting(content)))
        assert.equal(told:format("ca_bundle"), err.message)
      end
    end
    for _, content in ipairs { text:sub(1, -10), text:sub(1, 100), (text:gsub("\n", "")),
      (text:gsub("MII", "M!I", 1)) } do
      local err = fails("tls", connect(peer, trusting(content)))
      assert.matches("^ca_bundle is malformed PEM", err.message)
      -- Texts are for people: no dumps of bytes.
      assert.is_true(#err.message < 120 and not err.message:find("%d+, %d+"), err.message)
    end
  end)

  it("that is a pipe nobody writes to blocks nothing for ever, and no other task", function()
    local path = file("pipe")
    assert.is_true(support.succeeds("mkfifo " .. path))
    local output = support.child(([[
      local tcp = require("tcp")
      local ticks = 0
      local ticking = tcp.spawn(function()
        while true do
          tcp.sleep(0.05)
          ticks = ticks + 1
        end
      end)
      local options = { timeout = 0.5, tls = { ca_bundle = "%s" } }
      local conn, err = tcp.try_connect("127.0.0.1", 1, options)
      tcp.sleep(0.2)
      ticking:cancel()
      print(conn, tcp.is_error(err), ticks > 0)
    ]]):format(path), "timeout 5")
    assert.equal("nil\ttrue\ttrue\n", output)
  end)

  it("is needed in no case where verify is false", function()
    accepts("server", { verify = false, ca_bundle = "/no/such/ca.pem" })
  end)
end)

describe("the system's authorities", function()
  -- Connects without options to `peer`, and says how that went.
  local function verdict(peer, prefix)
    return support.child(([[
      local tcp = require("tcp")
      local conn, err = tcp.try_connect_tls("localhost", %d, { family = "ipv4" })
      if conn then
        print("verified", conn:read_line())
        conn:close()
      else
        print(err.kind, err.stage, err.message)
      end
    ]]):format(peer.port), "env -u SSL_CERT_FILE -u SSL_CERT_DIR " .. prefix)
  end

  local VERIFIED = "verified\thello\n"
  local STRANGE = "certificate\thandshake\t" .. UNKNOWN:format("Test Authority") .. "\n"

  it("are those of SSL_CERT_FILE, which are asked without being told to", function()
    assert.equal(VERIFIED, verdict(serve("server"), "SSL_CERT_FILE=" .. CA))
    assert.equal(VERIFIED, verdict(serve("chain"), "SSL_CERT_FILE=" .. CA))
    assert.equal(STRANGE, verdict(serve("server"), "SSL_CERT_FILE=" .. certificate("stranger-ca")))
    assert.matches("^certificate\thandshake\tthe certificate expired on ",
      verdict(serve("expired"), "SSL_CERT_FILE=" .. CA))
  end)

  it("are those of SSL_CERT_DIR", function()
    file("ca.pem", contents(CA))
    local hash = io.popen("openssl x509 -hash -noout -in " .. CA)
    local name = hash:read("*l")
    hash:close()
    file(name .. ".0", contents(CA))
    assert.equal(VERIFIED, verdict(serve("server"), "SSL_CERT_DIR=" .. certificates.folder()))
    fill(file(name .. ".0"), contents(certificate("stranger-ca")))
    fill(file("ca.pem"), contents(certificate("stranger-ca")))
    assert.equal(STRANGE, verdict(serve("server"), "SSL_CERT_DIR=" .. certificates.folder()))
  end)

  it("are no others where those variables name nothing that can be used", function()
    local peer = serve("server")
    local empty, nothing = file("empty.pem", ""), os.tmpname()
    os.remove(nothing)
    assert(lfs.mkdir(nothing))
    finally(function()
      lfs.rmdir(nothing)
    end)
    for _, setting in ipairs { "SSL_CERT_FILE=/no/such/file.pem", "SSL_CERT_FILE=" .. empty,
      "SSL_CERT_DIR=/no/such/folder", "SSL_CERT_DIR=" .. nothing,
      "SSL_CERT_FILE=" .. certificate("ca", "key"), "SSL_CERT_FILE=/" } do
      local output = verdict(peer, setting)
      assert.matches("^system\t%w+\tno authorities by SSL_CERT_%u+", output)
      assert.is_nil(output:find("^certificate"), output)
      local value = setting:match("=(.*)")
      if value:sub(1, 8) == "/no/such" or value == "/" then
        assert.is_truthy(output:find(value, 1, true), "the place is not named: " .. output)
      end
      assert.is_nil(output:find("[%u]%l+ {"), "not for people: " .. output)
    end
  end)

  it("are not needed where ca_bundle or verify = false replaces them", function()
    local peer = serve("server")
    assert.equal("true\ttrue\ttrue\n", support.child(([[
      local tcp = require("tcp")
      local function works(tls)
        local conn = tcp.try_connect("localhost", %d, { family = "ipv4", tls = tls })
        if conn then
          conn:close()
        end
        return conn ~= nil
      end
      local _, err = tcp.try_connect("localhost", %d, { family = "ipv4", tls = { ca_bundle = "mozilla" } })
      print(works { ca_bundle = "%s" }, works { verify = false }, tcp.is_error(err, "certificate"))
    ]]):format(peer.port, peer.port, CA), "env -u SSL_CERT_DIR SSL_CERT_FILE=/no/such/file.pem"))
  end)

  -- Where systems keep their authorities.
  local STORES = "/etc/ssl /etc/pki /etc/ca-certificates /usr/lib/ssl /usr/local/ssl /usr/share/ssl "
    .. "/usr/share/ca-certificates /usr/local/share/ca-certificates /etc/openssl /etc/certs /var/lib/ca-certificates"

  --- Words of the shell for a mount namespace without any authorities, in which `command` has been run.
  local function without_stores(command)
    return ("unshare -m sh -c 'for folder in %s; do if [ -d $folder ]; then mount -t tmpfs none $folder || exit 1; fi; "
      .. 'done; %s exec "$@"\' sh'):format(STORES, command or "")
  end

  it("are the embedded ones of Mozilla where the system has none", function()
    if not support.succeeds(without_stores() .. " true") then
      return pending("a system without authorities needs a mount namespace of its own (root)")
    end
    assert.equal(STRANGE, verdict(serve("server"), without_stores()))
  end)

  it("are found where the system keeps them", function()
    if not support.succeeds(without_stores() .. " true") or not lfs.attributes("/etc/ssl") then
      return pending("a system with other authorities needs a mount namespace of its own (root), and /etc/ssl")
    end
    local install = "mkdir /etc/ssl/certs; cp " .. CA .. " /etc/ssl/certs/ca-certificates.crt;"
    assert.equal(VERIFIED, verdict(serve("server"), without_stores(install)))
    assert.equal(VERIFIED, verdict(serve("server"), "SSL_CERT_FILE=" .. CA .. " " .. without_stores()))
    assert.matches("^system\tnil\tno authorities by SSL_CERT_FILE %('/no/such/file'%): cannot read",
      verdict(serve("server"), "SSL_CERT_FILE=/no/such/file " .. without_stores(install)))
  end)
end)
