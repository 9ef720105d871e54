-- What a server writes to stderr of handlers that fail, if it has no on_error or that fails itself.

local support = require("support")

-- Defines `serve`, whose handlers do what the client's first line names, and `ask(server, line)`, which gives the
-- answer once the handler has ended.
local COMMON = [[
  package.path = "lua-tests/?.lua;lua-tests/?/init.lua;" .. package.path
  local tcp = require("tcp.core")
  local transports = require("support.transports")
  local HOST = "127.0.0.1"
  local ways = { ok = function(conn) conn:write("served") end }
  local function serve(options)
    return tcp.serve(HOST, 0, function(conn)
      local way = ways[conn:read_line()]
      way(conn)
    end, options)
  end
  local function wait_until(condition)
    local deadline = tcp.now() + 20
    while not condition() do
      assert(tcp.now() < deadline)
      tcp.sleep(0.001)
    end
  end
  local function ask(server, line, leave)
    local client = tcp.connect(HOST, server:local_port(), { tls = %s })
    wait_until(function() return server:connections() > 0 end)
    client:write_line(line)
    local answer
    if leave then
      leave(client)
    else
      answer = client:read_str()
    end
    client:close()
    wait_until(function() return server:connections() == 0 end)
    return answer
  end
]]

local PLAIN, TLS = COMMON:format("nil"), COMMON:format("transports.CLIENT")

local VALUES = {
  ["a string"] = { "'plain'", "plain" },
  ["a table"] = { "{}", "table: " },
  ["a number"] = { "7", "7" },
  ["false"] = { "false", "false" },
  ["nil"] = { "nil", "nil" },
  ["a function"] = { "print", "function: " },
  ["an error object"] = { "select(2, tcp.json.try_decode('['))", "decode: " },
  ["a table whose __tostring fails"] = { "setmetatable({}, { __tostring = function() error('evil') end })", "" },
}

local LINE = "tcp: a handler %(/[^:]+:%d+%) failed: "

describe("a server's default on_error", function()
  for name, value in pairs(VALUES) do
    it("writes of " .. name .. ", names the handler and shows the stack; the server goes on", function()
      local output = support.child(PLAIN .. ([[
        local value = %s
        function ways.fail() error(value, 0) end
        local server = serve()
        io.stderr:write("[", ask(server, "fail"), "]\n")
        io.stderr:write("[", ask(server, "ok"), "]\n")
        server:close()
      ]]):format(value[1]))
      assert.matches("^" .. LINE .. value[2] .. ".*\nstack traceback:\n.*\n%[%]\n%[served%]\n$", output)
      local _, count = output:gsub("tcp: ", "")
      assert.equal(1, count, output)
    end)
  end

  it("is silent if the client left", function()
    assert.equal("done\n", support.child(PLAIN .. [[
      local server = serve()
      function ways.read(conn) conn:read_line() end
      function ways.read_more(conn) conn:read(1000000) end
      function ways.write(conn)
        conn:set_write_timeout(20)
        while true do conn:write(("x"):rep(100000)) end
      end
      -- It does not matter which task was told first.
      function ways.join(conn)
        tcp.spawn(function() return (conn:read_line()) end):join()
      end
      local function close(client) client:close() end
      local function reset(client)
        client:set_option("linger", 0)
        client:close()
      end
      for _, leave in ipairs { close, reset } do
        for _, name in ipairs { "read", "read_more", "write", "join" } do
          ask(server, name, leave)
        end
      end
      server:close()
      print("done")
    ]]))
  end)

  it("is silent if the client left and the handler closed the connection then", function()
    assert.equal("done\n", support.child(PLAIN .. [[
      local server = serve()
      function ways.tidy(conn)
        local _, err = conn:try_read_line()
        conn:close()
        error(err, 0)
      end
      ask(server, "tidy", function(client) client:close() end)
      ask(server, "tidy", function(client)
        client:set_option("linger", 0)
        client:close()
      end)
      server:close()
      print("done")
    ]]))
  end)

  it("is silent if the client left a TLS connection, with and without a word", function()
    assert.equal("done\n", support.child(TLS .. [[
      local server = serve { tls = transports.SERVER }
      local kind
      function ways.read(conn)
        conn:write_line("now")
        local _, err = conn:try_read_line()
        kind = err.kind
        error(err, 0)
      end
      ask(server, "read", function(client) client:close() end)
      assert(kind == "closed", kind)
      -- A relay that goes when the server has answered: no closing alert comes.
      local middle = tcp.listen(HOST, 0)
      local function carry(from, to)
        local data = from:try_recv()
        while data and to:try_write(data) do data = from:try_recv() end
      end
      local near, far
      tcp.spawn(function()
        near, far = middle:accept(), tcp.connect(HOST, server:local_port())
        tcp.spawn(carry, near, far)
        carry(far, near)
      end)
      local relayed = { local_port = function() return middle:local_port() end,
        connections = function() return server:connections() end }
      ask(relayed, "read", function(client)
        client:read_line()
        far:close()
        near:close()
      end)
      middle:close()
      assert(kind == "truncated", kind)
      -- Before the handshake has ended, too.
      for _, greeting in ipairs { "", "\22\3\1" } do
        for _, linger in ipairs { false, 0 } do
          local client = tcp.connect(HOST, server:local_port())
          wait_until(function() return server:connections() > 0 end)
          client:write(greeting)
          if linger then client:set_option("linger", linger) end
          client:close()
          wait_until(function() return server:connections() == 0 end)
        end
      end
      server:close()
      print("done")
    ]]))
  end)

  for what, case in pairs {
    ["another connection that ended"] = { "read_line .*closed", [[
      local listener = tcp.listen(HOST, 0)
      local near = tcp.connect(HOST, listener:local_port())
      listener:accept():close()
      listener:close()
      local line, err = near:try_read_line()
      near:close()
      error(err, 0)
    ]] },
    ["a closed queue"] = { "push.*closed", "local queue = tcp.queue() queue:close() queue:push(1)" },
    ["a connection that the handler had closed"] = { "read_line .*closed", "conn:close() conn:read_line()" },
    ["a connection that the handler had shut down"] = { "write .*", "conn:shutdown('send') conn:write('x')" },
    ["a text that names it"] = { "^closed: ", "error('closed: by whom?', 0)" },
    ["a timeout"] = { "read_line .*timed out", "conn:read_line({ timeout = 0.001 })" },
    ["another task that was cancelled"] = { "join: .*cancelled",
      "local task = tcp.spawn(tcp.sleep, 60) task:cancel() task:join()" },
    ["a limit that struck"] = { "with_timeout: ", "tcp.with_timeout(0, tcp.sleep, 60)" },
  } do
    it("writes of " .. what, function()
      local output = support.child(PLAIN .. ([[
        function ways.fail(conn) %s end
        local server = serve()
        io.stderr:write("[", ask(server, "fail"), "]\n")
        server:close()
      ]]):format(case[2]))
      local text = output:match("^" .. LINE .. "(.*)\n%[%]\n$")
      assert.is_truthy(text, ("it said %q"):format(output))
      assert.matches(case[1], text)
    end)
  end

  it("takes no other connection on a unix path for the client's", function()
    local output = support.child(PLAIN .. [[
      local path = "unix:" .. os.tmpname() .. ".socket"
      local kept
      local server = tcp.serve(path, nil, function(conn)
        if conn:read_line() == "keep" then
          kept = conn
          tcp.sleep(60)
        end
        kept:read_line()
      end)
      local first, second = tcp.connect(path), tcp.connect(path)
      first:write_line("keep")
      wait_until(function() return kept end)
      first:close()
      second:write_line("read from the other")
      io.stderr:write("[", second:read_str(), "]\n")
      second:close()
      server:close(0)
    ]])
    assert.matches("^" .. LINE .. ".*read_line .*closed.*\n%[%]\n$", output)
  end)

  it("writes of a handshake that failed though the client stayed", function()
    local output = support.child(TLS .. [[
      local server = serve { tls = transports.SERVER }
      local client = tcp.connect(HOST, server:local_port())
      client:write("GET / HTTP/1.1\r\n\r\n")
      client:try_read_str()
      client:close()
      io.stderr:write("[", ask(server, "ok"), "]\n")
      server:close()
      server = serve { tls = transports.SERVER, handshake_timeout = 0.1 }
      client = tcp.connect(HOST, server:local_port())
      client:try_read_str()
      client:close()
      server:close()
    ]])
    local lines = {}
    for line in output:gmatch("[^\n]+") do
      lines[#lines + 1] = line
    end
    assert.equal(3, #lines, output)
    assert.matches("^tcp: a TLS handshake failed: handshake 127%.0%.0%.1:%d+: " ..
      'the client does not speak TLS here: it sent "GET / HTTP/1.1"', lines[1])
    assert.equal("[served]", lines[2])
    assert.matches("^tcp: a TLS handshake failed: .*the TLS handshake took too long", lines[3])
  end)

  it("says nothing of handlers that close has cancelled, whatever they did then", function()
    assert.equal("done\n", support.child(PLAIN .. [[
      local begun = 0
      local function wait() begun = begun + 1 tcp.sleep(60) end
      function ways.wait() wait() end
      function ways.fail() tcp.pcall(wait) error("in tidying up") end
      function ways.read(conn) begun = begun + 1 conn:read_line() end
      local server, clients = serve(), {}
      for name in pairs(ways) do
        if name ~= "ok" then
          local client = tcp.connect(HOST, server:local_port())
          client:write_line(name)
          clients[#clients + 1] = client
        end
      end
      while begun < 3 do tcp.sleep(0.001) end
      server:close(0)
      for _, client in ipairs(clients) do client:close() end
      tcp.run()
      print("done")
    ]]))
  end)
end)

describe("an on_error that fails", function()
  for name, value in pairs(VALUES) do
    it("with " .. name .. " is told on stderr; the connection is closed, and the server goes on", function()
      local output = support.child(PLAIN .. ([[
        local value = %s
        function ways.fail() error("first", 0) end
        local server = serve { on_error = function() error(value, 0) end }
        tcp.on_error = function() io.stderr:write("told to tcp.on_error\n") end
        io.stderr:write("[", ask(server, "fail"), "]\n")
        io.stderr:write("[", ask(server, "ok"), "]\n")
        server:close()
      ]]):format(value[1]))
      assert.matches("^tcp: on_error failed: " .. value[2] .. ".*\n%[%]\n%[served%]\n$", output)
      assert.is_nil(output:find("told to", 1, true))
    end)
  end

  it("because the client left is told, too: it should have used try_", function()
    local output = support.child(PLAIN .. [[
      function ways.fail(conn)
        conn:try_read_line()
        error("first", 0)
      end
      local server = serve { on_error = function(_, conn) conn:read_line() end }
      ask(server, "fail", function(client) client:close() end)
      server:close()
    ]])
    assert.matches("^tcp: on_error failed: .*closed", output)
  end)
end)
