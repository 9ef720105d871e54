-- On plain Lua 5.1, a finalizer that used the module while mlua was about to call a function had another one called,
-- with what was meant for the first: the process ended with a segmentation fault.

local support = require("support")

it("finalizers may use the module at any time", function()
  assert.equal("thousands\n", support.child([[
    local tcp = require("tcp.core")
    local listener = tcp.listen("127.0.0.1", 0)
    local near = tcp.connect("127.0.0.1", listener:local_port(), { max_packet = 3 })
    local far = listener:accept()
    far:set_option("max_packet", 3)
    local count = 0
    local function finalize()
      count = count + 1
      far:get_option("nodelay")
      far:local_addr()
      far:try_write_packet("too long")
    end
    local deadline = tcp.now() + 10
    while count < 5000 and tcp.now() < deadline do
      if newproxy then
        getmetatable(newproxy(true)).__gc = finalize
      else
        setmetatable({}, { __gc = finalize })
      end
      for i = 1, 20 do
        near:try_write_packet("too long")
      end
    end
    print(count >= 5000 and "thousands" or count)
  ]]))
end)
