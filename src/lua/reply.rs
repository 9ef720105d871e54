//! What a step answers to the embedded Lua: its result, or `PENDING`. That keeps what succeeds at once cheap.
//! After `PENDING`, `core.outcome()` tells, once:
//!
//! | | signal | detail | more |
//! |---|---|---|---|
//! | has to wait | number: 0 to read, 1 to write, 2 to let others pass, 3 for its turn | when to give up, on `tcp.now`'s clock, or nil | see the step |
//! | failed | table: the error object | | |
//! | misuse | string: the text before the function's name | the text after it | |
//! | interrupted | string: what a hook has raised | nil | |

use std::cell::RefCell;
use std::ffi::c_void;

use mlua::Either;
use mlua::FromLuaMulti;
use mlua::Function;
use mlua::IntoLua;
use mlua::LightUserData;
use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::lua::args::Misuse;
use crate::lua::connection::Connection;
use crate::lua::failure;
use crate::lua::wait;
use crate::step::Interest;

pub type Reply<R> = Either<R, LightUserData>;

type Outcome = (Value, Value, Value);

/// The addresses of these stand for "not done", and for the commonest outcome of that, in every state alike.
static PENDING: u8 = 0;
static WAITS: u8 = 1;

/// What the steps of this state that were not done have to tell, the last one on top. A debug hook that uses the
/// module may run between a step and its `outcome`: what it adds it also takes. If it raises instead, the
/// interrupted step's outcome stays, below all that follow.
#[derive(Default)]
struct Pending(RefCell<Vec<Outcome>>);

/// Outcomes that stayed are forgotten beyond this many.
const KEPT: usize = 16;

/// Adds to `core`: `PENDING` and `outcome`.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    lua.set_app_data(Pending::default());
    core.raw_set("PENDING", mark(&PENDING))?;
    core.raw_set("WAITS", mark(&WAITS))?;
    core.raw_set("outcome", lua.create_function(|lua, ()| Ok(take(lua)))?)
}

fn mark(of: &'static u8) -> LightUserData {
    LightUserData((&raw const *of).cast::<c_void>().cast_mut())
}

fn take(lua: &Lua) -> Outcome {
    let outcome = lua.app_data_ref::<Pending>().and_then(|pending| pending.0.borrow_mut().pop());
    outcome.unwrap_or((Value::Nil, Value::Nil, Value::Nil))
}

fn pending<R>(lua: &Lua, outcome: Outcome) -> Reply<R> {
    if let Some(pending) = lua.app_data_ref::<Pending>() {
        let mut outcomes = pending.0.borrow_mut();
        if outcomes.len() == KEPT {
            outcomes.remove(0);
        }
        outcomes.push(outcome);
    }
    Either::Right(mark(&PENDING))
}

/// The result of a step that has none to give: nil.
pub type Nothing = Option<bool>;

/// Why a step has no result.
pub enum Failure {
    World(Error),
    Misuse(Misuse),
    /// Lua itself failed: memory, or the stack.
    Lua(mlua::Error),
}

impl Failure {
    /// Of a write: how far it got is told, also if it did not begin.
    pub fn of_write(self) -> Self {
        match self {
            Failure::World(error) => Failure::World(error.of_write()),
            other => other,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::World(error)
    }
}

impl From<Misuse> for Failure {
    fn from(misuse: Misuse) -> Self {
        Failure::Misuse(misuse)
    }
}

impl From<mlua::Error> for Failure {
    fn from(error: mlua::Error) -> Self {
        Failure::Lua(error)
    }
}

pub fn done<R>(value: R) -> Reply<R> {
    Either::Left(value)
}

/// It has to wait until there is something to read, without a limit and without more to tell: no outcome is kept.
pub fn waits<R>() -> Reply<R> {
    Either::Right(mark(&WAITS))
}

pub fn waiting<R>(lua: &Lua, interest: Interest, expiry: Deadline, more: Value) -> Reply<R> {
    let code = wait::code(interest);
    let expiry = wait::to_seconds(expiry).map_or(Value::Nil, Value::Number);
    pending(lua, (Value::Integer(code), expiry, more))
}

/// `op` and `peer` are those of the error object, should it come to one.
pub fn failed<R>(lua: &Lua, failure: Failure, op: &str, peer: Option<String>) -> mlua::Result<Reply<R>> {
    failed_with(lua, failure, |error| failure::object(lua, error, op, peer))
}

/// The same for an operation on a connection.
pub fn failed_on<R>(lua: &Lua, failure: Failure, op: &str, it: &Connection) -> mlua::Result<Reply<R>> {
    failed_with(lua, failure, |error| failure::object_on(lua, error, op, it))
}

fn failed_with<R>(
    lua: &Lua,
    failure: Failure,
    object: impl FnOnce(&Error) -> mlua::Result<Table>,
) -> mlua::Result<Reply<R>> {
    let outcome = match failure {
        Failure::World(error) => (Value::Table(object(&error)?), Value::Nil, Value::Nil),
        Failure::Misuse(Misuse { before, after }) => {
            let before = Value::String(lua.create_string(before)?);
            (before, Value::String(lua.create_string(after)?), Value::Nil)
        }
        Failure::Lua(error) => return interrupted(lua, error),
    };
    Ok(pending(lua, outcome))
}

/// A function for the embedded Lua that is a step.
pub fn function<A: FromLuaMulti, R: IntoLua>(
    lua: &Lua,
    step: impl Fn(&Lua, A) -> mlua::Result<Reply<R>> + 'static,
) -> mlua::Result<Function> {
    let call = move |lua: &Lua, arguments| match step(lua, arguments)? {
        Either::Left(value) => value.into_lua(lua).map(Either::Left),
        Either::Right(mark) => Ok(Either::Right(mark)),
    };
    lua.create_function(move |lua, arguments| call(lua, arguments).or_else(|error| interrupted(lua, error)))
}

/// The same for what neither waits nor fails, but allocates: errors.lua takes the reply apart.
pub fn maker<A: FromLuaMulti, R: IntoLua>(
    lua: &Lua,
    make: impl Fn(&Lua, A) -> mlua::Result<R> + 'static,
) -> mlua::Result<Function> {
    function(lua, move |lua, arguments| make(lua, arguments).map(done))
}

/// The reply where Lua itself has failed: a hook, Ctrl-C's above all, strikes in what mlua calls, too.
pub fn interrupted<R>(lua: &Lua, error: mlua::Error) -> mlua::Result<Reply<R>> {
    match raised(&error) {
        Some(text) => Ok(pending(lua, (Value::String(lua.create_string(text)?), Value::Nil, Value::Nil))),
        None => Err(error),
    }
}

/// The string that was raised in a call of mlua's, which has put a traceback behind it.
pub fn raised(error: &mlua::Error) -> Option<&str> {
    match error {
        mlua::Error::RuntimeError(text) => text.split("\nstack traceback:").next(),
        mlua::Error::CallbackError { cause, .. } => raised(cause),
        _ => None,
    }
}

/// The reply of a step that never waits.
pub fn settled<R>(
    lua: &Lua,
    result: Result<R, Failure>,
    op: &str,
    peer: impl FnOnce() -> Option<String>,
) -> mlua::Result<Reply<R>> {
    match result {
        Ok(value) => Ok(done(value)),
        Err(failure) => failed(lua, failure, op, peer()),
    }
}

/// The same on a connection.
pub fn settled_on<R>(
    lua: &Lua,
    result: Result<R, Failure>,
    op: &str,
    it: &Connection,
) -> mlua::Result<Reply<R>> {
    match result {
        Ok(value) => Ok(done(value)),
        Err(failure) => failed_on(lua, failure, op, it),
    }
}
