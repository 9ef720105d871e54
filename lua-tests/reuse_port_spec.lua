-- Several interpreters behind one port.

local serving = require("support.serving")
local support = require("support")
local tcp = require("tcp.core")

local cleanly, is_served = serving.cleanly, serving.is_served
local fails = support.fails

-- Says its name to every client; one that says "stop" is told how many there were, and ends it.
local MEMBER = [[
  local tcp = require("tcp")
  local served = 0
  local server
  server = tcp.serve(%q, %d, function(conn)
    if conn:read_line() == "stop" then
      server:close()
      conn:write_line(tostring(served))
    else
      served = served + 1
      conn:write_line(%q)
    end
  end, { reuse_port = true, %s })
  io.stderr:write(server:local_port(), "\n")
  tcp.run()
  print("ended")
]]

-- Would share the port, too.
local THIEF = [[
  local _, err = require("tcp").try_serve("127.0.0.1", %d, print, { reuse_port = true })
  print(err.kind)
]]

local TLS = 'tls = { cert = "build/certificates/server.pem", key = "build/certificates/server.key" }'

--- Has `use` called with the port that so many interpreters share, their outputs and their ids.
local function with_members(over, host, count, use)
  local processes, pids = {}, {}
  local function begin(port)
    local i = #pids + 1
    if i > count then
      return use(port, processes, pids)
    end
    local script = MEMBER:format(host, port, "member " .. i, over.is_tls and TLS or "")
    support.with_child(script, function(process, pid)
      local line = process:read("*l")
      processes[i], pids[i] = process, pid
      begin(assert(tonumber(line), line))
    end)
  end
  begin(0)
end

--- What the member that gets the connection answers to a line.
local function ask(over, host, port, line)
  local place = { local_host = function() return host end, local_port = function() return port end }
  local client = over.connect(place)
  client:write_line(line)
  local answer = client:read_line()
  client:close()
  return answer
end

for _, case in ipairs {
  { serving.plain, "127.0.0.1", "127.0.0.1" }, { serving.tls, "127.0.0.1", "127.0.0.1" }, { serving.plain, "*", "::1" },
} do
  local over, host, to = case[1], case[2], case[3]

  describe("interpreters that share a port" .. over.suffix .. " of " .. host, function()
    after_each(serving.clean)

    it("each take a share of the connections, and lose none", cleanly(function()
      with_members(over, host, 4, function(port, processes)
        local shares, total = {}, 0
        for _ = 1, 200 do
          local name = ask(over, to, port, "who?")
          shares[name] = (shares[name] or 0) + 1
        end
        for i = 1, 4 do
          -- That one has none of 200 happens once in 10^25 runs.
          assert.is_truthy(shares["member " .. i], "member " .. i .. " has none")
        end
        -- One after the other leaves.
        for _ = 1, 4 do
          total = total + tonumber(ask(over, to, port, "stop"))
        end
        assert.equal(200, total)
        fails("refused", tcp.try_connect(to, port))
        for i = 1, 4 do
          assert.equal("ended\n", processes[i]:read("*a"))
        end
      end)
    end))

    it("serve on when one of them is killed, and when one joins", cleanly(function()
      with_members(over, host, 2, function(port, processes, pids)
        os.execute("kill -9 " .. pids[1])
        processes[1]:read("*a")
        for _ = 1, 10 do
          assert.equal("member 2", ask(over, to, port, "who?"))
        end
        support.with_child(MEMBER:format(host, port, "late", over.is_tls and TLS or ""), function(process)
          assert.equal(tostring(port), process:read("*l"))
          assert.is_truthy(tonumber(ask(over, to, port, "stop")))
          assert.is_truthy(tonumber(ask(over, to, port, "stop")))
          fails("refused", tcp.try_connect(to, port))
        end)
      end)
    end))
  end)
end

describe("reuse_port", function()
  after_each(serving.clean)

  local function serve(port, options, name)
    local server, err = tcp.try_serve("127.0.0.1", port, function(conn)
      conn:write_line(name)
    end, options)
    return server and serving.opens_server(server), err
  end

  it("has to be asked for by all", cleanly(function()
    local shared = serve(0, { reuse_port = true })
    fails("address_in_use", serve(shared:local_port()))
    fails("address_in_use", serve(shared:local_port(), { reuse_port = false }))
    local own = serve(0)
    fails("address_in_use", serve(own:local_port(), { reuse_port = true }))
    assert.equal("address_in_use\n", support.child(THIEF:format(own:local_port())))
  end))

  it("shares among servers of one interpreter, too, and with a listener", cleanly(function()
    local first = serve(0, { reuse_port = true }, "first")
    local port = first:local_port()
    serve(port, { reuse_port = true }, "second")
    local listener = serving.opens(tcp.listen("127.0.0.1", port, { reuse_port = true }))
    tcp.spawn(function()
      for _ = 1, math.huge do
        local conn = listener:try_accept()
        if not conn then
          break
        end
        conn:write_line("listener")
        conn:close()
      end
    end)
    local shares = {}
    for _ = 1, 150 do
      local client = serving.plain.connect(first)
      local name = client:read_line()
      shares[name] = (shares[name] or 0) + 1
      client:close()
    end
    assert.equal(150, shares.first + shares.second + shares.listener)
    first:close()
    for _ = 1, 20 do
      local client = serving.plain.connect(first)
      assert.not_equal("first", client:read_line())
      client:close()
    end
    listener:close()
  end))

  it("lets no other user in", function()
    local prefix = "setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all"
    if not support.succeeds(prefix .. " true") then
      return pending("another user needs root and setpriv")
    end
    with_members(serving.plain, "127.0.0.1", 1, function(port)
      -- The other user cannot read a temporary file of root's: the script comes on the standard input.
      local output = support.child(THIEF:format(port), ("sh -c 'exec %s \"$1\" - <\"$2\"' sh"):format(prefix))
      if output:find("not found") then
        return pending("another user cannot read this directory: " .. output:match("[^\n]*"))
      end
      assert.equal("address_in_use\n", output)
    end)
  end)

  it("does not share a unix path", cleanly(function()
    local server = serving.unix.serve(serving.echo, { reuse_port = true })
    fails("address_in_use", tcp.try_serve(server:local_host(), nil, serving.echo, { reuse_port = true }))
    is_served(serving.unix.connect(server))
  end))
end)
