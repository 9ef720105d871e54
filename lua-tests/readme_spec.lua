-- The README's code is run as it stands, except that its ports are those of peers. The comment in front of a block says
-- what its peer does: `<!-- peer PORT: ACTION ... -->`, a quoted text being bytes to send. What a line prints stands
-- behind `-->` in it. A server's comment says what it answers: `<!-- server PORT: "question" gets "answer" -->`.
--
-- With `tls` in front, both speak TLS, and the tests' authority is the system's. A `self-signed` peer's certificate is
-- server.pem.

local peers = require("support.peers")
local support = require("support")
local transports = require("support.transports")
local tcp = require("tcp.core")

local function read_file(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

local ESCAPES = { r = "\r", n = "\n", ["0"] = "\0" }

local function unquote(text)
  text = text:gsub("\\x(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
  return (text:gsub("\\(.)", function(letter) return ESCAPES[letter] or letter end))
end

--- The words of a peer's comment; quoted ones, which may hold escaped quotes, become actions that send.
local function actions_of(comment)
  local actions = {}
  local rest = comment
  while rest ~= "" do
    local quoted, after = rest:match('^"(.-[^\\])"%s*(.*)$')
    if quoted then
      actions[#actions + 1] = { "send", unquote(quoted) }
    else
      local word
      word, after = rest:match("^(%S+)%s*(.*)$")
      actions[#actions + 1] = word
    end
    rest = after
  end
  return actions
end

local unpack = table.unpack or unpack

-- What a word in front of `peer` and `server` means: the words of the peer, and which certificate is server.pem.
local CERTIFICATES = { tls = "server", ["self-signed"] = "self-signed" }
local TRUST = "SSL_CERT_FILE=" .. transports.certificate("ca")

--- The code with the port and the certificate of a test.
local function adapted(code, port, actual, name)
  code = code:gsub(port, tostring(actual))
  if name then
    code = code:gsub('"server%.(%a+)"', function(kind)
      return '"' .. transports.certificate(name, kind) .. '"'
    end)
  end
  return code
end

describe("the README", function()
  local count = 0
  for word, port, comment, code in
    read_file("README.md"):gmatch("<!%-%- ([%w-]*) ?peer (%d+): (.-) %-%->\n```lua\n(.-)```") do
    count = count + 1
    it("has code that runs: " .. code:match("= (tcp%.[^\n]-%))"), function()
      local name, actions = CERTIFICATES[word], actions_of(comment)
      if name then
        table.insert(actions, 1, { "--tls", name })
      end
      if word == "self-signed" then
        -- The first connection is refused.
        table.insert(actions, 2, "accept")
      end
      local peer = peers.start(unpack(actions))
      local expected = {}
      for line in code:gmatch("%-%-> ([^\n]*)") do
        expected[#expected + 1] = line .. "\n"
      end
      assert.equal(table.concat(expected), support.child(adapted(code, port, peer.port, name), TRUST))
    end)
  end

  for word, port, question, answer, code in
    read_file("README.md"):gmatch('<!%-%- ([%w-]*) ?server (%d+): "(.-)" gets "(.-)" %-%->\n```lua\n(.-)```') do
    count = count + 1
    it("has a server that runs: " .. code:match("= (tcp%.[^\n]-%))"), function()
      local free = tcp.listen("127.0.0.1", 0)
      local at = free:local_port()
      free:close()
      local over = CERTIFICATES[word] and transports.tls or transports.plain
      support.with_child(adapted(code, port, at, CERTIFICATES[word]), function()
        local conn
        for _ = 1, 500 do
          conn = over.tcp.try_connect("127.0.0.1", at)
          if conn then
            break
          end
          tcp.sleep(0.01)
        end
        conn:write(unquote(question))
        assert.equal(unquote(answer), conn:read(#unquote(answer), { timeout = 5 }))
        conn:close()
      end)
    end)
  end

  it("has no code that is not run", function()
    local _, blocks = read_file("README.md"):gsub("\n```lua\n", "")
    assert.is_true(count >= 4)
    assert.equal(blocks, count)
  end)

  it("links to nothing that is not there", function()
    for path in read_file("README.md"):gmatch("%]%(([^):]+)%)") do
      assert.is_truthy(require("lfs").attributes(path), path .. " is missing")
    end
  end)
end)
