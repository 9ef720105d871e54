rockspec_format = "3.0"
package = "tcp"
version = "dev-1"
source = {
   url = "git+file://.",
}
description = {
   summary = "Networking for Lua: verified TLS, connections, servers, tasks, UDP, JSON packets, deadlines",
   detailed = [[
      One shared library, written in Rust: TLS that is verified by default,
      connections with timeouts and deadlines,
      servers and tasks that wait beside each other by the thousand,
      UDP, copying, and an allow-list of what may be reached,
      reading by lines, bytes, JSON documents and length-prefixed packets,
      clear error objects, and JSON faster than lua-cjson.
   ]],
   license = "MIT",
   labels = { "network", "socket", "tls", "json" },
}
dependencies = {
   "lua >= 5.1, < 5.6",
}
-- Nothing but cargo and Lua: the script asks the interpreter that runs it which Lua to build for.
build = {
   type = "command",
   build_command = '"$(LUA)" tools/rock.lua build',
   install_command = '"$(LUA)" tools/rock.lua install "$(LIBDIR)"',
}
test = {
   type = "command",
   script = "tools/rock.lua",
   flags = { "test" },
}
