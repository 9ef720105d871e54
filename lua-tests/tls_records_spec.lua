-- Records of TLS as nobody should send them, and as few do.

local peers = require("support.peers")
local relays = require("support.relays")
local servers = require("support.servers")
local sessions = require("support.sessions")
local support = require("support")
local tcp = require("tcp.core")
local transports = require("support.transports")

local fails = support.fails
local PATIENCE = 10

--- What both ends of a connection come to whose records are changed on their way: what they read, or their errors.
local function between(protocol, changes)
  local server = sessions.listen()
  local port, relaying = relays.start(server:local_port(), changes)
  local far, far_err
  local serving = tcp.spawn(function()
    local conn = server:accept(PATIENCE)
    conn:set_timeout(PATIENCE)
    far, far_err = conn:try_read_line()
    if far then
      conn:try_write("answer\n")
      conn:try_shutdown("send")
      -- Up to the client's last word.
      far_err = select(2, conn:try_read_str())
    end
    conn:close()
  end)
  local began = tcp.now()
  local near, err
  local conn
  conn, err = tcp.try_connect("127.0.0.1", port,
    { timeout = PATIENCE, tls = sessions.fresh { protocols = { protocol } } })
  if conn then
    conn:set_timeout(PATIENCE)
    conn:try_write("request\n")
    near, err = conn:try_read_str()
    conn:close()
  end
  serving:join(2 * PATIENCE)
  relaying:join(2 * PATIENCE)
  server:close()
  tcp.run()
  assert.is_true(tcp.now() - began < PATIENCE / 2, "it waited")
  return near, far, err, far_err
end

--- Puts these bytes behind one record, in its segment or in one of their own.
local function behind(number, bytes, is_apart)
  return function(record, at)
    if at ~= number then
      return nil
    end
    return is_apart and { record, bytes } or record .. bytes
  end
end

local function alert(level, description)
  return "\21\3\3\0\2" .. string.char(level, description)
end

local NAMES = { [40] = "handshake_failure", [90] = "user_canceled", [112] = "unrecognized_name" }

for _, protocol in ipairs(sessions.VERSIONS) do
  describe("an alert in the clear by " .. protocol, function()
    for _, is_apart in ipairs { false, true } do
      local where = is_apart and ", apart" or ", in one segment"

      for from, to in pairs { server = "client", client = "server" } do
        it(("of the %s in the middle of its handshake ends it, if it is fatal%s"):format(from, where), function()
          for number, name in pairs(NAMES) do
            if not (protocol == "TLSv1.3" and name == "user_canceled") then
              local near, far, err, far_err = between(protocol, { [from] = behind(1, alert(2, number), is_apart) })
              local told = to == "client" and err or far_err
              assert.is_nil(near)
              assert.is_nil(far)
              assert.equal("tls", told.kind)
              assert.equal("handshake", told.stage)
              assert.equal(name, told.alert)
              assert.equal(("the %s broke off with TLS alert %s"):format(from, name), told.message)
            end
          end
        end)

        it(("of the %s is heeded as its version says, if it is a warning%s"):format(from, where), function()
          for number, name in pairs(NAMES) do
            local near, far, err, far_err = between(protocol, { [from] = behind(1, alert(1, number), is_apart) })
            -- TLS 1.3 knows no other warning (RFC 8446, section 6).
            if protocol == "TLSv1.2" or name == "user_canceled" then
              assert.same({ "answer\n", "request" }, { near, far })
            else
              local told = to == "client" and err or far_err
              assert.equal("tls", told.kind)
              assert.equal(name, told.alert)
            end
          end
        end)

        it(("of the %s never ends what was read, though it says goodbye%s"):format(from, where), function()
          for level = 1, 2 do
            local near, far, err, far_err = between(protocol, { [from] = behind(1, alert(level, 0), is_apart) })
            if near then
              -- Nobody heeds it who does not know who said it.
              assert.same({ "answer\n", "request" }, { near, far })
            else
              local told = to == "client" and err or far_err
              assert.equal("closed", told.kind)
              assert.equal("handshake", told.stage)
            end
          end
        end)
      end
    end

    it("after the handshake is no alert of the peer", function()
      for _, bytes in ipairs { alert(1, 0), alert(2, 40), "\23\3\3\0\5hello", "\23\3\3\0\0", "\20\3\3\0\1\1" } do
        local is_first = true
        local near, _, err = between(protocol, { server = function(record)
          -- Of 16 bytes and what seals them at most is the answer only.
          if record:byte() == 23 and #record < 45 and is_first then
            is_first = false
            return bytes .. record
          end
        end })
        if near then
          -- TLS 1.2 leaves no doubt; 1.3 takes no notice of a change of ciphers.
          assert.equal("answer\n", near)
          assert.equal("TLSv1.3", protocol)
        else
          assert.equal("tls", err.kind)
          assert.is_nil(err.alert)
        end
      end
    end)
  end)

  describe("a record of a wrong length by " .. protocol, function()
    for from in pairs { server = 1, client = 1 } do
      for _, change in ipairs { -1, 1, -16, "zero", "huge", "the most" } do
        it(("from the %s is refused: %s"):format(from, change), function()
          local number = 0
          repeat
            number = number + 1
            local is_there = false
            local near, far, err, far_err = between(protocol, { [from] = function(record, at)
              if at ~= number then
                return nil
              end
              is_there = true
              local length = record:byte(4) * 256 + record:byte(5)
              local wrong = ({ zero = 0, huge = 65535, ["the most"] = 16641 })[change] or math.max(0, length + change)
              -- What is over looks like no record: others would be waited for.
              return record:sub(1, 3) .. string.char(math.floor(wrong / 256), wrong % 256) .. record:sub(6, 5 + wrong)
                .. ("\0"):rep(math.abs(wrong - length))
            end })
            if is_there then
              assert.is_true(err ~= nil or far_err ~= nil, "record " .. number)
              assert.is_true(near == nil or near == "answer\n")
              assert.is_true(far == nil or far == "request")
              for _, it in ipairs { err or false, far_err or false } do
                if it then
                  assert.is_truthy(({ tls = 1, closed = 1, reset = 1, truncated = 1 })[it.kind], tostring(it))
                end
              end
            end
          until not is_there or number == 8
        end)
      end
    end
  end)

  describe("a handshake by " .. protocol, function()
    --- The handshake messages of one record, in records of so many bytes, `count` of them in one segment.
    local function fragments(size, count)
      return function(record)
        if record:byte() ~= 22 then
          return nil
        end
        local segments, segment = {}, ""
        for at = 6, #record, size do
          local part = record:sub(at, at + size - 1)
          segment = segment .. record:sub(1, 3) .. string.char(math.floor(#part / 256), #part % 256) .. part
          if #segment >= (count or math.huge) * (size + 5) then
            segments[#segments + 1] = segment
            segment = ""
          end
        end
        segments[#segments + 1] = segment
        return segments
      end
    end

    for from, _ in pairs { server = 1, client = 1 } do
      it(("whose %s's first message is cut into small records succeeds"):format(from), function()
        for _, cut in ipairs { fragments(1), fragments(1, 7), fragments(7), fragments(100, 1) } do
          local near, far, err, far_err = between(protocol, { [from] = function(record, number)
            return number == 1 and cut(record) or nil
          end })
          assert.same({ "answer\n", "request" }, { near, far }, tostring(err) .. tostring(far_err))
        end
      end)

      it(("whose %s's records come byte by byte succeeds"):format(from), function()
        local near, far = between(protocol, { [from] = function(record)
          local segments = {}
          for at = 1, #record do
            segments[at] = record:sub(at, at)
          end
          return segments
        end })
        assert.same({ "answer\n", "request" }, { near, far })
      end)
    end

    it("that a burst of 1 MiB follows at once takes all of it, both ways", function()
      local large = ("0123456789abcdef"):rep(65536)
      local listener = sessions.listen()
      local got
      local serving = tcp.spawn(function()
        local conn = listener:accept(PATIENCE)
        local writing = tcp.spawn(function()
          conn:write(large)
          conn:shutdown("send")
        end)
        got = conn:read_str()
        writing:join(PATIENCE)
        conn:close()
      end)
      local conn = tcp.connect("127.0.0.1", listener:local_port(),
        { tls = sessions.fresh { protocols = { protocol } } })
      local writing = tcp.spawn(function()
        conn:write(large)
        conn:shutdown("send")
      end)
      assert.is_true(large == conn:read_str())
      writing:join(PATIENCE)
      serving:join(PATIENCE)
      assert.is_true(large == got)
      conn:close()
      listener:close()
      tcp.run()
    end)

    it("of a server of another kind that a burst of 1 MiB follows at once takes all of it", function()
      local peer = peers.start({ protocol == "TLSv1.2" and "--tls12" or "--tls", "server" }, "accept",
        { "repeat", 1024, ("0123456789abcdef"):rep(64) }, "close")
      local conn = tcp.connect_tls("127.0.0.1", peer.port, { tls = sessions.fresh() })
      -- All of it has come before any is read.
      tcp.sleep(0.05)
      assert.is_true(("0123456789abcdef"):rep(65536) == conn:read_str({ timeout = PATIENCE }))
      conn:close()
    end)
  end)
end

describe("records without end", function()
  local EMPTY = { ["empty handshake"] = "\22\3\3\0\0", ["empty data"] = "\23\3\3\0\0", ["empty alert"] = "\21\3\3\0\0",
    ["change of ciphers"] = "\20\3\3\0\1\1", ["empty change of ciphers"] = "\20\3\3\0\0",
    ["warning"] = alert(1, 90), ["unknown"] = "\99\3\3\0\0" }

  for name, record in pairs(EMPTY) do
    it("from a server are refused before its hello: " .. name, function()
      local peer = peers.start("accept", { "repeat", 200000, record }, "stall")
      local began = tcp.now()
      local err = fails("tls", tcp.try_connect_tls("127.0.0.1", peer.port, { timeout = 20, tls = transports.CLIENT }))
      assert.equal("handshake", err.stage)
      assert.is_true(tcp.now() - began < 5)
    end)

    it("from a client are refused before its hello: " .. name, function()
      local conn, client, listener = transports.plain_client()
      local writing = tcp.spawn(function()
        for _ = 1, 200 do
          if not client:try_write(record:rep(1000)) then
            return
          end
        end
      end)
      local err = fails("tls", conn:try_read_line({ timeout = PATIENCE }))
      assert.equal("handshake", err.stage)
      conn:close()
      writing:join(PATIENCE)
      transports.close_all(client, listener)
    end)
  end

  for _, protocol in ipairs(sessions.VERSIONS) do
    for from in pairs { server = 1, client = 1 } do
      it(("in the middle of the handshake end it: of the %s by %s"):format(from, protocol), function()
        for _, name in ipairs { "empty handshake", "empty data", "change of ciphers", "warning" } do
          local near, far, err, far_err = between(protocol, { [from] = behind(1, EMPTY[name]:rep(20000)) })
          assert.same({}, { near, far })
          assert.equal("tls", (from == "server" and err or far_err).kind, name)
        end
      end)
    end
  end

  it("of one message from a client take no memory without end", function()
    local conn, client, listener = transports.plain_client()
    local writing = tcp.spawn(function()
      client:try_write("\22\3\1\64\0\1\255\255\255" .. ("\0"):rep(16380))
      for _ = 1, 2000 do
        if not client:try_write("\22\3\1\64\0" .. ("\0"):rep(16384)) then
          return
        end
      end
    end)
    local err = fails("tls", conn:try_read_line({ timeout = PATIENCE }))
    assert.equal("handshake", err.stage)
    conn:close()
    writing:join(PATIENCE)
    transports.close_all(client, listener)
  end)
end)

describe("a client that wants another handshake", function()
  if not servers.find("openssl") then
    pending("openssl is not installed: apt-get install openssl")
    return
  end

  --- What a server of ours reads, one line or error after the other, while openssl is told this on its terminal.
  local function converse(words, input, count)
    local listener = sessions.listen()
    local process = assert(io.popen(("{ %s; } | openssl s_client -connect 127.0.0.1:%d %s 2>&1")
      :format(input, listener:local_port(), words), "r"))
    local conn = listener:accept(PATIENCE)
    local lines, err = {}, nil
    for i = 1, count do
      lines[i], err = conn:try_read_line({ timeout = PATIENCE })
      if err then
        break
      end
      conn:write_line("got " .. lines[i])
    end
    conn:close()
    listener:close()
    local output = process:read("*a")
    process:close()
    tcp.run()
    return lines, err, output
  end

  it("by TLS 1.2 is refused, and loses nothing of what it had said", function()
    local lines, err, output = converse("-tls1_2", "echo one; sleep 0.2; echo R; sleep 0.2; echo two; sleep 0.2", 2)
    assert.matches("RENEGOTIATING", output)
    assert.equal("one", lines[1])
    assert.matches("got one", output)
    -- It may be told no, or be left (RFC 5246, section 7.2.2).
    assert.is_true(lines[2] == "two" or err ~= nil and err.kind ~= "timeout", tostring(err))
  end)

  it("by TLS 1.2 as its first words is refused, too", function()
    local lines, err, output = converse("-tls1_2", "sleep 0.2; echo R; sleep 0.2; echo one; sleep 0.2", 1)
    assert.matches("RENEGOTIATING", output)
    assert.is_true(lines[1] == "one" or err ~= nil and err.kind ~= "timeout", tostring(err))
  end)
end)
