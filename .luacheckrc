std = "max"
max_line_length = 120
files["lua-tests"] = { std = "max+busted" }
-- What require("tcp") adds; whoever tests for it says so.
read_globals = { "connect", "connect_tls", "send", "recv" }
exclude_files = { "build", "target", ".rocks" }
-- Annotations: nothing there is run, and every argument is for the reader.
files["types"] = { ignore = { "212", "241" } }
