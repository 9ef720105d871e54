//! The `Connection` userdata, and how its steps are given a connection and checked arguments.
//!
//! It has methods and no fields: a field would turn `__index` into a function, and make every method call
//! dearer. The methods are Lua functions around the steps (methods.lua).

use std::time::Duration;

use mlua::Either;
use mlua::IntoLua;
use mlua::Lua;
use mlua::MetaMethod;
use mlua::Table;
use mlua::UserDataFields;
use mlua::UserDataMethods;
use mlua::UserDataRefMut;
use mlua::UserDataRegistry;
use mlua::Value;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::each_option;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::net::connection;
use crate::net::remains;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::memory::Counted;

pub struct Connection {
    pub net: connection::Connection,
    /// The legacy `send` and `recv` use this one: it stands in the registry.
    pub is_last: bool,
    /// Reused by the writes that make their bytes: packets and JSON.
    pub scratch: Vec<u8>,
    _counted: Counted,
}

impl Connection {
    pub fn new(net: connection::Connection) -> Self {
        Self { net, is_last: false, scratch: Vec::new(), _counted: Counted::new() }
    }

    fn describe(&self) -> String {
        let ends = self.net.ends();
        let tls = if self.net.is_tls() { ", TLS" } else { "" };
        let state = if self.net.is_closed() { ", closed" } else { "" };
        match ends.port() {
            Some(_) => format!("Connection ({} -> {}{tls}{state})", ends.local, ends.remote),
            None => format!("Connection ({}{tls}{state})", ends.host()),
        }
    }
}

/// Makes the metatable of every connection. `runtime` holds what is written in Lua.
pub fn register(lua: &Lua, runtime: &Table) -> mlua::Result<()> {
    let fields: [(&str, Value); 3] = [
        ("__index", runtime.raw_get("methods")?),
        ("__call", runtime.raw_get("call")?),
        ("__close", runtime.raw_get::<Table>("methods")?.raw_get("close")?),
    ];
    lua.register_userdata_type::<Connection>(move |registry: &mut UserDataRegistry<Connection>| {
        for (name, value) in fields {
            registry.add_meta_field(name, value);
        }
        registry.add_meta_method(MetaMethod::ToString, |_, it, ()| Ok(it.describe()));
    })?;
    // mlua makes the metatable with the first one, and would not do so again if a hook raised in the middle.
    lua.create_any_userdata(Connection::new(connection::Connection::closed())).map(drop)
}

/// A connection that was closed, see `net::remains`.
pub struct Remains(pub remains::Remains);

/// What scripts know a type as.
pub trait Named {
    const NAME: &'static str;
}

impl Named for Connection {
    const NAME: &'static str = "Connection";
}

/// What comes before the colon: the right thing, or a mistake.
pub type Receiver<T = Connection> = Either<UserDataRefMut<T>, Value>;

pub fn receiver<T: Named + 'static>(receiver: Receiver<T>) -> Result<UserDataRefMut<T>, Failure> {
    match receiver {
        Either::Left(it) => Ok(it),
        Either::Right(Value::UserData(other)) if other.is::<T>() => {
            // Lua collects garbage in the middle of a step; what a finalizer then calls comes too early.
            let message = "it is in use by what this finalizer interrupts";
            Err(Error::new(Kind::Busy, message).into())
        }
        Either::Right(other) => Err(Misuse::receiver(T::NAME, &other).into()),
    }
}

/// The arguments of a read, after the table of this call's options has been taken off their end.
pub struct Call<'a> {
    pub lua: &'a Lua,
    values: [Value; 3],
    /// `{ timeout = s }` of this call.
    pub timeout: Option<Option<Duration>>,
}

impl<'a> Call<'a> {
    /// `arity`: what comes behind so many arguments has to be the table of options.
    pub fn new(lua: &'a Lua, mut values: [Value; 3], arity: usize) -> Result<Self, Misuse> {
        let mut timeout = None;
        if let Some(last) = values.iter_mut().rfind(|value| !value.is_nil())
            && let Value::Table(options) = last
        {
            each_option(options, &["timeout"], |name, value| {
                timeout = Some(Place::Option(name).seconds(lua, value)?);
                Ok(())
            })?;
            *last = Value::Nil;
        }
        if let Some(extra) = values[arity..].iter().position(|value| !value.is_nil()) {
            let position = arity + extra;
            return Err(Place::Argument(position + 1).expected("table (options)", &values[position]));
        }
        Ok(Self { lua, values, timeout })
    }

    /// The argument at `position`, counted from 1.
    pub fn argument(&self, position: usize) -> (Place<'static>, &Value) {
        (Place::Argument(position), &self.values[position - 1])
    }

    pub fn size(&self, position: usize, least: usize) -> Result<usize, Misuse> {
        let (place, value) = self.argument(position);
        place.size(self.lua, value, least)
    }

    /// `None` if there is none; infinity is no limit.
    pub fn optional_limit(&self, position: usize, least: usize) -> Result<Option<usize>, Misuse> {
        match self.argument(position) {
            (_, Value::Nil) => Ok(None),
            (place, value) => place.limit(self.lua, value, least).map(Some),
        }
    }
}

/// Registers a step that reads. `op` names the operation in its errors; it has at most `arity` arguments before its
/// options. While it waits, `more` says whether the time of the operation begins anew, because bytes arrived.
pub fn reading<R: IntoLua + 'static>(
    lua: &Lua,
    steps: &Table,
    name: &str,
    op: &'static str,
    arity: usize,
    step: impl Fn(&mut connection::Connection, &Call<'_>, &mut bool) -> Result<Step<R>, Failure> + 'static,
) -> mlua::Result<()> {
    let function = reply::function(lua, move |lua, (it, a, b, c): (Receiver, Value, Value, Value)| {
        let (mut it, call) = match receiver(it).and_then(|it| Ok((it, Call::new(lua, [a, b, c], arity)?))) {
            Ok(both) => both,
            Err(failure) => return reply::failed(lua, failure, op, None),
        };
        let mut renews = false;
        loop {
            return match step(&mut it.net, &call, &mut renews) {
                Ok(Step::Ready(value)) => Ok(reply::done(value)),
                Ok(Step::Wait(interest)) => {
                    let limit = call.timeout.unwrap_or(it.net.reading.timeout);
                    let expiry = it.net.reading.expiry(limit);
                    // Who has no time to wait is told what the system knows, not what was known before.
                    if it.net.took_word() && expiry.passed_by_now() {
                        continue;
                    }
                    it.net.rest();
                    if interest == Interest::Read && expiry == Deadline::NEVER {
                        return Ok(reply::waits());
                    }
                    Ok(reply::waiting(lua, interest, expiry, Value::Boolean(renews)))
                }
                Err(failure) => reply::failed_on(lua, failure, op, &it),
            };
        }
    })?;
    steps.raw_set(name, function)
}

/// Registers a step that never waits and has no arguments but its receiver.
pub fn query<T: Named + 'static, R: IntoLua + 'static>(
    lua: &Lua,
    steps: &Table,
    name: &'static str,
    step: impl Fn(&mut T) -> R + 'static,
) -> mlua::Result<()> {
    let function = reply::function(lua, move |lua, it: Receiver<T>| match receiver(it) {
        Ok(mut it) => Ok(reply::done(step(&mut it))),
        Err(failure) => reply::failed(lua, failure, name, None),
    })?;
    steps.raw_set(name, function)
}

/// Registers a step that never waits.
pub fn instant<R: IntoLua + 'static>(
    lua: &Lua,
    steps: &Table,
    name: &'static str,
    step: impl Fn(&Lua, &mut Connection, [Value; 3]) -> Result<R, Failure> + 'static,
) -> mlua::Result<()> {
    let function = reply::function(lua, move |lua, (it, a, b, c): (Receiver, Value, Value, Value)| {
        let mut it = match receiver(it) {
            Ok(it) => it,
            Err(failure) => return reply::failed::<R>(lua, failure, name, None),
        };
        let result = step(lua, &mut it, [a, b, c]);
        reply::settled_on(lua, result, name, &it)
    })?;
    steps.raw_set(name, function)
}
