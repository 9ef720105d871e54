-- Whose leaving an error tells of: a server's default on_error is silent about that of the handler's own client, and
-- about nobody else's.

local support = require("support")

-- Defines `ask`: a client sends a line, ends its side, and the handler does what the line says once it has seen that.
-- Its answer is given when the handler has ended. `ways` get the handler's connection, and do what fails.
local COMMON = [[
  package.path = "lua-tests/?.lua;lua-tests/?/init.lua;" .. package.path
  local tcp = require("tcp.core")
  local transports = require("support.transports")
  local HOST, PATIENCE = "127.0.0.1", { timeout = 30 }
  local ways = {}

  --- Both ends of a connection with a backend: what the handler has, and the backend's.
  local function backend(tls)
    local listener = tcp.listen(HOST, 0, { tls = tls and transports.SERVER })
    local task = tcp.spawn(function()
      local far = listener:accept()
      if tls then far:handshake() end
      return far
    end)
    local near = tcp.connect(HOST, listener:local_port(), { timeout = 30, tls = tls and transports.CLIENT })
    local far = task:join()
    listener:close()
    return near, far
  end

  --- A connection with a backend over TLS that ends without its closing alert.
  local function cut_backend()
    local inside = tcp.listen(HOST, 0, { tls = transports.SERVER })
    local middle = tcp.listen(HOST, 0)
    local left, right
    tcp.spawn(function()
      left, right = middle:accept(), tcp.connect(HOST, inside:local_port(), PATIENCE)
      tcp.spawn(tcp.try_copy, left, right)
      tcp.try_copy(right, left)
    end)
    tcp.spawn(function() inside:accept():write_line("hello") end)
    local near = tcp.connect(HOST, middle:local_port(), { timeout = 30, tls = transports.CLIENT })
    near:read_line()
    left:close()
    right:close()
    middle:close()
    inside:close()
    return near
  end

  local function ask(line)
    local server = tcp.serve(HOST, 0, function(conn)
      local way = ways[conn:read_line()]
      assert(conn:recv() == nil)
      way(conn)
    end)
    local client = tcp.connect(HOST, server:local_port(), PATIENCE)
    client:write_line(line)
    client:shutdown("send")
    client:read_str()
    client:close()
    server:close(math.huge)
    tcp.run()
  end
]]

-- Failures of another connection, each by the kind that it is told as.
local OTHERS = {
  closed = "local near, far = backend() far:close()",
  reset = "local near, far = backend() far:set_option('linger', 0) far:close()",
  truncated = "local near = cut_backend()",
}

-- Ways for an error of `near` to leave the handler.
local RAISES = {
  ["raised by a read"] = "near:read_line()",
  ["raised by a copy"] = "near:read_str() tcp.copy(near, conn) near:read(1)",
  ["raised again"] = "local _, err = near:try_read_line() error(err)",
  ["raised by a join"] = "tcp.spawn(function() return (near:read_line()) end):join()",
  ["raised after the connection was closed"] = "local _, err = near:try_read_line() near:close() error(err, 0)",
}

describe("a server's default on_error, when the client has ended its side,", function()
  for kind, prepare in pairs(OTHERS) do
    for how, fail in pairs(RAISES) do
      it(("writes that another connection was %s, %s"):format(kind, how), function()
        local output = support.child(COMMON .. ([[
          local kind
          function ways.fail(conn)
            %s
            local ok, err = tcp.pcall(function() %s end)
            kind = err.kind
            error(err, 0)
          end
          ask("fail")
          io.stderr:write("[", kind, "]\n")
        ]]):format(prepare, fail))
        assert.matches("^tcp: a handler %(/[^:]+:%d+%) failed: .*\n%[" .. kind .. "%]\n$", output)
      end)
    end
  end

  it("writes that another connection was reset in the middle of a write", function()
    local output = support.child(COMMON .. [[
      function ways.fail()
        local near, far = backend()
        far:set_option("linger", 0)
        far:close()
        while true do near:write(("x"):rep(100000)) end
      end
      ask("fail")
    ]])
    assert.matches("^tcp: a handler .* failed: .*write 127%.0%.0%.1:%d+: ", output)
  end)

  it("writes that a backend hung up during the handshake, and that a queue was closed", function()
    local output = support.child(COMMON .. [[
      function ways.connect()
        local listener = tcp.listen(HOST, 0)
        tcp.spawn(function() listener:accept():close() end)
        tcp.connect_tls(HOST, listener:local_port())
      end
      function ways.queue()
        local queue = tcp.queue()
        queue:close()
        queue:push(1)
      end
      ask("connect")
      ask("queue")
    ]])
    assert.matches("^tcp: a handler .*connect_tls.*\ntcp: a handler .*push", output)
  end)

  for how, fail in pairs(RAISES) do
    it("is silent about the client's own, " .. how, function()
      assert.equal("closed\n", support.child(COMMON .. ([[
        local kind
        function ways.fail(near)
          local conn = near
          local ok, err = tcp.pcall(function() %s end)
          kind = err.kind
          error(err, 0)
        end
        ask("fail")
        print(kind)
      ]]):format(fail:gsub("tcp%.copy%b()", ""))))
    end)
  end

  it("is silent about every read, write, and iterator of the client's", function()
    assert.equal("done\n", support.child(COMMON .. [[
      local reads = {
        "read_line", "read_packet", "read_json", "read_json_packet",
        read = 5, read_bytes = 5, read_until = ";",
      }
      for name, argument in pairs(reads) do
        if type(name) == "number" then
          name, argument = argument, nil
        end
        ways[name] = function(conn) conn[name](conn, argument) end
      end
      for name in pairs(ways) do
        ask(name)
      end
      local server
      server = tcp.serve(HOST, 0, function(conn)
        assert(conn:read_line() == "write")
        assert(conn:try_recv() == nil)
        while true do
          conn:write_packet(("x"):rep(100000))
        end
      end)
      local client = tcp.connect(HOST, server:local_port(), PATIENCE)
      client:write_line("write")
      client:shutdown("send")
      client:read(100000)
      client:close()
      server:close(math.huge)
      print("done")
    ]]))
  end)
end)
