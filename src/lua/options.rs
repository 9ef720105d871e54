//! Option tables of scripts, parsed strictly into plain structs.

use std::rc::Rc;
use std::time::Duration;

use mlua::Lua;
use mlua::Value;

use crate::address;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::belongs_to;
use crate::lua::args::did_you_mean;
use crate::lua::args::each_option_under;
use crate::lua::tls_options;
use crate::options::ConnectOptions;
use crate::options::ConnectionOptions;
use crate::options::Endian;
use crate::options::Family;
use crate::options::Format;
use crate::options::Keepalive;
use crate::options::ListenOptions;
use crate::options::TlsClientOptions;

const CONNECT: [&str; 13] = [
    "bind",
    "family",
    "keepalive",
    "max_json",
    "max_line",
    "max_packet",
    "newline",
    "nodelay",
    "packet_endian",
    "read_timeout",
    "timeout",
    "tls",
    "write_timeout",
];

/// The third argument of connect: nil, the timeout, or a table. `with_tls`: that of connect_tls.
pub fn connect(lua: &Lua, place: Place<'_>, value: &Value, with_tls: bool) -> Result<ConnectOptions, Misuse> {
    let tls = with_tls.then(TlsClientOptions::default);
    let mut options = ConnectOptions { tls, ..ConnectOptions::default() };
    match value {
        Value::Nil => {}
        Value::Table(table) => {
            each_option_under(table, "", &CONNECT, &belongs_to(&tls_options::CLIENT), |name, value| {
                let place = Place::Option(name);
                match name {
                    "timeout" => options.timeout = place.seconds(lua, value)?,
                    "bind" => options.bind = Some(bind(lua, place, value)?),
                    "family" => options.family = family(lua, place, value)?,
                    "tls" => options.tls = tls_options::client(lua, place, value, with_tls)?,
                    name => set_connection(lua, &mut options.connection, name, value)?,
                }
                Ok(())
            })?
        }
        Value::Integer(_) | Value::Number(_) | Value::String(_) => {
            options.timeout = place.seconds(lua, value)?;
        }
        other => return Err(place.expected("number (the timeout) or table (options)", other)),
    }
    Ok(options)
}

const LISTEN: [&str; 14] = [
    "backlog",
    "handshake_timeout",
    "ipv6_only",
    "keepalive",
    "max_json",
    "max_line",
    "max_packet",
    "newline",
    "nodelay",
    "packet_endian",
    "read_timeout",
    "reuse_port",
    "tls",
    "write_timeout",
];

/// The third argument of listen: nil or a table.
pub fn listen(lua: &Lua, place: Place<'_>, value: &Value) -> Result<ListenOptions, Misuse> {
    listen_with(lua, place, value, &LISTEN)
}

/// The fourth argument of serve. What the embedded Lua takes out of it is only checked here.
pub fn serve(lua: &Lua, place: Place<'_>, value: &Value) -> Result<ListenOptions, Misuse> {
    let mut known: Vec<_> = LISTEN.into_iter().chain(["max_connections", "on_error"]).collect();
    known.sort_unstable();
    listen_with(lua, place, value, &known)
}

fn listen_with(
    lua: &Lua,
    place: Place<'_>,
    value: &Value,
    known: &[&'static str],
) -> Result<ListenOptions, Misuse> {
    let mut options = ListenOptions::default();
    match value {
        Value::Nil => {}
        Value::Table(table) => {
            let belongs = belongs_to(&tls_options::SERVER);
            let hint = |bare: &str| match bare {
                "timeout" | "timeouts" => Some(did_you_mean("read_timeout")),
                bare => belongs(bare),
            };
            each_option_under(table, "", known, &hint, |name, value| {
                let place = Place::Option(name);
                match name {
                    "backlog" => options.backlog = place.int(lua, value, 1)?,
                    "reuse_port" => options.reuse_port = place.boolean(value)?,
                    "ipv6_only" => options.ipv6_only = place.boolean(value)?,
                    "handshake_timeout" => options.handshake_timeout = place.seconds(lua, value)?,
                    "tls" => options.tls = tls_options::server(lua, place, value)?,
                    "max_connections" => {
                        place.limit(lua, value, 1)?;
                    }
                    "on_error" if value.is_function() => {}
                    "on_error" => return Err(place.expected("function", value)),
                    name => set_connection(lua, &mut options.connection, name, value)?,
                }
                Ok(())
            })?
        }
        other => return Err(place.expected("table (options)", other)),
    }
    Ok(options)
}

/// Sets one of the options that every connection has.
fn set_connection(
    lua: &Lua,
    options: &mut ConnectionOptions,
    name: &'static str,
    value: &Value,
) -> Result<(), Misuse> {
    let place = Place::Option(name);
    match name {
        "read_timeout" => options.read_timeout = place.seconds(lua, value)?,
        "write_timeout" => options.write_timeout = place.seconds(lua, value)?,
        "nodelay" => options.nodelay = place.boolean(value)?,
        "keepalive" => options.keepalive = keepalive(lua, place, value)?,
        name => {
            set_format(lua, &mut options.format, name, value)?;
        }
    }
    Ok(())
}

/// Sets one of the limits and formats; `false` if `name` is none of them.
pub fn set_format(lua: &Lua, shared: &mut Rc<Format>, name: &str, value: &Value) -> Result<bool, Misuse> {
    if !FORMATS.contains(&name) {
        return Ok(false);
    }
    let place = Place::Option(name);
    let format = Rc::make_mut(shared);
    match name {
        "newline" => format.newline = place.string(lua, value)?.as_bytes().to_vec(),
        "max_line" => format.max_line = place.limit(lua, value, 0)?,
        "max_packet" => format.max_packet = place.limit(lua, value, 0)?,
        "max_json" => format.max_json = place.limit(lua, value, 0)?,
        _ => format.packet_endian = place.word(lua, value, &ENDIANS)?,
    }
    Ok(true)
}

const FORMATS: [&str; 5] = ["max_json", "max_line", "max_packet", "newline", "packet_endian"];

pub const ENDIANS: [(&str, Endian); 2] = [("big", Endian::Big), ("little", Endian::Little)];

pub fn family(lua: &Lua, place: Place<'_>, value: &Value) -> Result<Family, Misuse> {
    place.word(lua, value, &[("any", Family::Any), ("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)])
}

/// `true`, `false`, or idle seconds, of which the system counts whole ones.
pub fn keepalive(lua: &Lua, place: Place<'_>, value: &Value) -> Result<Keepalive, Misuse> {
    match value {
        Value::Boolean(true) => Ok(Keepalive::On),
        Value::Boolean(false) => Ok(Keepalive::Off),
        Value::Integer(_) | Value::Number(_) | Value::String(_) => match place.seconds(lua, value)? {
            Some(idle) if idle >= Duration::from_secs(1) && idle <= Duration::from_secs(32767) => {
                Ok(Keepalive::After(Duration::from_secs(idle.as_nanos().div_ceil(1_000_000_000) as u64)))
            }
            _ => Err(place.misuse("1 to 32767 seconds expected")),
        },
        other => Err(place.expected("boolean or number (idle seconds)", other)),
    }
}

fn bind(lua: &Lua, place: Place<'_>, value: &Value) -> Result<std::net::SocketAddr, Misuse> {
    let text = place.text(lua, value)?;
    address::parse_bind(&text)
        .ok_or_else(|| place.misuse(format!("'ip' or 'ip:port' expected, got '{text}'")))
}
