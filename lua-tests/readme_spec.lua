-- The README's code is run as it stands, except that its ports are those of peers. The comment in front of a block says
-- what its peer does: `<!-- peer PORT: ACTION ... -->`, a quoted text being bytes to send. What a line prints stands
-- behind `-->` in it. A server's comment says what it answers: `<!-- server PORT: "question" gets "answer" -->`.

local peers = require("support.peers")
local support = require("support")
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

describe("the README", function()
  local count = 0
  for port, comment, code in read_file("README.md"):gmatch("<!%-%- peer (%d+): (.-) %-%->\n```lua\n(.-)```") do
    count = count + 1
    it("has code that runs: " .. code:match("tcp%.[^\n]*"), function()
      local peer = peers.start(unpack(actions_of(comment)))
      local expected = {}
      for line in code:gmatch("%-%-> ([^\n]*)") do
        expected[#expected + 1] = line .. "\n"
      end
      assert.equal(table.concat(expected), support.child((code:gsub(port, tostring(peer.port)))))
    end)
  end

  for port, question, answer, code in
    read_file("README.md"):gmatch('<!%-%- server (%d+): "(.-)" gets "(.-)" %-%->\n```lua\n(.-)```') do
    count = count + 1
    it("has a server that runs: " .. code:match("tcp%.[^\n]*"), function()
      local free = tcp.listen("127.0.0.1", 0)
      local at = free:local_port()
      free:close()
      support.with_child((code:gsub(port, tostring(at))), function()
        local conn
        for _ = 1, 500 do
          conn = tcp.try_connect("127.0.0.1", at)
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
