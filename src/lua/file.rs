//! Lua's own files, as `send_file` and `tcp.copy` need them: what the embedded Lua cannot learn or do itself.
//!
//! The unsafe code cannot stand elsewhere: a file is a userdata of the interpreter's own, of which neither Lua nor mlua
//! tells more than its address, and the floor of the system does not know Lua.
#![allow(unsafe_code, reason = "Lua tells nobody the descriptor of a file of its own")]

use std::cell::RefCell;
use std::ffi::c_int;
use std::ffi::c_void;
use std::io;

use mlua::AnyUserData;
use mlua::Lua;
use mlua::LuaString;
use mlua::Table;
use mlua::UserDataRef;
use mlua::Value;
use mlua::ffi;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::lua::failure;
use crate::lua::reply;
use crate::lua::reply::Reply;
use crate::net::transfer;
use crate::step::Step;
use crate::sys::file;
use crate::sys::signal;

/// A Lua file that may have to be waited for.
pub struct SlowFile {
    pub net: transfer::SlowFile,
}

/// Adds to `core`: `file_number`, `file_buffered`, `file_position` and `file_failure`; `slow_file`, `read_file`,
/// `write_file` and `close_slow_file`; `is_regular`, and `block_pipe_signal`.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    // SAFETY: it pushes one value, for which a C function always has room, and raises nothing.
    core.raw_set("file_number", unsafe { lua.create_c_function(file_number)? })?;
    // SAFETY: as above.
    core.raw_set("file_buffered", unsafe { lua.create_c_function(file_buffered)? })?;
    // Where it stands in the kernel's eyes: nil of what has no positions.
    let position = |_: &Lua, number: i32| Ok(file::position(number).ok());
    core.raw_set("file_position", lua.create_function(position)?)?;
    core.raw_set("file_failure", reply::maker(lua, file_failure)?)?;
    let is_regular = |_: &Lua, number: i32| Ok(file::is_regular(number).unwrap_or(true));
    core.raw_set("is_regular", lua.create_function(is_regular)?)?;
    core.raw_set("slow_file", reply::function(lua, slow_file)?)?;
    core.raw_set("read_file", reply::function(lua, read_file)?)?;
    core.raw_set("write_file", reply::function(lua, write_file)?)?;
    // At once: who is at the other end of a pipe waits for its end.
    let close = |_: &Lua, it: AnyUserData| it.take::<SlowFile>().map(drop);
    core.raw_set("close_slow_file", lua.create_function(close)?)?;
    // Around what Lua's files write; a finalizer may have one inside another.
    let blocked = RefCell::new(Vec::new());
    let block = move |_: &Lua, on: bool| {
        let mut blocked = blocked.borrow_mut();
        if on {
            blocked.push(signal::block().ok());
        } else {
            blocked.pop();
        }
        Ok(())
    };
    core.raw_set("block_pipe_signal", lua.create_function(block)?)
}

/// Step: what reads and writes a file that may have to be waited for.
fn slow_file(lua: &Lua, number: i32) -> mlua::Result<Reply<AnyUserData>> {
    match file::of_number(number) {
        Ok(file) => {
            let net = transfer::SlowFile::of(file);
            Ok(reply::done(lua.create_any_userdata(SlowFile { net })?))
        }
        Err(error) => {
            reply::failed(lua, Error::from_file("the file cannot be used", &error).into(), "copy", None)
        }
    }
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

/// The error of what Lua's own functions have said of a file.
fn file_failure(lua: &Lua, (op, message, errno): (String, String, Option<i32>)) -> mlua::Result<Table> {
    let error = match errno {
        Some(errno) => Error::from_system(&io::Error::from_raw_os_error(errno)),
        None => Error::new(Kind::System, message),
    };
    failure::object(lua, &error, &op, None)
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
