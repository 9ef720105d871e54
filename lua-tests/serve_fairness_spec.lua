-- One connection that floods a server, and 99 others that talk with it: all in this process, by the clock of its
-- processor time, which stands still while the machine does something else.

local serving = require("support.serving")
local tcp = require("tcp.core")

local CLIENTS, REQUESTS, ROUNDS = 99, 4, 3
local MOST = 5
-- About a millisecond's.
local MOST_LINES = 4096

local FLOODS = {
  lines = function(conn) return conn:try_read_line() end,
  bytes = function(conn) return conn:try_recv(65536) end,
  requests = function(conn)
    local line = conn:try_read_line()
    return line and conn:try_write_line(line)
  end,
}

--- Sends empty lines as fast as they are taken, until the connection is closed.
local function flood(conn)
  local reading = tcp.spawn(function()
    while conn:try_recv(65536) do end
  end)
  local data = ("\n"):rep(65536)
  while conn:try_write(data) do end
  reading:join()
end

--- Adds the processor's seconds until each answer has come.
local function ask(clients, times)
  local tasks = {}
  for i, client in ipairs(clients) do
    tasks[i] = tcp.spawn(function()
      for _ = 1, REQUESTS do
        local began = os.clock()
        client:write_line("hello")
        assert(client:read_line() == "HELLO")
        times[#times + 1] = os.clock() - began
      end
    end)
  end
  for _, task in ipairs(tasks) do
    task:join(60)
  end
end

--- The 99th percentile.
local function percentile(times)
  table.sort(times)
  return times[math.ceil(#times * 0.99)]
end

for _, over in ipairs { serving.plain, serving.tls } do
  describe("a server" .. over.suffix, function()
    after_each(serving.clean)

    for what, take in pairs(FLOODS) do
      it("lets a flood of " .. what .. " starve nobody", serving.cleanly(function()
        local count, stopped, is_over = 0, nil, false
        local server = over.serve(function(conn)
          if conn:read_line() ~= "flood" then
            return serving.echo(conn)
          end
          while not is_over and take(conn) do
            count = count + 1
            if stopped then
              stopped:pop()
            end
          end
        end)
        local clients = {}
        for i = 1, CLIENTS do
          clients[i] = over.connect(server)
          clients[i]:write_line("talk")
        end
        local flooding = over.connect(server)
        flooding:write_line("flood")
        local task = tcp.spawn(flood, flooding)
        -- Once to get warm, then in turn.
        ask(clients, {})
        local with, without = {}, {}
        for _ = 1, ROUNDS do
          local before = count
          ask(clients, with)
          assert.is_true(count > before, "it did not flood")
          stopped = tcp.queue()
          ask(clients, without)
          stopped:close()
          stopped = nil
        end
        is_over = true
        flooding:close()
        task:join(60)
        with, without = percentile(with), percentile(without)
        assert.is_true(with <= MOST * without, ("%.2f ms instead of %.2f ms"):format(with * 1000, without * 1000))
      end))
    end

    it("lets others have their turn after so many lines that have arrived", serving.cleanly(function()
      local lines, most, ended = 0, 0, false
      local server = over.serve(function(conn)
        while conn:try_read_line() do
          lines = lines + 1
        end
        ended = true
      end)
      local client = over.connect(server)
      local sending = tcp.spawn(function()
        local data = ("\n"):rep(65536)
        for _ = 1, 4 do
          client:write(data)
        end
        client:close()
      end)
      tcp.run(function()
        local last = 0
        while not ended do
          tcp.sleep(0)
          most, last = math.max(most, lines - last), lines
        end
      end)
      sending:join(10)
      assert.equal(4 * 65536, lines)
      assert.is_true(most <= MOST_LINES, most .. " lines in one turn")
    end))
  end)
end
