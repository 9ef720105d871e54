-- Sockets of a spec: `waits.clean` closes them after each test.

local tcp = require("tcp.core")
local support = require("support")
local waits = require("support.waits")

local opens = waits.opens

local udp = {}

-- How long a datagram that comes may take at most, and one that does not is waited for.
udp.PATIENCE, udp.MOMENT = 10, 0.05

-- Where sockets are tried, and how their addresses begin.
udp.HOSTS = { ["127.0.0.1"] = "127.0.0.1:", ["::1"] = "[::1]:" }

--- A socket without a peer, on a port of its own. Its receives have an end.
function udp.listen(host, options)
  local socket = opens(tcp.udp_listen(host or "127.0.0.1", 0, options))
  socket:set_timeout(udp.PATIENCE)
  return socket
end

--- A socket whose peer is another one.
function udp.connect(server, host)
  local socket = opens(tcp.udp(host or server:local_host(), server:local_port()))
  socket:set_timeout(udp.PATIENCE)
  return socket
end

--- One without a peer, and another whose peer it is.
function udp.pair(host)
  local server = udp.listen(host)
  return server, udp.connect(server)
end

--- A port of an address that no other spec uses, where nobody listens.
function udp.dead_port(host)
  local socket = tcp.udp_listen(host, 0)
  local port = socket:local_port()
  socket:close()
  return port
end

local networks = {}

--- Words of the shell that give a program a network of its own, after these commands in it; false if that cannot be.
function udp.network(commands)
  if networks[commands] == nil then
    local prefix = ("unshare -rn sh -c '%s && exec \"$@\"' sh"):format(commands)
    networks[commands] = support.succeeds(prefix .. " true") and prefix
  end
  return networks[commands]
end

-- What makes the loopback interface carry multicast of IPv6, too.
udp.LOOPBACK = "ip link set lo multicast on && ip link set lo up && ip -6 route add local ff00::/8 dev lo table local"

-- A cable whose both ends are here, instead.
udp.CABLE = "ip link set lo up && ip link add v0 type veth peer name v1"
for i = 0, 1 do
  local commands = " && ip link set vN addrgenmode none && ip link set vN up && ip addr add 10.99.N.1/24 dev vN"
    .. " && ip -6 addr add fe80::N:1/64 dev vN nodad && echo 1 >/proc/sys/net/ipv4/conf/vN/accept_local"
  udp.CABLE = udp.CABLE .. commands:gsub("N", i)
end

return udp
