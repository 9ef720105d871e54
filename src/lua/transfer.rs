//! Files and pipes for `send_file` and `tcp.copy`: what the embedded Lua cannot do itself.
#![allow(unsafe_code, reason = "Lua tells nobody the descriptor of a file of its own")]

use std::ffi::c_int;
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use mlua::AnyUserData;
use mlua::Integer;
use mlua::Lua;
use mlua::Table;
use mlua::UserDataRef;
use mlua::Value;
use mlua::ffi;

use crate::error::Error;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::each_option;
use crate::lua::connection::Receiver;
use crate::lua::connection::reading;
use crate::lua::connection::receiver;
use crate::lua::policy;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Reply;
use crate::lua::writing;
use crate::net::connection::Body;
use crate::net::connection::Connection;
use crate::net::connection::Cut;
use crate::net::connection::Written;
use crate::net::transfer;
use crate::net::transfer::Part;
use crate::sys::file;

struct Pump(Rc<transfer::Pump>);

/// Adds to `core`: `send_file` and `send_piped`, first steps of writes; `pipe_in`, a step that reads; `pump`,
/// `can_be_piped`, `file_number`, and `copy_options`.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.raw_set("send_file", lua.create_function(send_file)?)?;
    core.raw_set("send_piped", lua.create_function(send_piped)?)?;
    reading(lua, core, "pipe_in", "copy", 2, |it, call, _| {
        let (_, pump) = call.argument(1);
        let Some(pump) = pump.as_userdata() else { return Err(Error::closed_here().into()) };
        let count = call.size(2, 1)?;
        Ok(it.pipe_in(&pump.borrow::<Pump>()?.0, count)?)
    })?;
    // Nil where the kernel does not move bytes, or has no descriptors left for it.
    let pump = |lua: &Lua, ()| match transfer::Pump::new() {
        Ok(Some(pump)) => lua.create_any_userdata(Pump(pump)).map(Some),
        _ => Ok(None),
    };
    core.raw_set("pump", lua.create_function(pump)?)?;
    let can = |_: &Lua, it: UserDataRef<super::connection::Connection>| Ok(it.net.can_be_piped());
    core.raw_set("can_be_piped", lua.create_function(can)?)?;
    let is_connection =
        |_: &Lua, it: Value| Ok(it.as_userdata().is_some_and(|it| it.is::<super::connection::Connection>()));
    core.raw_set("is_connection", lua.create_function(is_connection)?)?;
    // SAFETY: it pushes one value, for which a C function always has room, and raises nothing.
    core.raw_set("file_number", unsafe { lua.create_c_function(file_number)? })?;
    core.raw_set("copy_options", lua.create_function(copy_options)?)
}

/// Step: the first of sending part of a file, by its path, or by the `number` of a Lua file that stands at `position`.
/// nil: that is no regular file.
fn send_file(
    lua: &Lua,
    (it, path, first, count, number, position): (Receiver, Value, Value, Value, Option<i32>, Option<u64>),
) -> mlua::Result<Reply<Option<usize>>> {
    const OP: &str = "send_file";
    let mut it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let part = range(lua, position, &first, &count).and_then(|(offset, count)| {
        let file = match number {
            Some(number) => of_number(number)?,
            None => Some(opened(lua, &path)?),
        };
        let part = file.map(|file| Part::of(file, offset, count)).transpose();
        Ok(part.map_err(|error| Error::from_file("the file cannot be read", &error))?)
    });
    match part {
        Ok(Some(part)) => {
            let written = it.net.write_body(Body::Part(Box::new(part)), Cut::EndsOutput);
            written_reply(lua, &it.net, written, OP)
        }
        Ok(None) => Ok(reply::done(None)),
        Err(failure) => reply::failed(lua, failure.of_write(), OP, Some(it.net.peer())),
    }
}

/// Where the bytes begin, and how many they are.
fn range(
    lua: &Lua,
    position: Option<u64>,
    first: &Value,
    count: &Value,
) -> Result<(u64, Option<u64>), Failure> {
    let offset = match first {
        Value::Nil => position.unwrap_or_default(),
        first => Place::Argument(2).size(lua, first, 1)? as u64 - 1,
    };
    let count = match count {
        Value::Nil => None,
        count => match Place::Argument(3).limit(lua, count, 0)? {
            usize::MAX => None,
            count => Some(count as u64),
        },
    };
    Ok((offset, count))
}

/// Another descriptor of a Lua file's open file. `None` for what is no regular file.
fn of_number(number: i32) -> Result<Option<File>, Failure> {
    // SAFETY: it is that of the Lua file that the caller holds, which stays open during this step.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(file::of_descriptor(fd).map_err(|error| Error::from_file("the file cannot be read", &error))?)
}

fn opened(lua: &Lua, path: &Value) -> Result<File, Failure> {
    let place = Place::Argument(1);
    let Value::String(bytes) = path else { return Err(place.expected("path or open file", path).into()) };
    let path = file::path(&bytes.as_bytes());
    policy::of(lua).check_files()?;
    let open = file::open(&path);
    Ok(open.map_err(|error| Error::from_file(&format!("{} cannot be opened", path.display()), &error))?)
}

/// Step: the first of sending what is in a pipe.
fn send_piped(
    lua: &Lua,
    (it, pump, count): (Receiver, AnyUserData, usize),
) -> mlua::Result<Reply<Option<usize>>> {
    const OP: &str = "copy";
    let mut it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let body = Body::Piped(Rc::clone(&pump.borrow::<Pump>()?.0), count);
    let written = it.net.write_body(body, Cut::EndsOutput);
    written_reply(lua, &it.net, written, OP)
}

fn written_reply(
    lua: &Lua,
    it: &Connection,
    written: Result<Written, Error>,
    op: &str,
) -> mlua::Result<Reply<Option<usize>>> {
    match written {
        Ok(Written::Whole(sent)) => Ok(reply::done(Some(sent))),
        Ok(Written::Queued(ticket, interest)) => {
            Ok(reply::waiting(lua, interest, writing::expiry(it), Value::Integer(ticket as Integer)))
        }
        Err(error) => reply::failed(lua, error.of_write().into(), op, Some(it.peer())),
    }
}

/// The number of a Lua file: nil for anything else, -1 if it is closed.
unsafe extern "C-unwind" fn file_number(state: *mut ffi::lua_State) -> c_int {
    /// How the files of every Lua begin (luaL_Stream; IOFileUD in LuaJIT); from 5.2 on a closed one has no function
    /// that would close it.
    #[repr(C)]
    struct Stream {
        file: *mut c_void,
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        close: Option<ffi::lua_CFunction>,
    }
    // SAFETY: the metatable says that it is a file of Lua's, whose memory is that of a Stream.
    unsafe {
        let stream = ffi::lua_touserdata(state, 1).cast::<Stream>();
        ffi::lua_getfield(state, ffi::LUA_REGISTRYINDEX, c"FILE*".as_ptr());
        let is_file = !stream.is_null()
            && ffi::lua_getmetatable(state, 1) != 0
            && ffi::lua_istable(state, -1) != 0
            && ffi::lua_rawequal(state, -1, -2) != 0;
        if !is_file {
            ffi::lua_pushnil(state);
            return 1;
        }
        let is_open = !(*stream).file.is_null();
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        let is_open = is_open && (*stream).close.is_some();
        let number = if is_open { file::number((*stream).file) } else { -1 };
        ffi::lua_pushinteger(state, number.into());
    }
    1
}

/// Step: checks the options of `copy`; gives the limit, or nothing.
fn copy_options(lua: &Lua, options: Value) -> mlua::Result<Reply<Option<f64>>> {
    let parse = || -> Result<Option<f64>, Misuse> {
        let mut limit = None;
        match &options {
            Value::Nil => {}
            Value::Table(table) => each_option(table, &["limit", "progress"], |name, value| {
                let place = Place::Option(name);
                match name {
                    "limit" => {
                        limit = match place.limit(lua, value, 0)? {
                            usize::MAX => None,
                            most => Some(most as f64),
                        };
                    }
                    _ if value.is_function() => {}
                    _ => return Err(place.expected("function", value)),
                }
                Ok(())
            })?,
            other => return Err(Place::Argument(3).expected("table (options)", other)),
        }
        Ok(limit)
    };
    reply::settled(lua, parse().map_err(Failure::Misuse), "copy", || None)
}
