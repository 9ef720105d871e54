local lfs = require("lfs")
local support = require("support")

local child = support.child

--- Words of the shell that put bytes into a pipe, with pauses (numbers, in seconds) between.
local function piped(...)
  local words = {}
  for i, part in ipairs { ... } do
    words[i] = type(part) == "number" and "sleep " .. part or "printf '" .. part .. "'"
  end
  return "{ " .. table.concat(words, "; ") .. "; } |"
end

local START = [[
  local tcp = require("tcp")
  local stdin = tcp.stdin()
]]

--- What a script prints that has `tcp` and `stdin`.
local function run(prefix, script)
  return child(START .. script, prefix)
end

local function with_file(text, use)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  local ok, err = pcall(use, path)
  os.remove(path)
  assert(ok, err)
end

describe("tcp.stdin", function()
  it("reads a pipe, a file, and nothing, with the methods of a connection", function()
    local script = [[
      print(stdin:read_line(), stdin:peek(1), stdin:read_until(";"), stdin:read_packet())
      print(stdin:read_json().a, stdin:read_bytes(1)[1], stdin:read_str(), stdin:recv())
    ]]
    local shown = "first\ts\tsec\tabc\n7\t114\test\n\tnil\n"
    with_file(("first\r\nsec;\0\0\0\003abc {\"a\":7}\nrest\n"), function(path)
      assert.equal(shown, run("<" .. path, script))
      assert.equal(shown, run("cat " .. path .. " |", script))
      -- Cut in the line's end, in the packet's length and in the document.
      local part = "dd bs=1 count=%d 2>/dev/null; sleep 0.05; "
      local parts = part:format(6) .. part:format(7) .. part:format(9) .. "cat"
      assert.equal(shown, run(("{ %s; } <%s |"):format(parts, path), script))
    end)
    assert.equal("nil\t\tnil\tclosed\n", run("</dev/null", [[
      print(stdin:recv(), stdin:read_str(), stdin:peek(1), select(2, stdin:try_read_line()).kind)
    ]]))
  end)

  it("iterates over lines, the last one without its newline, too", function()
    local script = "for line in stdin:lines() do io.write('<', line, '>') end print(stdin:recv())"
    assert.equal("<a><><c>nil\n", run(piped("a\\n\\nc"), script))
    script = "for line in stdin do io.write('<', line, '>') end print(stdin:recv())"
    assert.equal("<a><b>nil\n", run(piped("a\\n", 0.1, "b"), script))
    assert.equal("nil\n", run("</dev/null", script))
  end)

  it("keeps what arrived when time runs out", function()
    assert.equal("timeout\ttrue\t2\tabcd\n", run(piped("ab", 0.6, "cd\\n"), [[
      stdin:peek(1)
      local began = tcp.now()
      local _, err = stdin:try_read_line({ timeout = 0.1 })
      local taken = tcp.now() - began
      print(err.kind, taken >= 0.1 and taken < 0.5, stdin:buffered(), stdin:read_line())
    ]]))
    assert.equal("timeout\tr\ttrue\tx\n", run(piped(0.3, "x\\n"), [[
      stdin:set_timeout(0)
      local _, err = stdin:try_read_line()
      local events, fd = stdin:events(), stdin:pollfd()
      stdin:set_timeout(5)
      print(err.kind, events, fd > 2, stdin:read_line())
    ]]))
  end)

  it("lets tasks run while it waits, and costs no processor time", function()
    local script = [[
      local ticks = 0
      local ticker = tcp.spawn(function()
        while true do
          tcp.sleep(0.01)
          ticks = ticks + 1
        end
      end)
      local function use()
        print(stdin:read_line(), ticks >= 5)
        print(stdin:read_line(), os.clock() < 0.5)
        ticker:cancel()
      end
      %s
      tcp.run()
      print(stdin:is_closed())
    ]]
    for _, call in ipairs { "use()", "tcp.run(use)" } do
      assert.equal("a\ttrue\nb\ttrue\nfalse\n", run(piped(0.2, "a\\n", 0.1, "b\\n"), script:format(call)))
    end
  end)

  it("on a file, which is always ready, lets tasks run", function()
    with_file(("line\n"):rep(200000), function(path)
      assert.equal("200000\ttrue\n", run("<" .. path, [[
        local ticks, count = 0, 0
        local ticker = tcp.spawn(function()
          while true do
            tcp.sleep(0)
            ticks = ticks + 1
          end
        end)
        tcp.run(function()
          while stdin:try_read_line() do count = count + 1 end
          ticker:cancel()
        end)
        print(count, ticks > 0)
      ]]))
    end)
  end)

  it("is for one reader at a time, and is cancelled and closed like any", function()
    assert.equal("busy\ncancelled\nclosed\nx\n", run(piped(0.4, "x\\n"), [[
      local first = tcp.spawn(function() return select(2, stdin:try_read_line()).kind end)
      local task = tcp.spawn(function() return select(2, stdin:try_read(1)).kind end)
      print(task:join())
      task = tcp.spawn(function()
        print(select(2, tcp.pcall(first.join, first)).kind)
      end)
      first:cancel()
      task:join()
      task = tcp.spawn(function() return select(2, stdin:try_recv()).kind end)
      tcp.sleep(0.01)
      stdin:close()
      print(task:join())
      print(tcp.stdin():read_line())
    ]]))
  end)

  it("is for reading only", function()
    local names = { "write", "send", "send_some", "write_line", "write_str", "write_json", "write_packet",
      "write_json_packet" }
    for _, prefix in ipairs { "</dev/null", piped("x") } do
      local script = "for _, name in ipairs { '%s' } do print(select(2, stdin['try_' .. name](stdin, 'x')).kind) end"
      assert.equal(("closed\n"):rep(#names), run(prefix, script:format(table.concat(names, "', '"))))
    end
    assert.equal("system\tsystem\t\r\n\tfalse\tnil\n", run("</dev/null", [[
      local _, get = stdin:try_get_option("nodelay")
      local _, set = stdin:try_set_option("keepalive", true)
      print(get.kind, set.kind, stdin:get_option("newline"), stdin:is_tls(), stdin:port())
    ]]))
  end)

  it("is the same object until it is closed", function()
    assert.equal("true\tfalse\ttrue\ttrue\tConnection (stdin)\tConnection (stdin, closed)\n", run("</dev/null", [[
      local same = tcp.stdin() == stdin
      stdin:close()
      local other = tcp.stdin()
      print(same, other == stdin, other == tcp.stdin(), stdin:is_closed(), other, stdin)
    ]]))
  end)

  it("leaves descriptor 0 as it was, blocking and open", function()
    local flags = [[
      local function is_non_blocking()
        local flags = io.open("/proc/self/fdinfo/0"):read("*a"):match("flags:%s*(%d+)")
        return math.floor(tonumber(flags, 8) / 2048) % 2 == 1
      end
    ]]
    assert.equal("false\ta\tfalse\tb\tfalse\n", run(piped("a\\n", 0.2, "b\\n"), flags .. [[
      local before, line = is_non_blocking(), stdin:read_line()
      tcp.spawn(tcp.sleep, 0)
      local _, err = stdin:try_read_line({ timeout = 0.01 })
      assert(err.kind == "timeout")
      local between = is_non_blocking()
      stdin:close()
      print(before, line, between, io.read("*l"), is_non_blocking())
    ]]))
    -- What comes after the script has its own turn, and waits for it as always.
    local output = run("{ printf 'one\\n'; sleep 0.3; printf 'two\\n'; } | sh -c '\"$@\"; cat' sh",
      "print(stdin:read_line()) io.stdout:flush()")
    assert.equal("one\ntwo\n", output)
  end)

  it("without a descriptor 0 fails with system, each time", function()
    assert.equal("system\t9\tsystem\n", child([[
      local tcp = require("tcp")
      local _, first = pcall(tcp.stdin)
      local _, second = pcall(tcp.stdin)
      print(first.kind, first.errno, second.kind)
    ]], "<&-"))
  end)

  it("reports what cannot be read", function()
    assert.equal("system\t21\n", run("</tmp", "local _, err = stdin:try_read_line() print(err.kind, err.errno)"))
    local path = os.tmpname()
    assert.equal("system\t9\n", run("0>" .. path, "local _, err = stdin:try_recv() print(err.kind, err.errno)"))
    os.remove(path)
  end)

  it("reads a terminal line by line, beside tasks, to its end", function()
    if not support.succeeds("script -qec true /dev/null </dev/null") then
      return pending("a terminal needs script (util-linux)")
    end
    local output = run(piped(0.4, "hello\\n", 0.2, "\\004", 0.2) .. [[ sh -c 'script -qec "$*" /dev/null' sh]], [[
      local ticks = 0
      tcp.spawn(function()
        for _ = 1, 10 do
          tcp.sleep(0.01)
          ticks = ticks + 1
        end
      end)
      tcp.run(function()
        print("[" .. stdin:read_line() .. "]", ticks, stdin:try_read_str(), os.clock() < 0.5)
      end)
    ]])
    assert.matches("%[hello%]\t10\t\ttrue", output)
  end)

  it("closed in the middle of a script leaves no descriptor", function()
    if not lfs.attributes("/proc/self/fd") then
      return pending("descriptors are counted in /proc")
    end
    assert.equal("true\n", run("</dev/null", [[
      local lfs = require("lfs")
      local function count()
        local n = 0
        for _ in lfs.dir("/proc/self/fd") do n = n + 1 end
        return n
      end
      local before = count()
      for _ = 1, 10 do tcp.stdin():recv() tcp.stdin():close() end
      stdin:close()
      print(count() == before - 1)
    ]]))
  end)
end)
