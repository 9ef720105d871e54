//! `tcp`: networking for Lua.
//!
//! The floors, each naming only what is below it:
//!
//! ```text
//! 5  runtime/   embedded Lua: waiting, raising, iterators
//! 4  lua/       the module's face, the only place for mlua      json/  text <-> values on the Lua stack
//! 3  net/       connections, racing connects
//! 2  sys/       sockets, poll, the resolver's threads          tls/   records <-> bytes, certificates
//! 1  frame/     bytes in, values out
//! 0  error, step, deadline, address, options
//! ```
//!
//! Everything up to floor 3 builds and is tested without Lua: `cargo test --no-default-features`.

#![cfg_attr(
    not(feature = "lua"),
    allow(dead_code, reason = "without the floors above, nothing uses these but their tests")
)]

mod address;
mod deadline;
mod error;
mod frame;
#[cfg(feature = "lua")]
mod json;
#[cfg(feature = "lua")]
mod lua;
mod net;
mod options;
mod step;
mod sys;
mod tls;

/// What Lua calls to load the module.
#[cfg(feature = "lua")]
mod entry {
    #![allow(unsafe_code, reason = "the interpreter calls these through C")]

    use std::ffi::c_int;

    use mlua::Lua;
    use mlua::Table;
    use mlua::ffi;

    /// `require("tcp")`
    ///
    /// # Safety
    /// Lua's loader calls it with the state that is running.
    #[unsafe(no_mangle)]
    unsafe extern "C-unwind" fn luaopen_tcp(state: *mut ffi::lua_State) -> c_int {
        // SAFETY: the caller's promise is handed on.
        unsafe { open(state, crate::lua::module::load_with_globals) }
    }

    /// `require("tcp.core")`
    ///
    /// # Safety
    /// Lua's loader calls it with the state that is running.
    #[unsafe(no_mangle)]
    unsafe extern "C-unwind" fn luaopen_tcp_core(state: *mut ffi::lua_State) -> c_int {
        // SAFETY: the caller's promise is handed on.
        unsafe { open(state, crate::lua::module::load) }
    }

    /// On Lua 5.1 and LuaJIT mlua takes the thread that it meets first for the main one. That may be a
    /// coroutine of the script's, and what is left of it once it is collected would be used. So mlua meets
    /// a thread that the registry keeps for ever first.
    ///
    /// # Safety
    /// `state` is the state that is running, with a free slot.
    unsafe fn open(state: *mut ffi::lua_State, load: fn(&Lua) -> mlua::Result<Table>) -> c_int {
        const ANCHOR: *const std::ffi::c_char = c"tcp.anchor".as_ptr();
        // SAFETY: Lua gives a C function 20 slots; the new thread is in the registry before mlua sees it.
        unsafe {
            ffi::lua_getfield(state, ffi::LUA_REGISTRYINDEX, ANCHOR);
            let mut anchor = ffi::lua_tothread(state, -1);
            ffi::lua_settop(state, -2);
            if anchor.is_null() {
                anchor = ffi::lua_newthread(state);
                ffi::lua_setfield(state, ffi::LUA_REGISTRYINDEX, ANCHOR);
            }
            Lua::get_or_init_from_ptr(anchor);
            Lua::entrypoint1(state, load)
        }
    }
}
