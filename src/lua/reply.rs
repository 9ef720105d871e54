//! What a step answers to the embedded Lua.
//!
//! | | value | signal | detail | more |
//! |---|---|---|---|---|
//! | done | the result | nil | | |
//! | has to wait | nil | number: 0 to read, 1 to write | when to give up, on `tcp.now`'s clock, or nil | see the step |
//! | failed | nil | table: the error object | | |
//! | misuse | nil | string: the text before the function's name | the text after it | |

use mlua::Lua;
use mlua::Value;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::lua::args::Misuse;
use crate::lua::failure;
use crate::lua::wait;
use crate::step::Interest;

pub type Reply<R> = (Option<R>, Value, Value, Value);

/// The result of a step that has none to give: nil.
pub type Nothing = Option<bool>;

/// Why a step has no result.
pub enum Failure {
    World(Error),
    Misuse(Misuse),
    /// Lua itself failed: memory, or the stack.
    Lua(mlua::Error),
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
    (Some(value), Value::Nil, Value::Nil, Value::Nil)
}

pub fn waiting<R>(interest: Interest, expiry: Deadline, more: Value) -> Reply<R> {
    let code = match interest {
        Interest::Read => wait::READ,
        Interest::Write => wait::WRITE,
    };
    (None, Value::Integer(code), wait::to_seconds(expiry).map_or(Value::Nil, Value::Number), more)
}

/// `op` and `peer` are those of the error object, should it come to one.
pub fn failed<R>(lua: &Lua, failure: Failure, op: &str, peer: Option<String>) -> mlua::Result<Reply<R>> {
    match failure {
        Failure::World(error) => {
            let object = failure::object(lua, &error, op, peer)?;
            Ok((None, Value::Table(object), Value::Nil, Value::Nil))
        }
        Failure::Misuse(Misuse { before, after }) => {
            let before = Value::String(lua.create_string(before)?);
            Ok((None, before, Value::String(lua.create_string(after)?), Value::Nil))
        }
        Failure::Lua(error) => Err(error),
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
