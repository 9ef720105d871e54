//! What plain Lua 5.1 makes necessary: it tells nobody whether a coroutine may be suspended, so its state has
//! to be looked at; and it runs finalizers where mlua does not expect them.
#![allow(
    unsafe_code,
    reason = "neither Lua 5.1's interface nor its stack says it: a tail call hides who called; and mlua has no hook"
)]

use std::cell::Cell;

use std::ffi::c_int;
use std::ffi::c_uchar;
use std::ffi::c_ushort;
use std::ffi::c_void;

use mlua::Function;
use mlua::Lua;
use mlua::Table;
use mlua::Value;
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

thread_local! {
    /// A function of the module is running. It calls no Lua: only a finalizer can call another in the meantime.
    static IS_INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Has every function in `core` leave the registry's C functions as it found them, if it is called in the
/// middle of another.
///
/// mlua 0.12.2 puts the function that it is about to call in protected mode under a key of its own there, and
/// takes it back (`push_protected_cfunctions`). Between the two, Lua 5.1 may collect garbage. A finalizer of
/// the script's that uses the module had mlua put another function there, which was then called with what was
/// meant for the first.
pub fn guard(lua: &Lua, core: &Table) -> mlua::Result<()> {
    for pair in core.pairs::<Value, Value>() {
        match pair? {
            (key, Value::Function(function)) if key.as_string().is_none_or(|key| key != "can_suspend") => {
                // SAFETY: it takes the one value that was pushed for it.
                let guarded: Function =
                    unsafe { lua.exec_raw(function, |state| ffi::lua_pushcclosure(state, guarded, 1))? };
                core.raw_set(key, guarded)?;
            }
            // The script's own.
            (key, _) if key.as_string().is_some_and(|key| key == "debug") => {}
            (_, Value::Table(table)) => guard(lua, &table)?,
            _ => {}
        }
    }
    Ok(())
}

unsafe extern "C-unwind" fn guarded(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua gives a C function 20 slots beside its arguments. The keys are pushed and popped in turn,
    // and `lua_next` is given what it gave.
    unsafe {
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_insert(state, 1);
        let count = ffi::lua_gettop(state) - 1;
        if !IS_INSIDE.replace(true) {
            ffi::lua_call(state, count, ffi::LUA_MULTRET);
            // After an error it stays set, which makes later calls slower and nothing else.
            IS_INSIDE.set(false);
            return ffi::lua_gettop(state);
        }
        ffi::lua_newtable(state);
        ffi::lua_insert(state, 1);
        ffi::lua_pushnil(state);
        while ffi::lua_next(state, ffi::LUA_REGISTRYINDEX) != 0 {
            if ffi::lua_islightuserdata(state, -2) != 0 && ffi::lua_iscfunction(state, -1) != 0 {
                ffi::lua_pushvalue(state, -2);
                ffi::lua_insert(state, -2);
                ffi::lua_rawset(state, 1);
            } else {
                ffi::lua_settop(state, -2);
            }
        }
        let status = ffi::lua_pcall(state, count, ffi::LUA_MULTRET, 0);
        ffi::lua_pushnil(state);
        while ffi::lua_next(state, 1) != 0 {
            ffi::lua_pushvalue(state, -2);
            ffi::lua_insert(state, -2);
            ffi::lua_rawset(state, ffi::LUA_REGISTRYINDEX);
        }
        if status != ffi::LUA_OK {
            ffi::lua_error(state);
        }
        ffi::lua_gettop(state) - 1
    }
}
