//! The Lua stack as JSON needs it: the only unsafe code above the system's floor.
//!
//! mlua's own conversions go through a reference for every value; here values are pushed and looked at where
//! they are. What keeps it sound:
//!
//! - A `Stack` exists only inside `run`, which gives it the state that is running and a protected call around
//!   the work: a memory error of Lua ends in `run`, not in the caller's frames. It jumps over the frames of
//!   decode.rs and encode.rs, as it does over mlua's own; what those own (a fault on its way out, the names
//!   that pretty printing sorts) is then lost, nothing else: the buffers belong to the callers.
//! - Text lent by `with_bytes` cannot outlive its slot: taking values off needs the stack exclusively.
//! - Every function leaves the slots below its own alone. Indices count from the bottom and are below the
//!   top: decode.rs and encode.rs put values on and take them off in pairs.

#![allow(unsafe_code, reason = "the one place where values touch the Lua stack without a handle each")]

use std::ffi::c_int;
use std::ffi::c_void;

use mlua::FromLuaMulti;
use mlua::IntoLuaMulti;
use mlua::Lua;
use mlua::ffi;

pub struct Stack {
    state: *mut ffi::lua_State,
}

/// What lies in a slot.
pub enum Slot {
    Null,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    String,
    Table,
    /// Something that JSON has no word for.
    Other(&'static str),
}

/// Runs `work` on a stack that holds just `args`; what it leaves there is the result.
pub fn run<R: FromLuaMulti>(
    lua: &Lua,
    args: impl IntoLuaMulti,
    work: impl FnOnce(&mut Stack),
) -> mlua::Result<R> {
    // SAFETY: mlua calls the closure at once, in a protected call, with the state that is running and its
    // stack holding the arguments only; `Stack` lets no unbalanced or unchecked access out.
    unsafe { lua.exec_raw(args, |state| work(&mut Stack { state })) }
}

// SAFETY, for every block below: `state` is the running state (see `run`); indices are in use (see above);
// each function needs the slots that its doc says, made sure of by `reserve` in the callers.
impl Stack {
    /// Makes room for `slots` more values. `false`: Lua's limit is reached.
    pub fn reserve(&mut self, slots: usize) -> bool {
        let Ok(slots) = c_int::try_from(slots) else { return false };
        // SAFETY: see above; lua_checkstack answers 0 where it cannot grow.
        unsafe { ffi::lua_checkstack(self.state, slots) != 0 }
    }

    pub fn top(&self) -> usize {
        // SAFETY: see above; the top is never negative.
        unsafe { ffi::lua_gettop(self.state) as usize }
    }

    /// Takes off everything above `top`.
    pub fn cut(&mut self, top: usize) {
        debug_assert!(top <= self.top());
        // SAFETY: see above; `top` is at most the present one.
        unsafe { ffi::lua_settop(self.state, top as c_int) }
    }

    /// Puts nothing but the topmost value into the result.
    pub fn keep_top_only(&mut self) {
        // SAFETY: see above; the value on top replaces the first slot, which exists.
        unsafe {
            if self.top() > 1 {
                ffi::lua_replace(self.state, 1);
                ffi::lua_settop(self.state, 1);
            }
        }
    }

    pub fn push_null(&mut self) {
        // SAFETY: see above; one slot.
        unsafe { ffi::lua_pushlightuserdata(self.state, std::ptr::null_mut()) }
    }

    pub fn push_nil(&mut self) {
        // SAFETY: see above; one slot.
        unsafe { ffi::lua_pushnil(self.state) }
    }

    pub fn push_boolean(&mut self, value: bool) {
        // SAFETY: see above; one slot.
        unsafe { ffi::lua_pushboolean(self.state, c_int::from(value)) }
    }

    /// An integer where Lua has them, a number elsewhere.
    pub fn push_integer(&mut self, value: i64) {
        // SAFETY: see above; one slot.
        unsafe {
            match ffi::lua_Integer::try_from(value) {
                Ok(integer) => ffi::lua_pushinteger(self.state, integer),
                Err(_) => ffi::lua_pushnumber(self.state, value as f64),
            }
        }
    }

    pub fn push_number(&mut self, value: f64) {
        // SAFETY: see above; one slot.
        unsafe { ffi::lua_pushnumber(self.state, value) }
    }

    pub fn push_string(&mut self, bytes: &[u8]) {
        // SAFETY: see above; one slot. Lua copies the bytes.
        unsafe {
            ffi::lua_pushlstring(self.state, bytes.as_ptr().cast(), bytes.len());
        }
    }

    /// Another reference to the value at `index`.
    pub fn push_copy(&mut self, index: usize) {
        debug_assert!(index >= 1 && index <= self.top());
        // SAFETY: see above; one slot.
        unsafe { ffi::lua_pushvalue(self.state, index as c_int) }
    }

    /// A table with room for a list of `list` values and `named` others.
    pub fn push_table(&mut self, list: usize, named: usize) {
        let room = |count: usize| c_int::try_from(count).unwrap_or(c_int::MAX);
        // SAFETY: see above; one slot.
        unsafe { ffi::lua_createtable(self.state, room(list), room(named)) }
    }

    /// Moves the topmost value to `index`, and those from there on up by one.
    pub fn insert(&mut self, index: usize) {
        debug_assert!(index >= 1 && index <= self.top());
        // SAFETY: see above.
        unsafe { ffi::lua_insert(self.state, index as c_int) }
    }

    /// `table[position] = value on top`, which is taken off.
    pub fn set_element(&mut self, table: usize, position: usize) {
        debug_assert!(table < self.top());
        // SAFETY: see above; callers name a table.
        unsafe { ffi::lua_rawseti(self.state, table as c_int, position as ffi::lua_Integer) }
    }

    /// `table[value below the top] = value on top`; both are taken off. The key is a string.
    pub fn set_field(&mut self, table: usize) {
        debug_assert!(table + 1 < self.top());
        // SAFETY: see above; callers name a table, and a key that is neither nil nor NaN.
        unsafe { ffi::lua_rawset(self.state, table as c_int) }
    }

    /// Gives the table on top the metatable at `index`.
    pub fn set_metatable(&mut self, index: usize) {
        // SAFETY: see above; both are tables, one slot.
        unsafe {
            ffi::lua_pushvalue(self.state, index as c_int);
            ffi::lua_setmetatable(self.state, -2);
        }
    }

    pub fn slot(&self, index: usize) -> Slot {
        let index = index as c_int;
        // SAFETY: see above; each reading function is used on a value of its own type, and the name of a type
        // is a constant of Lua's.
        unsafe {
            match ffi::lua_type(self.state, index) {
                ffi::LUA_TNIL => Slot::Null,
                ffi::LUA_TBOOLEAN => Slot::Boolean(ffi::lua_toboolean(self.state, index) != 0),
                ffi::LUA_TNUMBER if ffi::lua_isinteger(self.state, index) != 0 => {
                    #[allow(clippy::unnecessary_cast, reason = "lua_Integer is not i64 on every Lua")]
                    Slot::Integer(ffi::lua_tointeger(self.state, index) as i64)
                }
                ffi::LUA_TNUMBER => Slot::Number(ffi::lua_tonumber(self.state, index)),
                ffi::LUA_TSTRING => Slot::String,
                ffi::LUA_TTABLE => Slot::Table,
                ffi::LUA_TLIGHTUSERDATA if ffi::lua_touserdata(self.state, index).is_null() => Slot::Null,
                ffi::LUA_TFUNCTION => Slot::Other("function"),
                ffi::LUA_TTHREAD => Slot::Other("thread"),
                _ => Slot::Other("userdata"),
            }
        }
    }

    /// Lends the bytes of the string at `index`; none if it is not one.
    pub fn with_bytes<R>(&self, index: usize, look: impl FnOnce(&[u8]) -> R) -> R {
        let index = index as c_int;
        // SAFETY: see above; only a string is asked for its text (a number would be converted in place). Lua
        // keeps the text while the value is in its slot, and `look` cannot reach the stack to take it off.
        unsafe {
            if ffi::lua_type(self.state, index) != ffi::LUA_TSTRING {
                return look(&[]);
            }
            let mut length = 0;
            let text = ffi::lua_tolstring(self.state, index, &mut length);
            look(std::slice::from_raw_parts(text.cast(), length))
        }
    }

    /// The key on top is replaced by the next key of `table` and its value on top of it; `false`, and the key
    /// is gone, after the last one. Needs one slot.
    pub fn next(&mut self, table: usize) -> bool {
        // SAFETY: see above; callers name a table, and the key is nil or came from the last call.
        unsafe { ffi::lua_next(self.state, table as c_int) != 0 }
    }

    /// Pushes `table[position]`.
    pub fn push_element(&mut self, table: usize, position: usize) {
        // SAFETY: see above; callers name a table, one slot.
        unsafe {
            ffi::lua_rawgeti(self.state, table as c_int, position as ffi::lua_Integer);
        }
    }

    /// Replaces the key on top by its value in `table`.
    pub fn get_field(&mut self, table: usize) {
        // SAFETY: see above; callers name a table.
        unsafe {
            ffi::lua_rawget(self.state, table as c_int);
        }
    }

    /// Whether the metatable of the value at `index` is the table at `mark`. Needs one slot.
    pub fn has_metatable(&mut self, index: usize, mark: usize) -> bool {
        // SAFETY: see above; lua_getmetatable pushes only where there is one.
        unsafe {
            if ffi::lua_getmetatable(self.state, index as c_int) == 0 {
                return false;
            }
            let same = ffi::lua_rawequal(self.state, -1, mark as c_int) != 0;
            ffi::lua_settop(self.state, -2);
            same
        }
    }

    /// Tells tables apart; never followed.
    pub fn identity(&self, index: usize) -> *const c_void {
        // SAFETY: see above.
        unsafe { ffi::lua_topointer(self.state, index as c_int) }
    }
}
