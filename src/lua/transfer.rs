//! Files and pipes for `send_file` and `tcp.copy`: what the embedded Lua cannot do itself.
#![allow(unsafe_code, reason = "Lua tells nobody the descriptor of a file of its own")]

use std::cell::RefCell;
use std::ffi::c_int;
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use mlua::AnyUserData;
use mlua::Integer;
use mlua::Lua;
use mlua::LuaString;
use mlua::Table;
use mlua::UserDataRef;
use mlua::UserDataRefMut;
use mlua::Value;
use mlua::ffi;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::each_option;
use crate::lua::connection::Connection;
use crate::lua::connection::Receiver;
use crate::lua::connection::reading;
use crate::lua::connection::receiver;
use crate::lua::failure;
use crate::lua::policy;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Reply;
use crate::lua::writing;
use crate::net::connection::Body;
use crate::net::connection::Cut;
use crate::net::connection::Written;
use crate::net::transfer;
use crate::net::transfer::Part;
use crate::step::Step;
use crate::sys::file;
use crate::sys::signal;

struct Pipe(Rc<RefCell<transfer::Pipe>>);

/// A Lua file that may have to be waited for.
pub struct SlowFile {
    pub net: transfer::SlowFile,
}

/// Adds to `core`: `send_file`, `copy_file` and `send_piped`, first steps of writes; `file_failure`; `pipe_in`, a step that reads; `take_back` and
/// `put_back`; `can_be_piped`, `is_connection`, `file_number`, `block_pipe_signal`, and `copy_options`.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.raw_set("send_file", lua.create_function(send_file)?)?;
    core.raw_set("send_piped", lua.create_function(send_piped)?)?;
    core.raw_set("copy_file", lua.create_function(copy_file)?)?;
    core.raw_set("file_failure", lua.create_function(file_failure)?)?;
    // Nil for what is no regular file.
    let size = |_: &Lua, number: i32| {
        let file = of_number(number).ok().flatten();
        Ok(file.and_then(|file| file.metadata().ok()).map(|it| it.len()))
    };
    core.raw_set("file_size", lua.create_function(size)?)?;
    // A pipe and how much is in it; false: this has to go another way.
    reading(lua, core, "pipe_in", "copy", 1, |it, call, _| {
        let count = call.size(1, 1)?;
        Ok(match it.pipe_in(count)? {
            Step::Ready(Some(pipe)) => {
                let pipe = call.lua.create_any_userdata(Pipe(Rc::new(RefCell::new(pipe))))?;
                Step::Ready(Value::UserData(pipe))
            }
            Step::Ready(None) => Step::Ready(Value::Boolean(false)),
            Step::Wait(interest) => Step::Wait(interest),
        })
    })?;
    let left = |_: &Lua, it: UserDataRef<Pipe>| Ok(it.0.borrow().left());
    core.raw_set("left_in_pipe", lua.create_function(left)?)?;
    // What is left in a pipe.
    let take_back = |lua: &Lua, it: UserDataRef<Pipe>| {
        let bytes = it.0.borrow_mut().take_back().unwrap_or_default();
        lua.create_string(bytes)
    };
    core.raw_set("take_back", lua.create_function(take_back)?)?;
    let put_back = |_: &Lua, (mut it, bytes): (UserDataRefMut<Connection>, LuaString)| {
        Ok(it.net.put_back(&bytes.as_bytes()).is_ok())
    };
    core.raw_set("put_back", lua.create_function(put_back)?)?;
    let can = |_: &Lua, it: UserDataRef<Connection>| Ok(it.net.can_be_piped());
    core.raw_set("can_be_piped", lua.create_function(can)?)?;
    let is_connection = |_: &Lua, it: Value| Ok(it.as_userdata().is_some_and(|it| it.is::<Connection>()));
    core.raw_set("is_connection", lua.create_function(is_connection)?)?;
    // Around what Lua's files write: from the first call to the next one.
    let blocked = RefCell::new(None);
    let block = move |_: &Lua, on: bool| {
        *blocked.borrow_mut() = if on { signal::block().ok() } else { None };
        Ok(())
    };
    core.raw_set("block_pipe_signal", lua.create_function(block)?)?;
    // SAFETY: it pushes one value, for which a C function always has room, and raises nothing.
    core.raw_set("file_number", unsafe { lua.create_c_function(file_number)? })?;
    // SAFETY: as above.
    core.raw_set("file_buffered", unsafe { lua.create_c_function(file_buffered)? })?;
    let slow = |lua: &Lua, number: i32| {
        // SAFETY: as in `of_number`.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        transfer::SlowFile::of(fd).ok().map(|net| lua.create_any_userdata(SlowFile { net })).transpose()
    };
    core.raw_set("slow_file", lua.create_function(slow)?)?;
    // At once: who is at the other end of a pipe waits for its end.
    let close = |_: &Lua, it: AnyUserData| it.take::<SlowFile>().map(drop);
    core.raw_set("close_slow_file", lua.create_function(close)?)?;
    core.raw_set("read_file", lua.create_function(read_file)?)?;
    core.raw_set("write_file", lua.create_function(write_file)?)?;
    core.raw_set("copy_options", lua.create_function(copy_options)?)
}

/// Step: between 1 and `most` bytes of a file that may have to be waited for; "" at the end.
fn read_file(lua: &Lua, (it, most): (UserDataRef<SlowFile>, usize)) -> mlua::Result<Reply<LuaString>> {
    let mut room = vec![0; most];
    match it.net.read(&mut room) {
        Ok(Step::Ready(count)) => Ok(reply::done(lua.create_string(&room[..count])?)),
        Ok(Step::Wait(interest)) => Ok(reply::waiting(lua, interest, Deadline::NEVER, Value::Nil)),
        Err(error) => reply::failed(lua, error.into(), "copy", None),
    }
}

/// Step: writes the string from the byte behind `done` on: how many bytes were taken.
fn write_file(
    lua: &Lua,
    (it, data, done): (UserDataRef<SlowFile>, LuaString, usize),
) -> mlua::Result<Reply<usize>> {
    match it.net.write(&data.as_bytes()[done..]) {
        Ok(Step::Ready(count)) => Ok(reply::done(count)),
        Ok(Step::Wait(interest)) => Ok(reply::waiting(lua, interest, Deadline::NEVER, Value::Nil)),
        Err(error) => reply::failed(lua, error.into(), "copy", None),
    }
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
        Ok(file.map(|file| Part::of(file, offset, count)))
    });
    match part {
        Ok(Some(part)) => {
            let written = it.net.write_body(Body::Part(Box::new(part)), Cut::EndsOutput);
            written_reply(lua, &it, written, OP)
        }
        Ok(None) => Ok(reply::done(None)),
        Err(failure) => reply::failed_on(lua, failure.of_write(), OP, &it),
    }
}

/// Step: the first of copying part of an open file, which may be continued where it was given up.
fn copy_file(
    lua: &Lua,
    (it, number, position, count): (Receiver, i32, u64, u64),
) -> mlua::Result<Reply<Option<usize>>> {
    const OP: &str = "copy";
    let mut it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    match of_number(number) {
        Ok(Some(file)) => {
            let part = Part::of(file, position, Some(count));
            let written = it.net.write_body(Body::Part(Box::new(part)), Cut::MayContinue);
            written_reply(lua, &it, written, OP)
        }
        Ok(None) => Ok(reply::done(None)),
        Err(failure) => reply::failed_on(lua, failure.of_write(), OP, &it),
    }
}

/// The error of what Lua's own functions have said of a file.
fn file_failure(lua: &Lua, (op, message, errno): (String, String, Option<i32>)) -> mlua::Result<Table> {
    let error = match errno {
        Some(errno) => Error::from_listen(&io::Error::from_raw_os_error(errno)),
        None => Error::new(Kind::System, message),
    };
    failure::object(lua, &error, &op, None)
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

/// Step: the first of sending what is in a pipe. One that is given up may be continued: the rest goes back to where it
/// came from.
fn send_piped(lua: &Lua, (it, pipe): (Receiver, UserDataRef<Pipe>)) -> mlua::Result<Reply<Option<usize>>> {
    const OP: &str = "copy";
    let mut it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let written = it.net.write_body(Body::Piped(Rc::clone(&pipe.0)), Cut::MayContinue);
    written_reply(lua, &it, written, OP)
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
            Ok(reply::waiting(lua, interest, writing::expiry(&it.net), Value::Integer(ticket as Integer)))
        }
        Err(error) => reply::failed_on(lua, error.of_write().into(), op, it),
    }
}

/// How the files of every Lua begin (luaL_Stream; IOFileUD in LuaJIT); from 5.2 on a closed one has no function that
/// would close it.
#[repr(C)]
struct Stream {
    file: *mut c_void,
    #[cfg(not(any(feature = "lua51", feature = "luajit")))]
    close: Option<ffi::lua_CFunction>,
}

/// The C `FILE` of the first argument: `None` of what is no Lua file, null of a closed one.
///
/// # Safety
/// `state` is the state that is running, with free slots.
unsafe fn file_of(state: *mut ffi::lua_State) -> Option<*mut c_void> {
    // SAFETY: the metatable says that it is a file of Lua's, whose memory is that of a Stream.
    unsafe {
        let stream = ffi::lua_touserdata(state, 1).cast::<Stream>();
        ffi::lua_getfield(state, ffi::LUA_REGISTRYINDEX, c"FILE*".as_ptr());
        let is_file = !stream.is_null()
            && ffi::lua_getmetatable(state, 1) != 0
            && ffi::lua_istable(state, -1) != 0
            && ffi::lua_rawequal(state, -1, -2) != 0;
        let is_open = is_file;
        #[cfg(not(any(feature = "lua51", feature = "luajit")))]
        let is_open = is_open && (*stream).close.is_some();
        is_file.then(|| if is_open { (*stream).file } else { std::ptr::null_mut() })
    }
}

/// The number of a Lua file: nil for anything else, -1 if it is closed.
unsafe extern "C-unwind" fn file_number(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua gives a C function 20 slots; the file is open unless it is null.
    unsafe {
        match file_of(state) {
            None => ffi::lua_pushnil(state),
            Some(file) if file.is_null() => ffi::lua_pushinteger(state, -1),
            Some(file) => ffi::lua_pushinteger(state, file::number(file).into()),
        }
    }
    1
}

/// How many bytes an open Lua file has read and not given yet: nil where that is not known.
unsafe extern "C-unwind" fn file_buffered(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: as above.
    unsafe {
        match file_of(state).filter(|file| !file.is_null()).and_then(|file| file::buffered(file)) {
            Some(count) => ffi::lua_pushinteger(state, count as ffi::lua_Integer),
            None => ffi::lua_pushnil(state),
        }
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
