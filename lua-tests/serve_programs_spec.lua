-- Programs that serve, each in an interpreter of its own: how they go on and how they end.

local serving = require("support.serving")
local support = require("support")
local tcp = require("tcp.core")

local is_served = serving.is_served
local PATIENCE = serving.PATIENCE

describe("a program that serves", function()
  local PROGRAM = [[
    local tcp = require("tcp")
    local server, served
    server = tcp.serve("127.0.0.1", 0, function(client)
      local line = client:try_read_line()
      while line do
        client:write_line(line:upper())
        served = true
        if line == "close" then
          server:close()
        end
        line = client:try_read_line()
      end
    end)
    io.stderr:write(server:local_port(), "\n")
    %s
    print("ended")
  ]]

  local function with_program(ending, use)
    support.with_child(PROGRAM:format(ending), function(process, pid)
      local port = tonumber(process:read("*l"))
      local client = tcp.connect("127.0.0.1", port, { read_timeout = PATIENCE })
      is_served(client)
      use(client, process, pid)
      client:close()
    end, "timeout --foreground 30")
  end

  it("needs no more than run, and ends with its server", function()
    with_program("tcp.run()", function(client, process)
      client:write_line("close")
      assert.equal("CLOSE", client:read_line())
      client:close()
      assert.equal("ended\n", process:read("*a"))
    end)
  end)

  it("is interrupted by Ctrl-C", function()
    with_program("print((select(2, pcall(tcp.run))))", function(_, process, pid)
      -- `timeout` hands it on.
      os.execute("kill -INT " .. pid)
      assert.matches("interrupted!", process:read("*l"))
      assert.equal("ended", process:read("*l"))
    end)
  end)

  it("goes on after Ctrl-C if it runs on", function()
    with_program("print((select(2, pcall(tcp.run)))) io.stdout:flush() tcp.run()", function(client, process, pid)
      os.execute("kill -INT " .. pid)
      assert.matches("interrupted!", process:read("*l"))
      is_served(client)
      client:write_line("close")
      assert.equal("CLOSE", client:read_line())
      client:close()
      assert.equal("ended\n", process:read("*a"))
    end)
  end)

  it("may end in the midst of serving", function()
    local serve_once = "while not served do tcp.sleep(0.001) end "
    for _, ending in ipairs { "os.exit(0)", "os.exit(0, true)", "" } do
      with_program(serve_once .. ending, function(client, process)
        serving.is_ended(client)
        assert.matches("^[end\n]*$", process:read("*a"))
      end)
    end
  end)

  it("may be torn down with handlers under way", function()
    assert.equal("", support.child([[
      local tcp = require("tcp")
      local clients, begun = {}, 0
      local server = tcp.serve("127.0.0.1", 0, function(conn)
        begun = begun + 1
        if begun % 2 == 0 then
          error("x")
        end
        conn:read_line()
      end, { on_error = function(err, conn) conn:read_line() end })
      for i = 1, 10 do
        clients[i] = tcp.connect("127.0.0.1", server:local_port())
      end
      while begun < 10 do
        tcp.sleep(0)
      end
    ]]))
  end)
end)
