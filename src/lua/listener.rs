//! Listening: from a script's arguments to a `Listener`, and its methods.

use std::time::Instant;

use mlua::AnyUserData;
use mlua::Lua;
use mlua::MetaMethod;
use mlua::Table;
use mlua::UserDataFields;
use mlua::UserDataMethods;
use mlua::UserDataRegistry;
use mlua::Value;

use crate::address::Address;
use crate::address::Host;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::is_callable;
use crate::lua::connection::Connection;
use crate::lua::connection::Named;
use crate::lua::connection::Receiver;
use crate::lua::connection::query;
use crate::lua::connection::receiver;
use crate::lua::dial::port_number;
use crate::lua::options;
use crate::lua::policy;
use crate::lua::reply;
use crate::lua::reply::Nothing;
use crate::lua::reply::Reply;
use crate::net::connection;
use crate::net::listen;
use crate::step::Interest;
use crate::step::Step;

pub struct Listener {
    pub net: listen::Listener,
}

impl Named for Listener {
    const NAME: &'static str = "Listener";
}

/// A listener in the making, between its steps.
pub struct Listen {
    pub net: listen::Listen,
    /// Which of the functions it was called by.
    op: &'static str,
}

impl Listen {
    fn deadline(&mut self) -> Deadline {
        self.net.resolve().map_or(Deadline::NEVER, |resolve| resolve.deadline())
    }
}

/// Adds to `core`: `listen` and `serve`, and `listen_on` for both, `accept`, and `listener`, the methods that the world cannot make fail.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    let listen = |lua: &Lua, (host, port, options)| begin(lua, [host, port, options], None, "listen");
    core.raw_set("listen", reply::function(lua, listen)?)?;
    let serve =
        |lua: &Lua, (host, port, handler, options)| begin(lua, [host, port, options], Some(handler), "serve");
    core.raw_set("serve", reply::function(lua, serve)?)?;
    core.raw_set("listen_on", reply::function(lua, go_on)?)?;
    core.raw_set("accept", reply::function(lua, accept)?)?;
    let plain = lua.create_table()?;
    query(lua, &plain, "close", |it: &mut Listener| {
        it.net.close();
        Nothing::None
    })?;
    query(lua, &plain, "is_closed", |it: &mut Listener| it.net.is_closed())?;
    for name in ["addr", "local_addr"] {
        query(lua, &plain, name, |it: &mut Listener| Address::to_string(it.net.address()))?;
    }
    query(lua, &plain, "local_host", |it: &mut Listener| it.net.address().host())?;
    query(lua, &plain, "local_port", |it: &mut Listener| it.net.address().port())?;
    query(lua, &plain, "pollfd", |it: &mut Listener| it.net.raw())?;
    core.raw_set("listener", plain)
}

/// Makes the metatable of every listener. `runtime` holds what is written in Lua.
pub fn register_type(lua: &Lua, runtime: &Table) -> mlua::Result<()> {
    let fields: [(&str, Value); 2] =
        [("__index", runtime.raw_get("methods")?), ("__close", runtime.raw_get("close")?)];
    lua.register_userdata_type::<Listener>(move |registry: &mut UserDataRegistry<Listener>| {
        for (name, value) in fields {
            registry.add_meta_field(name, value);
        }
        registry.add_meta_method(MetaMethod::ToString, |_, it, ()| {
            let tls = if it.net.is_tls() { ", TLS" } else { "" };
            let state = if it.net.is_closed() { ", closed" } else { "" };
            Ok(format!("Listener ({}{tls}{state})", it.net.address()))
        });
    })?;
    // As for connections.
    lua.create_any_userdata(Listener { net: listen::Listener::closed() }).map(drop)
}

/// Step: where it has to wait, `more` is what to go on with.
fn begin(
    lua: &Lua,
    [host, port, options]: [Value; 3],
    handler: Option<Value>,
    op: &'static str,
) -> mlua::Result<Reply<AnyUserData>> {
    let net = match parse(lua, &host, &port, &options, handler) {
        Ok(net) => net,
        Err(misuse) => return reply::failed(lua, misuse.into(), op, None),
    };
    let mut listen = Listen { net, op };
    match listen.net.step().transpose() {
        Some(ended) => end(lua, &listen, ended),
        None => {
            let expiry = listen.deadline();
            let more = Value::UserData(lua.create_any_userdata(listen)?);
            Ok(reply::waiting(lua, Interest::Read, expiry, more))
        }
    }
}

/// Step: goes on where the name was being looked up.
fn go_on(lua: &Lua, listen: AnyUserData) -> mlua::Result<Reply<AnyUserData>> {
    let mut listen = listen.borrow_mut::<Listen>()?;
    match listen.net.step().transpose() {
        Some(ended) => end(lua, &listen, ended),
        None => Ok(reply::waiting(lua, Interest::Read, listen.deadline(), Value::Nil)),
    }
}

fn end(
    lua: &Lua,
    listen: &Listen,
    ended: Result<listen::Listener, Error>,
) -> mlua::Result<Reply<AnyUserData>> {
    match ended {
        Ok(net) => Ok(reply::done(lua.create_any_userdata(Listener { net })?)),
        Err(error) => reply::failed(lua, error.into(), listen.op, Some(listen.net.peer())),
    }
}

fn parse(
    lua: &Lua,
    host: &Value,
    port: &Value,
    options: &Value,
    handler: Option<Value>,
) -> Result<listen::Listen, Misuse> {
    let place = Place::Argument(1);
    let name = place.text(lua, host)?;
    let at = match name.as_str() {
        "*" => listen::Place::Everywhere,
        name => listen::Place::At(Host::parse(name).map_err(|problem| place.misuse(problem))?),
    };
    let port = match (&at, port) {
        (listen::Place::At(Host::Unix(_)), Value::Nil) => 0,
        (listen::Place::At(Host::Unix(_)), port) => {
            return Err(Place::Argument(2).expected("nil (a unix path has no port)", port));
        }
        (_, port) => port_number(lua, port)?,
    };
    let options = match handler {
        None => options::listen(lua, Place::Argument(3), options)?,
        Some(handler) if is_callable(&handler) => options::serve(lua, Place::Argument(4), options)?,
        Some(other) => return Err(Place::Argument(3).expected("function", &other)),
    };
    Ok(listen::Listen::new(&name, at, port, options, policy::of(lua)))
}

/// Step: the next connection.
///
/// `is_taken`: others came before, and have to be waited for.
fn accept(
    lua: &Lua,
    (it, timeout, is_taken): (Receiver<Listener>, Value, bool),
) -> mlua::Result<Reply<AnyUserData>> {
    const OP: &str = "accept";
    let mut it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let limit = match &timeout {
        Value::Nil => Ok(None),
        timeout => Place::Argument(1).seconds(lua, timeout),
    };
    let limit = match limit {
        Ok(limit) => limit,
        Err(misuse) => return reply::failed(lua, misuse.into(), OP, None),
    };
    let accepted_now = match is_taken && !it.net.is_closed() {
        true => Ok(Step::Wait(Interest::Read)),
        false => it.net.accept(&policy::of(lua)),
    };
    match accepted_now {
        Ok(Step::Ready(connection)) => Ok(reply::done(accepted(lua, connection)?)),
        Ok(Step::Wait(interest)) => {
            let expiry = Deadline::after(Instant::now(), limit);
            Ok(reply::waiting(lua, interest, expiry, Value::Nil))
        }
        Err(error) => reply::failed(lua, error.into(), OP, Some(it.net.address().to_string())),
    }
}

fn accepted(lua: &Lua, net: connection::Connection) -> mlua::Result<AnyUserData> {
    lua.create_any_userdata(Connection::new(net))
}
