//! Names: `tcp.resolve`, and look-ups under way for whatever else takes a host.

use std::net::SocketAddr;

use mlua::AnyUserData;
use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::address::Host;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::each_option;
use crate::lua::options;
use crate::lua::policy;
use crate::lua::reply;
use crate::lua::reply::Reply;
use crate::net::resolve;
use crate::options::Family;
use crate::options::RESOLVE_TIMEOUT;
use crate::step::Interest;

/// A look-up under way, between its steps.
pub struct Resolve {
    pub net: resolve::Resolve,
    /// Which of the functions it was called by.
    pub op: &'static str,
}

/// Adds to `core`: `resolve` and `resolve_all`, which give lists, and `resolve_on`.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    for name in ["resolve", "resolve_all"] {
        core.raw_set(name, reply::function(lua, move |lua, arguments| begin(lua, arguments, name))?)?;
    }
    core.raw_set("resolve_on", reply::function(lua, go_on)?)
}

fn begin(
    lua: &Lua,
    (host, options, extra): (Value, Value, Value),
    op: &'static str,
) -> mlua::Result<Reply<Table>> {
    let net = match parse(lua, &host, &options, &extra) {
        Ok(net) => net,
        Err(misuse) => return reply::failed(lua, misuse.into(), op, None),
    };
    step(lua, Resolve { net, op })
}

/// Step: a list of addresses. Where it has to wait, `more` is what to go on with.
fn step(lua: &Lua, mut it: Resolve) -> mlua::Result<Reply<Table>> {
    match it.net.step() {
        Ok(Some(addresses)) => texts(lua, &addresses).map(reply::done),
        Ok(None) => {
            let expiry = it.net.deadline();
            let more = Value::UserData(lua.create_any_userdata(it)?);
            Ok(reply::waiting(lua, Interest::Read, expiry, more))
        }
        Err(error) => reply::failed(lua, error.into(), it.op, Some(it.net.peer())),
    }
}

fn go_on(lua: &Lua, it: AnyUserData) -> mlua::Result<Reply<Table>> {
    let mut it = it.borrow_mut::<Resolve>()?;
    match it.net.step() {
        Ok(Some(addresses)) => texts(lua, &addresses).map(reply::done),
        Ok(None) => Ok(reply::waiting(lua, Interest::Read, it.net.deadline(), Value::Nil)),
        Err(error) => reply::failed(lua, error.into(), it.op, Some(it.net.peer())),
    }
}

/// Each address once.
fn texts(lua: &Lua, addresses: &[SocketAddr]) -> mlua::Result<Table> {
    let mut texts: Vec<String> = Vec::with_capacity(addresses.len());
    for address in addresses {
        let text = text(address);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    lua.create_sequence_from(texts)
}

/// With its zone, without which a link-local address leads nowhere (RFC 4007, section 11).
pub fn text(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(it) if it.scope_id() != 0 => format!("{}%{}", it.ip(), it.scope_id()),
        other => other.ip().to_string(),
    }
}

fn parse(lua: &Lua, host: &Value, options: &Value, extra: &Value) -> Result<resolve::Resolve, Misuse> {
    let place = Place::Argument(1);
    let name = place.text(lua, host)?;
    let host = Host::parse(&name).map_err(|problem| place.misuse(problem))?;
    if let Host::Unix(_) = host {
        return Err(place.misuse("name or address expected, got a unix path"));
    }
    if !extra.is_nil() {
        return Err(Place::Argument(3).misuse("nothing more expected"));
    }
    let (mut timeout, mut family) = (Some(RESOLVE_TIMEOUT), Family::Any);
    match options {
        Value::Nil => {}
        Value::Table(table) => each_option(table, &["family", "timeout"], |name, value| {
            let place = Place::Option(name);
            match name {
                "family" => family = options::family(lua, place, value)?,
                _ => timeout = place.seconds(lua, value)?,
            }
            Ok(())
        })?,
        other => return Err(Place::Argument(2).expected("table (options)", other)),
    }
    Ok(resolve::Resolve::new(&name, host, None, policy::of(lua)).of_family(family).within(timeout))
}
