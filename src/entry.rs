//! What Lua calls to load the module, and how a state is known again.
#![allow(unsafe_code, reason = "the interpreter calls these through C")]

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use mlua::Lua;
use mlua::Table;
use mlua::ffi;

use crate::lua::policy;
use crate::lua::policy::StateId;

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
    // SAFETY: Lua gives a C function 20 slots; the new thread is in the registry before mlua sees it. The error is
    // a string that Lua owns, and nothing else of Rust's is left to drop when it is raised.
    unsafe {
        ffi::lua_getfield(state, ffi::LUA_REGISTRYINDEX, ANCHOR);
        let mut anchor = ffi::lua_tothread(state, -1);
        ffi::lua_settop(state, -2);
        if anchor.is_null() {
            anchor = ffi::lua_newthread(state);
            ffi::lua_setfield(state, ffi::LUA_REGISTRYINDEX, ANCHOR);
        }
        let lua = Lua::get_or_init_from_ptr(anchor);
        keep_guard(state);
        let problem = policy::begin(lua, id(state), mark(state)).err();
        if let Some(problem) = problem {
            ffi::lua_pushlstring(state, problem.as_ptr().cast(), problem.len());
            drop(problem);
            ffi::lua_error(state);
        }
        Lua::entrypoint1(state, load)
    }
}

/// What all threads of a state have in common, and what scripts cannot change: its registry.
///
/// # Safety
/// `state` is the state that is running.
unsafe fn id(state: *mut ffi::lua_State) -> StateId {
    // SAFETY: the registry is always there.
    StateId(unsafe { ffi::lua_topointer(state, ffi::LUA_REGISTRYINDEX) }.addr())
}

/// What the host has set as the function that a state calls before it ends the process.
static PANICS: Mutex<BTreeMap<usize, ffi::lua_CFunction>> = Mutex::new(BTreeMap::new());

unsafe extern "C-unwind" {
    /// As Lua's manual has it: there may be no such function.
    fn lua_atpanic(
        state: *mut ffi::lua_State,
        function: Option<ffi::lua_CFunction>,
    ) -> Option<ffi::lua_CFunction>;
}

fn panics() -> MutexGuard<'static, BTreeMap<usize, ffi::lua_CFunction>> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Marks a state by that function, which no script reaches. Whether it was marked before: two states may have the
/// same registry's address one after the other.
///
/// # Safety
/// `state` is the state that is running.
unsafe fn mark(state: *mut ffi::lua_State) -> bool {
    // SAFETY: `panicked` is there as long as the process: the library is never unloaded.
    let (before, id) = unsafe { (lua_atpanic(state, Some(panicked)), id(state)) };
    let is_marked = before.is_some_and(|it| std::ptr::fn_addr_eq(it, panicked as ffi::lua_CFunction));
    if let Some(before) = before.filter(|_| !is_marked) {
        panics().insert(id.0, before);
    }
    is_marked
}

unsafe extern "C-unwind" fn panicked(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua's promise is handed on.
    let id = unsafe { id(state) };
    let hosts = panics().get(&id.0).copied();
    // SAFETY: the host's own function, called as Lua would have called it.
    hosts.map_or(0, |hosts| unsafe { hosts(state) })
}

const GUARD: *const std::ffi::c_char = c"tcp.guard".as_ptr();

/// Has it noted when the state is closed: an object in the registry is finalized then. A script that takes it out
/// of there has it finalized earlier; that is told apart as far as can be, and the guard is set again.
///
/// # Safety
/// `state` is the state that is running, with free slots.
unsafe fn keep_guard(state: *mut ffi::lua_State) {
    // SAFETY: what is pushed is popped.
    unsafe {
        ffi::lua_getfield(state, ffi::LUA_REGISTRYINDEX, GUARD);
        if ffi::lua_touserdata(state, -1).is_null() {
            ffi::lua_newuserdata(state, 1);
            ffi::lua_createtable(state, 0, 1);
            ffi::lua_pushcfunction(state, gone);
            ffi::lua_setfield(state, -2, c"__gc".as_ptr());
            ffi::lua_setmetatable(state, -2);
            ffi::lua_setfield(state, ffi::LUA_REGISTRYINDEX, GUARD);
        }
        ffi::lua_settop(state, -2);
    }
}

/// The guard's finalizer.
unsafe extern "C-unwind" fn gone(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: Lua gives a C function 20 slots; `lua_getstack` fills what it is given.
    unsafe {
        ffi::lua_getfield(state, ffi::LUA_REGISTRYINDEX, GUARD);
        let is_there = ffi::lua_rawequal(state, 1, -1) != 0;
        let mut caller = std::mem::zeroed();
        let is_called = ffi::lua_getstack(state, 1, &raw mut caller) != 0;
        if is_there && !is_called && ffi::lua_pushthread(state) != 0 {
            // Nothing else runs, and the registry is as it was.
            let id = id(state);
            policy::note_close(id);
            panics().remove(&id.0);
        } else {
            ffi::lua_pushnil(state);
            ffi::lua_setfield(state, ffi::LUA_REGISTRYINDEX, GUARD);
            keep_guard(state);
        }
    }
    0
}
