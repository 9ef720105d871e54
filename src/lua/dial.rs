//! Connecting: from a script's arguments to a connection, in steps.

use std::time::Instant;

use mlua::AnyUserData;
use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::address::Host;
use crate::error::Error;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::shown;
use crate::lua::connection::Connection;
use crate::lua::options;
use crate::lua::policy;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Reply;
use crate::lua::tls_options;
use crate::net;
use crate::net::dial;
use crate::options::TlsClientOptions;
use crate::step::Interest;

/// A connect under way, between its steps.
pub struct Dial {
    pub net: dial::Dial,
    /// Which of the functions it was called by.
    op: &'static str,
}

pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.raw_set("dial", reply::function(lua, |lua, arguments| begin(lua, arguments, "connect"))?)?;
    core.raw_set("dial_tls", reply::function(lua, |lua, arguments| begin(lua, arguments, "connect_tls"))?)?;
    core.raw_set("dial_on", reply::function(lua, go_on)?)
}

/// Step: where it has to wait, `more` is the dial to go on with.
fn begin(
    lua: &Lua,
    (host, port, options): (Value, Value, Value),
    op: &'static str,
) -> mlua::Result<Reply<AnyUserData>> {
    let mut net = match parse(lua, &host, &port, &options, op == "connect_tls") {
        Ok(dial) => dial,
        Err(misuse) => return reply::failed(lua, Failure::Misuse(misuse), op, None),
    };
    match net.step(Instant::now()).transpose() {
        Some(ended) => end(lua, &net, op, ended),
        None => {
            let expiry = net.deadline();
            let more = lua.create_any_userdata(Dial { net, op })?;
            Ok(reply::waiting(lua, Interest::Write, expiry, Value::UserData(more)))
        }
    }
}

/// Step: goes on with a dial that had to wait.
fn go_on(lua: &Lua, dial: AnyUserData) -> mlua::Result<Reply<AnyUserData>> {
    let mut dial = dial.borrow_mut::<Dial>()?;
    match dial.net.step(Instant::now()).transpose() {
        Some(ended) => end(lua, &dial.net, dial.op, ended),
        None => Ok(reply::waiting(lua, Interest::Write, dial.net.deadline(), Value::Nil)),
    }
}

fn end(
    lua: &Lua,
    dial: &dial::Dial,
    op: &str,
    ended: Result<net::connection::Connection, Error>,
) -> mlua::Result<Reply<AnyUserData>> {
    match ended {
        Ok(connection) => Ok(reply::done(lua.create_any_userdata(Connection::new(connection))?)),
        Err(error) => reply::failed(lua, error.into(), op, Some(dial.peer())),
    }
}

fn parse(
    lua: &Lua,
    host: &Value,
    port: &Value,
    options: &Value,
    with_tls: bool,
) -> Result<dial::Dial, Misuse> {
    let place = Place::Argument(1);
    let name = place.text(lua, host)?;
    let host = Host::parse(&name).map_err(|problem| place.misuse(problem))?;
    let port = match (&host, port) {
        (Host::Unix(_), Value::Nil) => 0,
        (Host::Unix(_), port) => {
            return Err(Place::Argument(2).expected("nil (a unix path has no port)", port));
        }
        (_, port) => port_number(lua, port)?,
    };
    let options = options::connect(lua, Place::Argument(3), options, with_tls)?;
    if let (Host::Unix(_), Some(TlsClientOptions { verify: true, sni: None, .. })) = (&host, &options.tls) {
        return Err(Place::Option("tls").misuse(tls_options::NAMELESS));
    }
    Ok(dial::Dial::new(&name, host, port, options, policy::of(lua), Instant::now()))
}

pub fn port_number(lua: &Lua, port: &Value) -> Result<u16, Misuse> {
    port_number_at(lua, Place::Argument(2), port)
}

pub fn port_number_at(lua: &Lua, place: Place<'_>, port: &Value) -> Result<u16, Misuse> {
    let number = place.whole(lua, port)?;
    if !(0.0..=65535.0).contains(&number) {
        return Err(place.misuse(format!("port out of range 0-65535: {}", shown(number))));
    }
    Ok(number as u16)
}
