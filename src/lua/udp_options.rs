//! What a UDP socket is asked and told besides datagrams: its state, options, and groups.

use std::io;
use std::net::IpAddr;

use mlua::IntoLua;
use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::address::Host;
use crate::error::Error;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::each_option;
use crate::lua::connection::Receiver;
use crate::lua::connection::query;
use crate::lua::connection::receiver;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Nothing;
use crate::lua::resolve;
use crate::lua::udp::UdpSocket;
use crate::options::DatagramOptions;
use crate::options::DatagramSetting;
use crate::options::Interface;
use crate::sys::datagram::Datagram;

const SETTINGS: [&str; 7] = [
    "broadcast",
    "multicast_interface",
    "multicast_loop",
    "multicast_ttl",
    "recv_buffer",
    "send_buffer",
    "ttl",
];

pub fn datagram_options(lua: &Lua, place: Place<'_>, value: &Value) -> Result<DatagramOptions, Misuse> {
    let mut options = DatagramOptions::default();
    match value {
        Value::Nil => {}
        Value::Table(table) => {
            let mut known: Vec<_> = ["ipv6_only", "reuse_port"].into_iter().chain(SETTINGS).collect();
            known.sort_unstable();
            each_option(table, &known, |name, value| {
                let place = Place::Option(name);
                match name {
                    "ipv6_only" => options.ipv6_only = place.boolean(value)?,
                    "reuse_port" => options.reuse_port = place.boolean(value)?,
                    name => options.settings.push(setting(lua, place, name, value)?),
                }
                Ok(())
            })?
        }
        other => return Err(place.expected("table (options)", other)),
    }
    Ok(options)
}

fn setting(lua: &Lua, place: Place<'_>, name: &str, value: &Value) -> Result<DatagramSetting, Misuse> {
    let hops = |least: usize| match place.size(lua, value, least)? {
        hops if hops <= 255 => Ok(hops as u32),
        hops => Err(place.misuse(format!("{least} to 255 expected, got {hops}"))),
    };
    Ok(match name {
        "broadcast" => DatagramSetting::Broadcast(place.boolean(value)?),
        "multicast_interface" => DatagramSetting::MulticastInterface(interface(lua, place, value)?),
        "multicast_loop" => DatagramSetting::MulticastLoop(place.boolean(value)?),
        "multicast_ttl" => DatagramSetting::MulticastTtl(hops(0)?),
        "recv_buffer" => DatagramSetting::RecvBuffer(place.int(lua, value, 1)?),
        "send_buffer" => DatagramSetting::SendBuffer(place.int(lua, value, 1)?),
        _ => DatagramSetting::Ttl(hops(1)?),
    })
}

/// An address, a number or a name, which begins with a letter: whether there is one of that name, the system knows.
fn interface(lua: &Lua, place: Place<'_>, value: &Value) -> Result<Interface, Misuse> {
    let text = place.text(lua, value)?;
    match (text.parse(), text.parse()) {
        _ if text.contains('\0') => Err(place.misuse("interface contains a zero byte")),
        (Ok(address), _) => Ok(Interface::Address(address)),
        (_, Ok(index)) => Ok(Interface::Index(index)),
        _ if text.starts_with(char::is_alphabetic) => Ok(Interface::Name(text)),
        _ => Err(place.misuse(format!("address, name or number of an interface expected, got '{text}'"))),
    }
}

/// Methods that the world cannot make fail.
pub fn plain(lua: &Lua) -> mlua::Result<Table> {
    let methods = lua.create_table()?;
    query(lua, &methods, "close", |it: &mut UdpSocket| {
        it.net.close();
        Nothing::None
    })?;
    query(lua, &methods, "is_closed", |it: &mut UdpSocket| it.net.is_closed())?;
    query(lua, &methods, "local_addr", |it: &mut UdpSocket| it.net.local().to_string())?;
    query(lua, &methods, "local_host", |it: &mut UdpSocket| resolve::text(&it.net.local()))?;
    query(lua, &methods, "local_port", |it: &mut UdpSocket| it.net.local().port())?;
    query(lua, &methods, "pollfd", |it: &mut UdpSocket| it.net.raw())?;
    instant(lua, &methods, "set_timeout", |lua, it, [seconds, _]| {
        it.net.timeout = match seconds {
            Value::Nil => None,
            seconds => Place::Argument(1).seconds(lua, &seconds)?,
        };
        Ok(Nothing::None)
    })?;
    Ok(methods)
}

/// Methods that do not wait.
pub fn fallible(lua: &Lua) -> mlua::Result<Table> {
    let methods = lua.create_table()?;
    instant(lua, &methods, "join", |lua, it, arguments| {
        let (group, interface) = group(lua, arguments)?;
        it.net.join(group, &interface)?;
        Ok(Nothing::None)
    })?;
    instant(lua, &methods, "leave", |lua, it, arguments| {
        let (group, interface) = group(lua, arguments)?;
        it.net.leave(group, &interface)?;
        Ok(Nothing::None)
    })?;
    instant(lua, &methods, "set_option", |lua, it, [name, value]| {
        let name = option_name(lua, &name)?;
        let setting = setting(lua, Place::Option(name), name, &value)?;
        it.net.set(&setting)?;
        Ok(Nothing::None)
    })?;
    instant(lua, &methods, "get_option", |lua, it, [name, _]| {
        let name = option_name(lua, &name)?;
        let value = option(lua, it.net.socket()?, name);
        Ok(value?.map_err(|error| Error::from_system(&error))?)
    })?;
    Ok(methods)
}

fn instant<R: IntoLua + 'static>(
    lua: &Lua,
    methods: &Table,
    name: &'static str,
    step: impl Fn(&Lua, &mut UdpSocket, [Value; 2]) -> Result<R, Failure> + 'static,
) -> mlua::Result<()> {
    let function = reply::function(lua, move |lua, (it, a, b): (Receiver<UdpSocket>, Value, Value)| {
        let mut it = match receiver(it) {
            Ok(it) => it,
            Err(failure) => return reply::failed::<R>(lua, failure, name, None),
        };
        let result = step(lua, &mut it, [a, b]);
        reply::settled(lua, result, name, || Some(it.net.name()))
    })?;
    methods.raw_set(name, function)
}

fn group(lua: &Lua, [group, on]: [Value; 2]) -> Result<(IpAddr, Interface), Misuse> {
    let place = Place::Argument(1);
    let text = place.text(lua, &group)?;
    let ip = match Host::parse(&text) {
        Ok(Host::Ip(ip)) if ip.is_multicast() => ip,
        _ => return Err(place.misuse(format!("multicast address expected, got '{text}'"))),
    };
    if on.is_nil() {
        return Ok((ip, Interface::Index(0)));
    }
    let place = Place::Argument(2);
    match interface(lua, place, &on)? {
        Interface::Address(address) if ip.is_ipv6() => {
            Err(place.misuse(format!("name or number of an interface expected for IPv6, got '{address}'")))
        }
        on => Ok((ip, on)),
    }
}

fn option_name(lua: &Lua, name: &Value) -> Result<&'static str, Misuse> {
    let text = Place::Argument(1).text(lua, name)?;
    let known = SETTINGS.iter().find(|known| **known == text);
    known.copied().ok_or_else(|| Place::Argument(1).unknown_option(&text, &SETTINGS))
}

fn option(lua: &Lua, socket: &Datagram, name: &str) -> mlua::Result<io::Result<Value>> {
    let value = match name {
        "broadcast" => socket.broadcast().map(|on| on.into_lua(lua)),
        "multicast_interface" => Ok(match socket.multicast_interface() {
            Some(Interface::Index(index)) => index.into_lua(lua),
            Some(Interface::Address(address)) => address.to_string().into_lua(lua),
            Some(Interface::Name(name)) => name.as_str().into_lua(lua),
            None => Ok(Value::Nil),
        }),
        "multicast_loop" => socket.multicast_loop().map(|on| on.into_lua(lua)),
        "multicast_ttl" => socket.multicast_ttl().map(|hops| hops.into_lua(lua)),
        "recv_buffer" => socket.recv_buffer().map(|bytes| bytes.into_lua(lua)),
        "send_buffer" => socket.send_buffer().map(|bytes| bytes.into_lua(lua)),
        _ => socket.ttl().map(|hops| hops.into_lua(lua)),
    };
    match value {
        Ok(value) => value.map(Ok),
        Err(error) => Ok(Err(error)),
    }
}
