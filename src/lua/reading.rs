//! The reading methods and what the iterators call: arguments in, steps out.

use mlua::AnyUserData;
use mlua::Lua;
use mlua::LuaString;
use mlua::Table;
use mlua::UserDataRef;
use mlua::Value;

use crate::error::Error;
use crate::error::Kind;
use crate::json;
use crate::json::Marks;
use crate::lua::args::Misuse;
use crate::lua::connection;
use crate::lua::connection::Call;
use crate::lua::connection::reading;
use crate::lua::failure;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Reply;
use crate::net::connection::Connection;
use crate::step::Step;

/// What `recv` takes at most, unless told otherwise.
const RECV: usize = 8192;

type Outcome<R> = Result<Step<R>, Failure>;

/// Adds to `core`: `reading`, the methods by name, and `iterators`, what each of them calls.
pub fn register(lua: &Lua, core: &Table, marks: &Marks) -> mlua::Result<()> {
    let methods = lua.create_table()?;
    reading(lua, &methods, "read", "read", 1, |it, call, _| {
        let count = call.size(1, 0)?;
        flat(it.read(count, |bytes| string(call, bytes))?)
    })?;
    reading(lua, &methods, "read_bytes", "read_bytes", 1, |it, call, _| {
        let count = call.size(1, 0)?;
        flat(it.read(count, |bytes| call.lua.create_sequence_from(bytes.iter().copied()))?)
    })?;
    reading(lua, &methods, "recv", "recv", 1, |it, call, _| recv(it, call))?;
    reading(lua, &methods, "read_line", "read_line", 1, |it, call, _| read_line(it, call, false))?;
    reading(lua, &methods, "read_until", "read_until", 2, |it, call, _| {
        let (place, delimiter) = call.argument(1);
        let delimiter = place.string(call.lua, delimiter)?.as_bytes();
        if delimiter.is_empty() {
            return Err(place.misuse("delimiter is empty").into());
        }
        let max = call.optional_limit(2, 0)?;
        flat(it.read_until(&delimiter, max, |bytes| string(call, bytes))?)
    })?;
    for name in ["read_str", "read_all"] {
        reading(lua, &methods, name, name, 1, |it, call, moved| {
            let max = call.optional_limit(1, 0)?;
            flat(it.read_str(max, moved, |bytes| string(call, bytes))?)
        })?;
    }
    let own = marks.clone();
    reading(lua, &methods, "read_json", "read_json", 0, move |it, call, _| read_json(it, call, &own, false))?;
    reading(lua, &methods, "read_packet", "read_packet", 0, |it, call, _| read_packet(it, call, false))?;
    let own = marks.clone();
    reading(lua, &methods, "read_json_packet", "read_json_packet", 0, move |it, call, _| {
        read_json_packet(it, call, &own, false)
    })?;
    reading(lua, &methods, "peek", "peek", 1, |it, call, _| {
        let count = call.size(1, 0)?;
        flat(it.peek(count, |bytes| string(call, bytes))?)
    })?;
    core.raw_set("reading", methods)?;
    core.raw_set("busy", reply::maker(lua, busy)?)?;
    core.raw_set("stdin", reply::function(lua, stdin)?)?;
    register_iterators(lua, core, marks)
}

/// The error of a read while another is under way.
fn busy(lua: &Lua, (it, op): (UserDataRef<connection::Connection>, String)) -> mlua::Result<Table> {
    let error = Error::new(Kind::Busy, "another task is already reading from this connection");
    failure::object(lua, &error, &op, Some(it.net.peer()))
}

/// Step: standard input as a connection.
fn stdin(lua: &Lua, (): ()) -> mlua::Result<Reply<AnyUserData>> {
    match Connection::stdin() {
        Ok(net) => Ok(reply::done(lua.create_any_userdata(connection::Connection::new(net))?)),
        Err(error) => reply::failed(lua, Error::from_io(&error).into(), "stdin", None),
    }
}

fn register_iterators(lua: &Lua, core: &Table, marks: &Marks) -> mlua::Result<()> {
    let steps = lua.create_table()?;
    reading(lua, &steps, "lines", "lines", 1, |it, call, _| read_line(it, call, true))?;
    reading(lua, &steps, "chunks", "chunks", 1, |it, call, _| recv(it, call))?;
    reading(lua, &steps, "packets", "packets", 0, |it, call, _| read_packet(it, call, true))?;
    let own = marks.clone();
    reading(lua, &steps, "json_packets", "json_packets", 0, move |it, call, _| {
        read_json_packet(it, call, &own, true)
    })?;
    let own = marks.clone();
    reading(lua, &steps, "json_values", "json_values", 0, move |it, call, _| {
        read_json(it, call, &own, true)
    })?;
    core.raw_set("iterators", steps)?;

    // What an iterator's arguments are checked with when it is made.
    let checks = lua.create_table()?;
    reading(lua, &checks, "lines", "lines", 1, |_, call, _| keeps_newline(call).map(|_| ready(true))?)?;
    reading(lua, &checks, "chunks", "chunks", 1, |_, call, _| {
        call.optional_limit(1, 1).map(|_| ready(true))?
    })?;
    for name in ["packets", "json_packets", "json_values"] {
        reading(lua, &checks, name, name, 0, |_, _, _| ready(true))?;
    }
    core.raw_set("iterator_checks", checks)
}

fn ready<R>(value: R) -> Outcome<R> {
    Ok(Step::Ready(value))
}

fn recv(it: &mut Connection, call: &Call<'_>) -> Outcome<Option<LuaString>> {
    let max = call.optional_limit(1, 1)?.unwrap_or(RECV);
    flat(it.recv(max, |bytes| string(call, bytes))?)
}

fn read_line(it: &mut Connection, call: &Call<'_>, last: bool) -> Outcome<Option<LuaString>> {
    let whole = keeps_newline(call)?;
    flat(it.read_line(whole, last, |bytes| string(call, bytes))?)
}

/// `"l"` without the newline, `"L"` with it, as `io.read` has them.
fn keeps_newline(call: &Call<'_>) -> Result<bool, Misuse> {
    match call.argument(1) {
        (_, Value::Nil) => Ok(false),
        (place, format) => place.word(call.lua, format, &[("l", false), ("L", true)]),
    }
}

fn read_packet(it: &mut Connection, call: &Call<'_>, last: bool) -> Outcome<Option<LuaString>> {
    flat(it.read_packet(last, |bytes| string(call, bytes))?)
}

fn read_json_packet(
    it: &mut Connection,
    call: &Call<'_>,
    marks: &Marks,
    last: bool,
) -> Outcome<Option<Value>> {
    decoded(it.read_packet(last, |text| json::decode::decode(call.lua, marks, text))?)
}

fn read_json(it: &mut Connection, call: &Call<'_>, marks: &Marks, last: bool) -> Outcome<Option<Value>> {
    decoded(it.read_json(last, |text| json::decode::decode(call.lua, marks, text))?)
}

fn string(call: &Call<'_>, bytes: &[u8]) -> mlua::Result<LuaString> {
    call.lua.create_string(bytes)
}

fn flat<R>(step: Step<mlua::Result<R>>) -> Outcome<R> {
    match step {
        Step::Ready(value) => Ok(Step::Ready(value?)),
        Step::Wait(interest) => Ok(Step::Wait(interest)),
    }
}

fn decoded(step: Step<mlua::Result<Option<Result<Value, Error>>>>) -> Outcome<Option<Value>> {
    match flat(step)? {
        Step::Ready(value) => Ok(Step::Ready(value.transpose()?)),
        Step::Wait(interest) => Ok(Step::Wait(interest)),
    }
}
