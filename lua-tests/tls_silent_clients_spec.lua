-- Clients that connect to a server over TLS, and say nothing: the handshake of an accepted connection happens in the
-- task that uses it, so they delay nobody.

local sessions = require("support.sessions")
local tcp = require("tcp.core")
local transports = require("support.transports")

local HOST = "127.0.0.1"
local SILENT, HALF, GOOD = 200, 50, 50
-- A ClientHello's record of 512 bytes, of which little comes.
local BEGINNING = "\22\3\1\2\0\1\0\1\252\3\3" .. ("r"):rep(32)

--- Answers every client in a task of its own, and counts what became of them.
local function serve(listener, outcomes)
  local function count(outcome)
    outcomes[outcome] = (outcomes[outcome] or 0) + 1
  end
  return tcp.spawn(function()
    local conn = listener:try_accept()
    while conn do
      tcp.spawn(function(client)
        local line, err = client:try_read_line()
        if line then
          client:write_line(line:upper())
          count("served")
          client:try_recv()
        else
          count(("%s at %s"):format(err.kind, tostring(err.stage)))
        end
        client:close()
      end, conn)
      conn = listener:try_accept()
    end
  end)
end

local function good_client(port, times)
  return tcp.spawn(function()
    local began = tcp.now()
    local conn = tcp.connect(HOST, port, { timeout = 20, read_timeout = 20, tls = transports.CLIENT })
    conn:write_line("hello")
    assert.equal("HELLO", conn:read_line())
    times[#times + 1] = tcp.now() - began
    conn:close()
  end)
end

--- What is left of time, until `condition` holds.
local function wait_for(condition)
  local deadline = tcp.now() + 10
  while not condition() and tcp.now() < deadline do
    tcp.sleep(0.01)
  end
end

describe("clients that say nothing", function()
  it("delay nobody, and are given up in time", function()
    local listener = tcp.listen(HOST, 0, { tls = sessions.fresh_server(), handshake_timeout = 3 })
    local port, outcomes, times, crowd = listener:local_port(), {}, {}, {}
    local serving = serve(listener, outcomes)
    for i = 1, SILENT + HALF do
      crowd[i] = tcp.connect(HOST, port)
      if i > SILENT then
        crowd[i]:write(BEGINNING)
      end
    end
    local began = tcp.now()
    local tasks = {}
    for i = 1, GOOD do
      tasks[i] = good_client(port, times)
    end
    for _, task in ipairs(tasks) do
      task:join(20)
    end
    assert.is_true(tcp.now() - began < 3, "it took " .. tcp.now() - began)
    assert.equal(GOOD, #times)
    wait_for(function()
      return (outcomes["timeout at handshake"] or 0) == SILENT + HALF
    end)
    assert.same({ served = GOOD, ["timeout at handshake"] = SILENT + HALF }, outcomes)
    -- Each is told that it is over: the end of the stream, and nothing that they could not read.
    for _, conn in ipairs(crowd) do
      assert.is_nil((conn:recv(nil, { timeout = 10 })))
      conn:close()
    end
    listener:close()
    serving:join(10)
    tcp.run()
  end)

  it("delay nobody who comes while they are there, one after the other", function()
    local listener = tcp.listen(HOST, 0, { tls = sessions.fresh_server(), handshake_timeout = 20 })
    local port, outcomes, times, crowd = listener:local_port(), {}, {}, {}
    local serving = serve(listener, outcomes)
    for i = 1, 40 do
      crowd[i] = tcp.connect(HOST, port)
      if i % 5 == 0 then
        crowd[i]:write(BEGINNING)
      end
      good_client(port, times):join(10)
    end
    table.sort(times)
    assert.is_true(times[#times] < 1, "one took " .. times[#times])
    for _, conn in ipairs(crowd) do
      conn:close()
    end
    wait_for(function()
      return outcomes["closed at handshake"] == 40
    end)
    assert.same({ served = 40, ["closed at handshake"] = 40 }, outcomes)
    listener:close()
    serving:join(10)
    tcp.run()
  end)

  it("cost no handshake until somebody uses the connection", function()
    local conn, client, listener = transports.plain_client { handshake_timeout = 0.2 }
    -- Its time begins with the handshake.
    tcp.sleep(0.3)
    local began = tcp.now()
    local _, err = conn:try_handshake()
    assert.equal("timeout", err.kind)
    assert.is_true(tcp.now() - began >= 0.19)
    transports.close_all(conn, client, listener)
  end)
end)
