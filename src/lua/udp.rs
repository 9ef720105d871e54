//! UDP sockets: from a script's arguments to a `UdpSocket`, and its methods.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use mlua::AnyUserData;
use mlua::Either;
use mlua::IntoLua;
use mlua::Lua;
use mlua::LuaString;
use mlua::MetaMethod;
use mlua::Table;
use mlua::UserDataFields;
use mlua::UserDataMethods;
use mlua::UserDataRegistry;
use mlua::Value;

use crate::address::Host;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::is_module;
use crate::lua::connection::Call;
use crate::lua::connection::Named;
use crate::lua::connection::Receiver;
use crate::lua::connection::receiver;
use crate::lua::dial::port_number_at;
use crate::lua::policy;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Reply;
use crate::lua::resolve;
use crate::lua::udp_options;
use crate::lua::udp_options::datagram_options;
use crate::net::listen;
use crate::net::resolve::Resolve;
use crate::net::udp;
use crate::options::DatagramOptions;
use crate::options::RESOLVE_TIMEOUT;
use crate::step::Interest;
use crate::step::Step;

pub struct UdpSocket {
    pub net: udp::UdpSocket,
}

impl Named for UdpSocket {
    const NAME: &'static str = "UdpSocket";
}

/// A socket in the making, between its steps.
pub struct Opening {
    pub net: udp::Opening,
    op: &'static str,
}

/// The longest datagram that a length of two bytes can tell (RFC 768).
const LONGEST: usize = 65_535;

thread_local! {
    /// Where datagrams are received, before they are strings.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Adds to `core`: `udp`, `udp_listen` and `udp_on`; the steps `udp_send`, `udp_send_to`, `udp_send_on`, `udp_recv`,
/// `udp_recv_from`; `udp_plain` and `udp_fallible`, methods by name that never wait.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.raw_set("udp", reply::function(lua, |lua, arguments| begin(lua, arguments, "udp"))?)?;
    core.raw_set("udp_listen", reply::function(lua, |lua, arguments| begin(lua, arguments, "udp_listen"))?)?;
    core.raw_set("udp_on", reply::function(lua, go_on)?)?;
    core.raw_set("udp_send", reply::function(lua, send)?)?;
    core.raw_set("udp_send_to", reply::function(lua, send_to)?)?;
    core.raw_set("udp_send_on", reply::function(lua, send_on)?)?;
    core.raw_set("udp_recv", reply::function(lua, recv)?)?;
    core.raw_set("udp_recv_from", lua.create_function(recv_from)?)?;
    let peer_name = |_: &Lua, (host, port): (String, u16)| Ok(crate::address::peer_name(&host, Some(port)));
    core.raw_set("peer_name", reply::maker(lua, peer_name)?)?;
    core.raw_set("udp_plain", udp_options::plain(lua)?)?;
    core.raw_set("udp_fallible", udp_options::fallible(lua)?)
}

/// Makes the metatable of every socket. `runtime` holds what is written in Lua.
pub fn register_type(lua: &Lua, runtime: &Table) -> mlua::Result<()> {
    let fields: [(&str, Value); 2] =
        [("__index", runtime.raw_get("methods")?), ("__close", runtime.raw_get("close")?)];
    lua.register_userdata_type::<UdpSocket>(move |registry: &mut UserDataRegistry<UdpSocket>| {
        for (name, value) in fields {
            registry.add_meta_field(name, value);
        }
        registry.add_meta_method(MetaMethod::ToString, |_, it, ()| {
            let peer = it.net.peer().map(|peer| format!(" -> {peer}")).unwrap_or_default();
            let state = if it.net.is_closed() { ", closed" } else { "" };
            Ok(format!("UdpSocket ({}{peer}{state})", it.net.local()))
        });
    })?;
    // As for connections.
    lua.create_any_userdata(UdpSocket { net: udp::UdpSocket::closed() }).map(drop)
}

/// Step: a socket. Where it has to wait, `more` is what to go on with.
fn begin(
    lua: &Lua,
    (host, port, options): (Value, Value, Value),
    op: &'static str,
) -> mlua::Result<Reply<AnyUserData>> {
    let opening = match parse(lua, &host, &port, &options, op) {
        Ok(Some(net)) => net,
        Ok(None) => {
            let socket = udp::UdpSocket::anywhere(0, &DatagramOptions::default());
            return end(lua, socket, op, None);
        }
        Err(failure) => return reply::failed(lua, failure, op, named(&host, &port)),
    };
    let mut opening = Opening { net: opening, op };
    match opening.net.step().transpose() {
        Some(ended) => end(lua, ended, op, Some(opening.net.peer())),
        None => {
            let expiry = opening.deadline();
            let more = Value::UserData(lua.create_any_userdata(opening)?);
            Ok(reply::waiting(lua, Interest::Read, expiry, more))
        }
    }
}

fn go_on(lua: &Lua, opening: AnyUserData) -> mlua::Result<Reply<AnyUserData>> {
    let mut opening = opening.borrow_mut::<Opening>()?;
    match opening.net.step().transpose() {
        Some(ended) => end(lua, ended, opening.op, Some(opening.net.peer())),
        None => Ok(reply::waiting(lua, Interest::Read, opening.deadline(), Value::Nil)),
    }
}

impl Opening {
    fn deadline(&mut self) -> Deadline {
        self.net.resolve().map_or(Deadline::NEVER, |resolve| resolve.deadline())
    }
}

fn end(
    lua: &Lua,
    ended: Result<udp::UdpSocket, Error>,
    op: &str,
    peer: Option<String>,
) -> mlua::Result<Reply<AnyUserData>> {
    match ended {
        Ok(net) => Ok(reply::done(lua.create_any_userdata(UdpSocket { net })?)),
        Err(error) => reply::failed(lua, error.into(), op, peer),
    }
}

/// How errors name a place that was denied.
fn named(host: &Value, port: &Value) -> Option<String> {
    let host = host.as_string()?.to_string_lossy();
    Some(crate::address::peer_name(&host, port.as_integer().and_then(|port| u16::try_from(port).ok())))
}

/// `None`: neither host nor port was given.
fn parse(
    lua: &Lua,
    host: &Value,
    port: &Value,
    options: &Value,
    op: &str,
) -> Result<Option<udp::Opening>, Failure> {
    let listens = op == "udp_listen";
    if !listens && !is_module(host) {
        let are_options = [host.is_table(), port.is_table(), !options.is_nil()];
        if let Some(i) = are_options.iter().position(|is_one| *is_one) {
            let told = "no options expected: they are for udp_listen(host, port, options), and set_option";
            return Err(Place::Argument(i + 1).misuse(told).into());
        }
    }
    if !listens && host.is_nil() && port.is_nil() {
        return Ok(None);
    }
    let place = Place::Argument(1);
    let name = place.text(lua, host)?;
    let form = if listens { "udp_listen(host, port)" } else { "udp(host, port), or udp() without a peer" };
    let port_number = |port| expected_port(lua, Place::Argument(2), port, form);
    if listens && name == "*" {
        let port = port_number(port)?;
        let options = datagram_options(lua, Place::Argument(3), options)?;
        let everywhere = listen::Place::Everywhere;
        return Ok(Some(udp::Opening::to_listen(&name, everywhere, port, options, policy::of(lua))?));
    }
    let host = datagram_host(place, &name)?;
    let port = port_number(port)?;
    Ok(Some(if listens {
        let options = datagram_options(lua, Place::Argument(3), options)?;
        udp::Opening::to_listen(&name, listen::Place::At(host), port, options, policy::of(lua))?
    } else {
        udp::Opening::to_peer(&name, host, port, policy::of(lua))
    }))
}

fn datagram_host(place: Place<'_>, name: &str) -> Result<Host, Misuse> {
    match Host::parse(name).map_err(|problem| place.misuse(problem))? {
        Host::Unix(_) => Err(place.misuse("name or address expected, got a unix path")),
        host => Ok(host),
    }
}

/// A call with something else in the place of the port is told its `form`.
fn expected_port(lua: &Lua, place: Place<'_>, port: &Value, form: &str) -> Result<u16, Misuse> {
    place.number(lua, port).map_err(|misuse| misuse.hinting(format!("as in {form}")))?;
    port_number_at(lua, place, port)
}

/// Step: how many bytes. While it waits, `more` is nil.
fn send(lua: &Lua, (it, data): (Receiver<UdpSocket>, Value)) -> mlua::Result<Reply<usize>> {
    const OP: &str = "send";
    let it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let data = match Place::Argument(1).string(lua, &data) {
        Ok(data) => data,
        Err(misuse) => return reply::failed(lua, misuse.into(), OP, None),
    };
    let Some(peer) = it.net.peer() else {
        let misuse = Misuse {
            before: "bad self to '".into(),
            after: "' (socket with a peer expected; use send_to)".into(),
        };
        return reply::failed(lua, misuse.into(), OP, None);
    };
    let sent = it.net.send(&data.as_bytes());
    sending(lua, &it.net, sent, OP, || peer.to_string())
}

/// Step: how many bytes. While it waits, `more` is nil, or the look-up to go on with.
fn send_to(
    lua: &Lua,
    (it, data, host, port): (Receiver<UdpSocket>, Value, Value, Value),
) -> mlua::Result<Reply<usize>> {
    const OP: &str = "send_to";
    let it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let parsed = Place::Argument(1).string(lua, &data).and_then(|data| {
        let place = Place::Argument(2);
        let name = place.text(lua, &host)?;
        let host = datagram_host(place, &name)?;
        Ok((data, host, name, expected_port(lua, Place::Argument(3), &port, "send_to(data, host, port)")?))
    });
    let (data, host, name, port) = match parsed {
        Ok(parsed) => parsed,
        Err(misuse) => return reply::failed(lua, misuse.into(), OP, None),
    };
    let limit = it.net.timeout.or(Some(RESOLVE_TIMEOUT));
    let net = Resolve::new(&name, host, Some(port), policy::of(lua)).within(limit);
    let mut resolve = resolve::Resolve { net, op: OP };
    match send_resolved(&it.net, &data, &mut resolve).transpose() {
        Some(sent) => sending(lua, &it.net, sent, OP, || resolve.net.peer()),
        None => {
            let expiry = resolve.net.deadline();
            let more = Value::UserData(lua.create_any_userdata(resolve)?);
            Ok(reply::waiting(lua, Interest::Read, expiry, more))
        }
    }
}

/// Step: goes on where the name was being looked up.
fn send_on(
    lua: &Lua,
    (it, data, resolve): (Receiver<UdpSocket>, LuaString, AnyUserData),
) -> mlua::Result<Reply<usize>> {
    let mut resolve = resolve.borrow_mut::<resolve::Resolve>()?;
    let it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, resolve.op, None),
    };
    match send_resolved(&it.net, &data, &mut resolve).transpose() {
        Some(sent) => sending(lua, &it.net, sent, resolve.op, || resolve.net.peer()),
        None => Ok(reply::waiting(lua, Interest::Read, resolve.net.deadline(), Value::Nil)),
    }
}

/// To the first address that the socket can send to at all. `None`: the look-up goes on.
fn send_resolved(
    it: &udp::UdpSocket,
    data: &LuaString,
    resolve: &mut resolve::Resolve,
) -> Result<Option<Step<usize>>, Error> {
    it.socket()?;
    let Some(addresses) = resolve.net.step()? else { return Ok(None) };
    let Some(address) = addresses.into_iter().find(|address| it.speaks(address.ip())) else {
        return Err(Error::new(
            Kind::Unreachable,
            "the socket is of IPv4 only, and the host has no such address",
        ));
    };
    it.send_to(&data.as_bytes(), address).map(Some)
}

fn sending(
    lua: &Lua,
    it: &udp::UdpSocket,
    sent: Result<Step<usize>, Error>,
    op: &str,
    peer: impl FnOnce() -> String,
) -> mlua::Result<Reply<usize>> {
    match sent {
        Ok(Step::Ready(sent)) => Ok(reply::done(sent)),
        Ok(Step::Wait(interest)) => waiting(lua, interest, it.timeout),
        Err(error) => reply::failed(lua, error.into(), op, Some(peer())),
    }
}

fn waiting<R>(lua: &Lua, interest: Interest, limit: Option<Duration>) -> mlua::Result<Reply<R>> {
    Ok(reply::waiting(lua, interest, Deadline::after(Instant::now(), limit), Value::Nil))
}

/// The socket, what a datagram has at most, the time limit, and whether others came before, who have to be waited for.
/// Instead of the time limit, or of both, there may be a table with it.
type Arguments = (Receiver<UdpSocket>, Value, Value, bool);

/// Step: a datagram.
fn recv(lua: &Lua, arguments: Arguments) -> mlua::Result<Reply<LuaString>> {
    receive(lua, arguments, "recv", |data, _| Ok(data))
}

/// Step: a datagram, and where it came from: nil, nil if the system does not say.
fn recv_from(lua: &Lua, arguments: Arguments) -> mlua::Result<(Value, Value, Value)> {
    let reply = receive(lua, arguments, "recv_from", |data, from| {
        let host = from.map(|from| resolve::text(&from)).into_lua(lua)?;
        Ok((Value::String(data), host, from.map(|from| from.port()).into_lua(lua)?))
    });
    let reply = reply.or_else(|error| reply::interrupted(lua, error))?;
    Ok(match reply {
        Either::Left(all) => all,
        Either::Right(pending) => (Value::LightUserData(pending), Value::Nil, Value::Nil),
    })
}

fn receive<R>(
    lua: &Lua,
    (it, max, timeout, is_taken): Arguments,
    op: &str,
    give: impl FnOnce(LuaString, Option<SocketAddr>) -> mlua::Result<R>,
) -> mlua::Result<Reply<R>> {
    let it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, op, None),
    };
    let limits = || {
        let call = Call::new(lua, [max, timeout, Value::Nil], 2)?;
        let numbers = || {
            let timeout = match call.argument(2) {
                (_, Value::Nil) => call.timeout.unwrap_or(it.net.timeout),
                (place, seconds) => place.seconds(lua, seconds)?,
            };
            Ok((call.optional_limit(1, 1)?.unwrap_or(LONGEST).min(LONGEST), timeout))
        };
        numbers().map_err(|it: Misuse| it.hinting(format!("as in {op}(max, timeout), {op}{{ timeout = s }}")))
    };
    let (max, timeout) = match limits() {
        Ok(limits) => limits,
        Err(misuse) => return reply::failed(lua, Failure::Misuse(misuse), op, None),
    };
    // What is made of a datagram may run finalizers, which may receive: meanwhile the room is not in its place.
    let mut room = ROOM.take();
    room.resize(LONGEST, 0);
    let got = match is_taken && !it.net.is_closed() {
        true => Ok(Step::Wait(Interest::Read)),
        false => it.net.receive(&mut room[..max]),
    };
    let reply = match got {
        Ok(Step::Ready(got)) => {
            lua.create_string(&room[..got.length]).and_then(|data| give(data, got.from)).map(reply::done)
        }
        Ok(Step::Wait(interest)) => waiting(lua, interest, timeout),
        Err(error) => reply::failed(lua, error.into(), op, Some(it.net.name())),
    };
    ROOM.set(room);
    reply
}
