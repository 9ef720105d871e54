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
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Reply;
use crate::net;
use crate::net::dial;
use crate::step::Interest;

/// A connect under way, between its steps.
pub struct Dial(pub dial::Dial);

pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.raw_set("dial", lua.create_function(begin)?)?;
    core.raw_set("dial_on", lua.create_function(go_on)?)
}

/// Step: where it has to wait, `more` is the dial to go on with.
fn begin(lua: &Lua, (host, port, options): (Value, Value, Value)) -> mlua::Result<Reply<AnyUserData>> {
    let mut dial = match parse(lua, &host, &port, &options) {
        Ok(dial) => dial,
        Err(misuse) => return reply::failed(lua, Failure::Misuse(misuse), "connect", None),
    };
    match dial.step(Instant::now()).transpose() {
        Some(ended) => end(lua, &dial, ended),
        None => {
            let expiry = dial.deadline();
            let more = lua.create_any_userdata(Dial(dial))?;
            Ok(reply::waiting(lua, Interest::Write, expiry, Value::UserData(more)))
        }
    }
}

/// Step: goes on with a dial that had to wait.
fn go_on(lua: &Lua, dial: AnyUserData) -> mlua::Result<Reply<AnyUserData>> {
    let dial = &mut dial.borrow_mut::<Dial>()?.0;
    match dial.step(Instant::now()).transpose() {
        Some(ended) => end(lua, dial, ended),
        None => Ok(reply::waiting(lua, Interest::Write, dial.deadline(), Value::Nil)),
    }
}

fn end(
    lua: &Lua,
    dial: &dial::Dial,
    ended: Result<net::connection::Connection, Error>,
) -> mlua::Result<Reply<AnyUserData>> {
    match ended {
        Ok(connection) => Ok(reply::done(lua.create_any_userdata(Connection::new(connection))?)),
        Err(error) => reply::failed(lua, error.into(), "connect", Some(dial.peer())),
    }
}

fn parse(lua: &Lua, host: &Value, port: &Value, options: &Value) -> Result<dial::Dial, Misuse> {
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
    let options = options::connect(lua, Place::Argument(3), options)?;
    Ok(dial::Dial::new(&name, host, port, options, Instant::now()))
}

pub fn port_number(lua: &Lua, port: &Value) -> Result<u16, Misuse> {
    let place = Place::Argument(2);
    let number = place.whole(lua, port)?;
    if !(0.0..=65535.0).contains(&number) {
        return Err(place.misuse(format!("port out of range 0-65535: {}", shown(number))));
    }
    Ok(number as u16)
}
