---@meta tcp
-- Annotations for lua-language-server: add this folder to `workspace.library`. Nothing here is run.

---@class tcp
---@field _VERSION string
---@field null lightuserdata JSON's null
---@field json tcp.json
---@field on_error? fun(err: any, traceback: any, task: tcp.Task) told of a task that fails while nobody joins it
local tcp = {}

---@alias tcp.kind
---| "address_in_use"
---| "busy"
---| "cancelled"
---| "certificate"
---| "closed"
---| "denied"
---| "json"
---| "refused"
---| "reset"
---| "resolve"
---| "system"
---| "timeout"
---| "tls"
---| "too_large"
---| "truncated"
---| "unreachable"

---@class tcp.Error
---@field kind tcp.kind
---@field message string text for people, not covered by the version number
---@field op string
---@field peer? string
---@field stage? "resolve"|"connect"|"handshake"
---@field alert? string the TLS alert with which the peer broke off
---@field errno? integer
---@field data? string malformed input, which is consumed, or the beginning of a datagram that was too long
---@field written? integer bytes that a failed write or copy had sent
---@field where? string position of the script's call, on a raised object
---@field task? tcp.Task the task that was cancelled, at join
---@operator concat(string): string

---@alias tcp.Protocol "TLSv1.2"|"TLSv1.3"

--- PEM is the path of a file, or the text itself.
---@class tcp.TlsOptions
---@field verify? boolean true; false is for tests only
---@field ca_bundle? string PEM, or "mozilla"; default: the system's authorities
---@field crl? string PEM of revocation lists
---@field client_cert? string PEM; with client_key
---@field client_key? string PEM
---@field sni? string the name or address that is asked for and verified; default: the host
---@field protocols? tcp.Protocol[] both
---@field alpn? string[] the preferred one first

---@class tcp.TlsIdentity
---@field cert string PEM
---@field key string PEM

---@class tcp.TlsServerOptions
---@field cert? string PEM; may be left out where sni has all
---@field key? string PEM
---@field sni? table<string, tcp.TlsIdentity> by the name that the client asks for, or "*." and what follows one label
---@field client_ca? string PEM of the authorities of clients' certificates
---@field client_auth? "none"|"optional"|"required" "none"
---@field protocols? tcp.Protocol[] both
---@field alpn? string[] the preferred one first

---@class tcp.ClientUpgrade: tcp.TlsOptions
---@field server? false
---@field handshake_timeout? number seconds, 10

---@class tcp.ServerUpgrade: tcp.TlsServerOptions
---@field server true
---@field handshake_timeout? number seconds, 10

---@class tcp.Certificate
---@field subject string as RFC 4514 writes names
---@field issuer string
---@field serial string lower-case hexadecimal digits
---@field valid_from integer Unix seconds
---@field valid_until integer
---@field sans string[] the bare names and addresses that it covers
---@field fingerprint string SHA-256, lower-case hexadecimal digits
---@field der string

---@class tcp.ConnectOptions
---@field timeout? number seconds for resolving, connecting and TLS's handshake, 5
---@field tls? boolean|tcp.TlsOptions false
---@field read_timeout? number seconds for one operation
---@field write_timeout? number seconds for one operation
---@field nodelay? boolean true
---@field keepalive? boolean|number true, or idle seconds
---@field bind? string "ip" or "ip:port"
---@field family? "any"|"ipv4"|"ipv6"
---@field newline? string "\r\n"
---@field max_line? integer 1048576
---@field max_packet? integer 512000
---@field max_json? integer 67108864
---@field packet_endian? "big"|"little"

---@class tcp.ListenOptions
---@field tls? false|tcp.TlsServerOptions
---@field handshake_timeout? number seconds for TLS's handshake with a client, 10
---@field backlog? integer connections that wait to be accepted, 1024
---@field reuse_port? boolean false
---@field ipv6_only? boolean false
---@field read_timeout? number of accepted connections, as all that follow
---@field write_timeout? number
---@field nodelay? boolean true
---@field keepalive? boolean|number true, or idle seconds
---@field newline? string "\r\n"
---@field max_line? integer 1048576
---@field max_packet? integer 512000
---@field max_json? integer 67108864
---@field packet_endian? "big"|"little"

---@class tcp.ServeOptions: tcp.ListenOptions
---@field max_connections? number how many are handled at the same time; none
---@field on_error? fun(err: any, conn: tcp.Connection?, traceback: string) told of each handler that fails

---@class tcp.UdpOptions
---@field reuse_port? boolean false
---@field ipv6_only? boolean false
---@field broadcast? boolean false
---@field multicast_interface? string|integer name or number of an interface, or for IPv4 an address that it has
---@field multicast_loop? boolean true
---@field multicast_ttl? integer 0 to 255, 1
---@field recv_buffer? integer bytes
---@field send_buffer? integer bytes
---@field ttl? integer 1 to 255

---@class tcp.ResolveOptions
---@field timeout? number seconds, 5
---@field family? "any"|"ipv4"|"ipv6"

---@class tcp.CopyOptions
---@field limit? number bytes at most; none
---@field progress? fun(bytes: integer) called after each chunk with the bytes so far

--- What is absent adds nothing, an empty list forbids all. Entries: "*", "host", "host:port", "*.example.com",
--- "10.0.0.0/8:5432", "[fd00::]/8", ":8080", "unix:/run/app/*".
---@class tcp.Rules
---@field net? string[] what may be reached
---@field listen? string[] what may be listened on
---@field deny? string[] addresses, ranges, ":port", unix paths, and "private"
---@field files? boolean false: no file is opened by its path

---@class tcp.CallOptions
---@field timeout? number seconds, for this call only

---@param host string name, address, or "unix:/path"
---@param port? integer nil for a unix path
---@param timeout_or_options? number|tcp.ConnectOptions
---@return tcp.Connection
function tcp.connect(host, port, timeout_or_options) end

---@param host string
---@param port? integer
---@param timeout_or_options? number|tcp.ConnectOptions
---@return tcp.Connection?, tcp.Error?
function tcp.try_connect(host, port, timeout_or_options) end

--- `tcp.connect` with `tls = true`.
---@param host string name, address, or "unix:/path"
---@param port? integer nil for a unix path
---@param timeout_or_options? number|tcp.ConnectOptions
---@return tcp.Connection
function tcp.connect_tls(host, port, timeout_or_options) end

---@param host string
---@param port? integer
---@param timeout_or_options? number|tcp.ConnectOptions
---@return tcp.Connection?, tcp.Error?
function tcp.try_connect_tls(host, port, timeout_or_options) end

--- The first address of a host.
---@param host string name or address
---@param options? tcp.ResolveOptions
---@return string
function tcp.resolve(host, options) end

---@param host string
---@param options? tcp.ResolveOptions
---@return string?, tcp.Error?
function tcp.try_resolve(host, options) end

--- All addresses of a host, in the system's order.
---@param host string name or address
---@param options? tcp.ResolveOptions
---@return string[]
function tcp.resolve_all(host, options) end

---@param host string
---@param options? tcp.ResolveOptions
---@return string[]?, tcp.Error?
function tcp.try_resolve_all(host, options) end

--- A function gives a string, or nil at the end; nil and a second value fail the copy.
---@alias tcp.source tcp.Connection|file*|fun(): string?, any

--- A function takes a string; false or nil with a second value fail the copy.
---@alias tcp.target tcp.Connection|file*|fun(bytes: string): any, any

--- Moves everything from the one to the other, and closes neither.
---@param source tcp.source
---@param target tcp.target
---@param options? tcp.CopyOptions
---@return integer bytes
function tcp.copy(source, target, options) end

---@param source tcp.source
---@param target tcp.target
---@param options? tcp.CopyOptions
---@return integer?, any error, or what a function has raised
function tcp.try_copy(source, target, options) end

--- From now on nothing else may be reached or listened on. All calls have to agree.
---@param rules tcp.Rules
function tcp.allow(rules) end

---@param value any
---@param kind? tcp.kind
---@return boolean
function tcp.is_error(value, kind) end

--- `debug.traceback` that also takes error objects: `xpcall(main, tcp.traceback)`.
---@param message? any
---@param level? integer
---@return string
---@overload fun(thread: thread, message?: any, level?: integer): string
function tcp.traceback(message, level) end

--- Monotonic seconds.
---@return number
function tcp.now() end

---@param seconds number
function tcp.sleep(seconds) end

--- Legacy: writes to the connection that was opened last.
---@param data string
function tcp.send(data) end

--- Legacy: at most 8192 bytes from the connection that was opened last, "" at the end.
---@return string
function tcp.recv() end

---@class tcp.json
---@field null lightuserdata
---@field array_mt table
tcp.json = {}

---@param value any
---@param options? { pretty?: boolean }
---@return string
function tcp.json.encode(value, options) end

---@param value any
---@param options? { pretty?: boolean }
---@return string?, tcp.Error?
function tcp.json.try_encode(value, options) end

---@param text string
---@return any
function tcp.json.decode(text) end

---@param text string
---@return any, tcp.Error?
function tcp.json.try_decode(text) end

--- Marks `t` as an array, so that it is `[]` when empty.
---@generic T: table
---@param t T
---@return T
function tcp.json.array(t) end

--- Marks `t` as an object; its integer keys become strings.
---@generic T: table
---@param t T
---@return T
function tcp.json.object(t) end

---@alias tcp.data string|number|string[]|integer[]

---@class tcp.Connection
---@overload fun(): string?
local Connection = {}

---@param n integer
---@param options? tcp.CallOptions
---@return string
function Connection:read(n, options) end

---@return string?, tcp.Error?
function Connection:try_read(n, options) end

---@param n integer
---@param options? tcp.CallOptions
---@return integer[]
function Connection:read_bytes(n, options) end

---@return integer[]?, tcp.Error?
function Connection:try_read_bytes(n, options) end

---@param max? integer 8192
---@param options? tcp.CallOptions
---@return string? nil at the end of the stream
---@overload fun(self: tcp.Connection, options: tcp.CallOptions): string?
function Connection:recv(max, options) end

---@return string?, tcp.Error?
---@overload fun(self: tcp.Connection, options: tcp.CallOptions): string?, tcp.Error?
function Connection:try_recv(max, options) end

---@param format? "l"|"L"
---@param options? tcp.CallOptions
---@return string
---@overload fun(self: tcp.Connection, options: tcp.CallOptions): string
function Connection:read_line(format, options) end

---@return string?, tcp.Error?
---@overload fun(self: tcp.Connection, options: tcp.CallOptions): string?, tcp.Error?
function Connection:try_read_line(format, options) end

---@param delimiter string plain text
---@param max? integer
---@param options? tcp.CallOptions
---@return string
---@overload fun(self: tcp.Connection, delimiter: string, options: tcp.CallOptions): string
function Connection:read_until(delimiter, max, options) end

---@return string?, tcp.Error?
---@overload fun(self: tcp.Connection, delimiter: string, options: tcp.CallOptions): string?, tcp.Error?
function Connection:try_read_until(delimiter, max, options) end

---@param max? integer
---@param options? tcp.CallOptions
---@return string
---@overload fun(self: tcp.Connection, options: tcp.CallOptions): string
function Connection:read_str(max, options) end

---@return string?, tcp.Error?
---@overload fun(self: tcp.Connection, options: tcp.CallOptions): string?, tcp.Error?
function Connection:try_read_str(max, options) end

Connection.read_all = Connection.read_str
Connection.try_read_all = Connection.try_read_str

---@param options? tcp.CallOptions
---@return any
function Connection:read_json(options) end

---@return any, tcp.Error?
function Connection:try_read_json(options) end

---@param options? tcp.CallOptions
---@return string
function Connection:read_packet(options) end

---@return string?, tcp.Error?
function Connection:try_read_packet(options) end

---@param options? tcp.CallOptions
---@return any
function Connection:read_json_packet(options) end

---@return any, tcp.Error?
function Connection:try_read_json_packet(options) end

---@param n integer
---@param options? tcp.CallOptions
---@return string? nil at the end of the stream
function Connection:peek(n, options) end

---@return string?, tcp.Error?
function Connection:try_peek(n, options) end

---@return integer
function Connection:buffered() end

---@param format? "l"|"L"
---@param options? tcp.CallOptions
---@return fun(): string?
---@overload fun(self: tcp.Connection, options: tcp.CallOptions): fun(): string?
function Connection:lines(format, options) end

---@param max? integer
---@param options? tcp.CallOptions
---@return fun(): string?
---@overload fun(self: tcp.Connection, options: tcp.CallOptions): fun(): string?
function Connection:chunks(max, options) end

---@param options? tcp.CallOptions
---@return fun(): string?
function Connection:packets(options) end

---@param options? tcp.CallOptions
---@return fun(): any
function Connection:json_packets(options) end

---@param options? tcp.CallOptions
---@return fun(): any
function Connection:json_values(options) end

---@param data tcp.data
---@param ... tcp.data
---@return tcp.Connection
function Connection:write(data, ...) end

---@return tcp.Connection?, tcp.Error?
function Connection:try_write(data, ...) end

---@param s string
---@return tcp.Connection
function Connection:write_str(s) end

---@return tcp.Connection?, tcp.Error?
function Connection:try_write_str(s) end

---@param s string
---@return tcp.Connection
function Connection:write_line(s) end

---@return tcp.Connection?, tcp.Error?
function Connection:try_write_line(s) end

---@param data string
---@return integer bytes, all of them
function Connection:send(data) end

---@return integer?, tcp.Error?
function Connection:try_send(data) end

---@param data string
---@param first? integer
---@return integer bytes that one write took
function Connection:send_some(data, first) end

---@return integer?, tcp.Error?
function Connection:try_send_some(data, first) end

--- Part of a file, from the position `first` on, or from where an open file stands.
---@param path_or_file string|file*
---@param first? integer 1
---@param count? number bytes at most; default: up to the end
---@return integer bytes that were sent
function Connection:send_file(path_or_file, first, count) end

---@return integer?, tcp.Error?
function Connection:try_send_file(path_or_file, first, count) end

---@param value any
function Connection:write_json(value) end

---@return true?, tcp.Error?
function Connection:try_write_json(value) end

---@param s string
function Connection:write_packet(s) end

---@return true?, tcp.Error?
function Connection:try_write_packet(s) end

---@param value any
function Connection:write_json_packet(value) end

---@return true?, tcp.Error?
function Connection:try_write_json_packet(value) end

function Connection:close() end

---@return boolean
function Connection:is_closed() end

---@return boolean
function Connection:is_tls() end

--- Completes TLS's handshake now. Misuse on a connection without TLS.
---@param options? tcp.CallOptions
function Connection:handshake(options) end

---@param options? tcp.CallOptions
---@return true?, tcp.Error?
function Connection:try_handshake(options) end

--- From now on everything goes through TLS. An upgrade that fails closes the connection.
---@param options? tcp.ClientUpgrade|tcp.ServerUpgrade
---@return tcp.Connection
function Connection:start_tls(options) end

---@param options? tcp.ClientUpgrade|tcp.ServerUpgrade
---@return tcp.Connection?, tcp.Error?
function Connection:try_start_tls(options) end

--- What the peer has shown. This and what follows is nil without TLS, during its handshake, and after close.
---@return tcp.Certificate?
function Connection:peer_cert() end

--- IANA's name: "TLS_AES_256_GCM_SHA384".
---@return string?
function Connection:cipher() end

---@return tcp.Protocol?
function Connection:protocol() end

--- What both sides have agreed to speak inside.
---@return string?
function Connection:alpn() end

--- Whom the client has asked for. On the server's side nil if that was an address, or nobody.
---@return string?
function Connection:server_name() end

--- Whether keys of an earlier session were used.
---@return boolean?
function Connection:resumed() end

---@param direction "send"|"recv"|"both"
function Connection:shutdown(direction) end

---@return true?, tcp.Error?
function Connection:try_shutdown(direction) end

---@return string
function Connection:host() end

---@return integer?
function Connection:port() end

---@return string
function Connection:local_host() end

---@return integer?
function Connection:local_port() end

---@return string
function Connection:local_addr() end

---@return string
function Connection:remote_addr() end

---@param s? number
function Connection:set_timeout(s) end

---@param s? number
function Connection:set_read_timeout(s) end

---@param s? number
function Connection:set_write_timeout(s) end

---@return number?
function Connection:read_timeout() end

---@return number?
function Connection:write_timeout() end

---@param s? number
function Connection:set_deadline(s) end

---@param s? number
function Connection:set_read_deadline(s) end

---@param s? number
function Connection:set_write_deadline(s) end

---@alias tcp.option
---| "keepalive"
---| "linger"
---| "max_json"
---| "max_line"
---| "max_packet"
---| "newline"
---| "nodelay"
---| "packet_endian"
---| "recv_buffer"
---| "send_buffer"
---| "user_timeout"

---@param name tcp.option
---@param value any
function Connection:set_option(name, value) end

---@return true?, tcp.Error?
function Connection:try_set_option(name, value) end

---@param name tcp.option
---@return any
function Connection:get_option(name) end

---@return any, tcp.Error?
function Connection:try_get_option(name) end

---@return integer? descriptor, nil once closed
function Connection:pollfd() end

---@return "r"|"w"|"rw"|nil
function Connection:events() end

---@return number? seconds to the nearest deadline
function Connection:timeout() end

---@param host string name, address, "*" for every address, or "unix:/path"
---@param port? integer 0: the system picks; nil for a unix path
---@param options? tcp.ListenOptions
---@return tcp.Listener
function tcp.listen(host, port, options) end

---@param host string
---@param port? integer
---@param options? tcp.ListenOptions
---@return tcp.Listener?, tcp.Error?
function tcp.try_listen(host, port, options) end

---@class tcp.Listener
local Listener = {}

---@param timeout? number seconds
---@return tcp.Connection
function Listener:accept(timeout) end

---@param timeout? number seconds
---@return tcp.Connection?, tcp.Error?
function Listener:try_accept(timeout) end

---@return fun(): tcp.Connection?
function Listener:connections() end

function Listener:close() end

---@return boolean
function Listener:is_closed() end

---@return string
function Listener:addr() end

---@return string
function Listener:local_addr() end

---@return string
function Listener:local_host() end

---@return integer? nil for a unix path
function Listener:local_port() end

---@return integer? descriptor, nil once closed
function Listener:pollfd() end

--- Calls the handler for each client, in a task of its own, and closes the connection when it returns or fails.
---@param host string name, address, "*" for every address, or "unix:/path"
---@param port? integer 0: the system picks; nil for a unix path
---@param handler fun(conn: tcp.Connection)
---@param options? tcp.ServeOptions
---@return tcp.Server
function tcp.serve(host, port, handler, options) end

---@param host string
---@param port? integer
---@param handler fun(conn: tcp.Connection)
---@param options? tcp.ServeOptions
---@return tcp.Server?, tcp.Error?
function tcp.try_serve(host, port, handler, options) end

---@class tcp.Server
local Server = {}

--- Accepts nobody any more, and waits for the handlers that run.
---@param grace? number seconds after which they are cancelled, 5
function Server:close(grace) end

---@return boolean
function Server:is_closed() end

---@return integer how many are being handled
function Server:connections() end

---@return string
function Server:addr() end

---@return string
function Server:local_addr() end

---@return string
function Server:local_host() end

---@return integer? nil for a unix path
function Server:local_port() end

--- With a host, a socket that sends there and hears nobody else.
---@param host? string name or address
---@param port? integer
---@return tcp.UdpSocket
function tcp.udp(host, port) end

---@param host? string
---@param port? integer
---@return tcp.UdpSocket?, tcp.Error?
function tcp.try_udp(host, port) end

---@param host string name, address, or "*" for every address
---@param port integer 0: the system picks
---@param options? tcp.UdpOptions
---@return tcp.UdpSocket
function tcp.udp_listen(host, port, options) end

---@param host string
---@param port integer
---@param options? tcp.UdpOptions
---@return tcp.UdpSocket?, tcp.Error?
function tcp.try_udp_listen(host, port, options) end

---@class tcp.UdpSocket
local UdpSocket = {}

--- To the peer. Misuse without one.
---@param data string|number
---@return integer bytes
function UdpSocket:send(data) end

---@param data string|number
---@return integer?, tcp.Error?
function UdpSocket:try_send(data) end

---@param data string|number
---@param host string name or address
---@param port integer
---@return integer bytes
function UdpSocket:send_to(data, host, port) end

---@param data string|number
---@param host string
---@param port integer
---@return integer?, tcp.Error?
function UdpSocket:try_send_to(data, host, port) end

--- The next datagram. One of more than `max` bytes is an error.
---@param max? number 65535
---@param timeout? number|tcp.CallOptions seconds
---@return string
---@overload fun(self: tcp.UdpSocket, options: tcp.CallOptions): string
function UdpSocket:recv(max, timeout) end

---@param max? number
---@param timeout? number|tcp.CallOptions
---@return string?, tcp.Error?
---@overload fun(self: tcp.UdpSocket, options: tcp.CallOptions): string?, tcp.Error?
function UdpSocket:try_recv(max, timeout) end

---@param max? number 65535
---@param timeout? number|tcp.CallOptions seconds
---@return string data, string host, integer port
---@overload fun(self: tcp.UdpSocket, options: tcp.CallOptions): string, string, integer
function UdpSocket:recv_from(max, timeout) end

---@param max? number
---@param timeout? number|tcp.CallOptions
---@return string? data, string|tcp.Error host, integer? port
---@overload fun(self: tcp.UdpSocket, options: tcp.CallOptions): string?, string|tcp.Error, integer?
function UdpSocket:try_recv_from(max, timeout) end

---@param group string multicast address
---@param interface? string|integer name or number; for IPv4 also an address of this machine
function UdpSocket:join(group, interface) end

---@return true?, tcp.Error?
function UdpSocket:try_join(group, interface) end

---@param group string
---@param interface? string|integer
function UdpSocket:leave(group, interface) end

---@return true?, tcp.Error?
function UdpSocket:try_leave(group, interface) end

---@alias tcp.udp_option
---| "broadcast"
---| "multicast_interface"
---| "multicast_loop"
---| "multicast_ttl"
---| "recv_buffer"
---| "send_buffer"
---| "ttl"

---@param name tcp.udp_option
---@param value any
function UdpSocket:set_option(name, value) end

---@return true?, tcp.Error?
function UdpSocket:try_set_option(name, value) end

---@param name tcp.udp_option
---@return any
function UdpSocket:get_option(name) end

---@return any, tcp.Error?
function UdpSocket:try_get_option(name) end

---@param s? number seconds for receiving, and for sending where that has to wait
function UdpSocket:set_timeout(s) end

function UdpSocket:close() end

---@return boolean
function UdpSocket:is_closed() end

---@return string
function UdpSocket:local_addr() end

---@return string
function UdpSocket:local_host() end

---@return integer
function UdpSocket:local_port() end

---@return integer? descriptor, nil once closed
function UdpSocket:pollfd() end

---@class tcp.Task
local Task = {}

---@param fn function
---@param ... any its arguments
---@return tcp.Task
function tcp.spawn(fn, ...) end

--- Until no task is left; with a function, until that has ended, whose results it gives.
---@param fn? function
---@param ... any its arguments
---@return any ...
function tcp.run(fn, ...) end

---@param timeout? number seconds
---@return any ... results of the task's function
function Task:join(timeout) end

---@param timeout? number seconds
---@return any ... results of the task's function, or nil and its error
function Task:try_join(timeout) end

function Task:cancel() end

---@return "running"|"waiting"|"done"|"failed"|"cancelled"
function Task:status() end

---@param s number seconds
---@param fn function
---@param ... any its arguments
---@return any ... its results
function tcp.with_timeout(s, fn, ...) end

---@param s number seconds
---@param fn function
---@param ... any its arguments
---@return any ... its results, or nil and the error
function tcp.try_with_timeout(s, fn, ...) end

---@class tcp.Queue
local Queue = {}

---@param capacity? integer values that fit in it; nil is no limit
---@return tcp.Queue
function tcp.queue(capacity) end

---@param value any not nil
---@param timeout? number seconds
function Queue:push(value, timeout) end

---@param value any not nil
---@param timeout? number seconds
---@return true?, tcp.Error?
function Queue:try_push(value, timeout) end

---@param timeout? number seconds
---@return any value, or nil once closed and empty
function Queue:pop(timeout) end

---@param timeout? number seconds
---@return any, tcp.Error?
function Queue:try_pop(timeout) end

function Queue:close() end

---@return integer
function Queue:count() end

---@return fun(): any
function Queue:values() end

--- `coroutine.wrap` that may be waited in inside a task.
---@param fn function
---@return function
function tcp.wrap(fn) end

--- `pcall` that may be waited in on plain Lua 5.1.
---@param fn function
---@param ... any
---@return boolean, any ...
function tcp.pcall(fn, ...) end

---@return tcp.Connection for reading only
function tcp.stdin() end

---@param timeout? number seconds, 0
---@return boolean whether tasks are left
function tcp.step(timeout) end

---@return integer descriptor of the loop
function tcp.pollfd() end

return tcp
