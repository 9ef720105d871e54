//! Plain Lua 5.1 tells nobody whether a coroutine may be suspended: its state has to be looked at.
#![allow(
    unsafe_code,
    reason = "neither Lua 5.1's interface nor its stack says it: a tail call hides who called"
)]

use std::ffi::c_int;
use std::ffi::c_uchar;
use std::ffi::c_ushort;
use std::ffi::c_void;

use mlua::Function;
use mlua::Lua;
use mlua::ffi;

/// How `struct lua_State` begins in Lua 5.1, whose releases all agree on it (lstate.h).
#[repr(C)]
struct State {
    next: *mut c_void,
    tt: c_uchar,
    marked: c_uchar,
    status: c_uchar,
    pointers: [*mut c_void; 9],
    stack_size: c_int,
    call_info_size: c_int,
    /// Calls that C functions and the interpreter itself have made and that have not returned.
    c_calls: c_ushort,
    /// The same when the coroutine was resumed.
    base_c_calls: c_ushort,
}

/// A function that says whether its caller may be suspended: nothing that is not Lua stands between it and the bottom
/// of its coroutine, be it a C function or a call for an iterator, a metamethod or a finalizer. The embedded Lua tries
/// it before it relies on it.
pub fn can_suspend(lua: &Lua) -> mlua::Result<Function> {
    // SAFETY: it pushes one value, for which a C function always has room, and raises nothing.
    unsafe { lua.create_c_function(answer) }
}

unsafe extern "C-unwind" fn answer(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: every state of Lua 5.1 begins like this, and it is this thread's own.
    let it = unsafe { &*state.cast::<State>() };
    let can = it.c_calls == it.base_c_calls;
    // SAFETY: a C function has room for its results.
    unsafe { ffi::lua_pushboolean(state, c_int::from(can)) };
    1
}
