//! The Lua stack as JSON needs it: the only unsafe code above the system's floor.
//!
//! mlua's own conversions go through a reference for every value; here values are pushed and looked at where
//! they are. What keeps it sound:
//!
//! - A `Stack` exists only inside `run` and `enter`, which give it the state that is running; it reaches no slot
//!   below its base.
//! - Text lent by `with_bytes` and `above_text` cannot outlive its slot: while the one lends, nothing can be
//!   taken off; while the other does, the slot is below the base.
//! - Indices count from 1 above the base, and are in use: decode.rs and encode.rs put values on and take them
//!   off in pairs.
//!
//! Where Lua runs out of memory or stack it raises an error that leaves the frames of this folder. They hold
//! nothing but memory: on Lua 5.x, which jumps, that is lost; on LuaJIT, which unwinds, it is freed.

#![allow(unsafe_code, reason = "the one place where values touch the Lua stack without a handle each")]

use std::ffi::c_int;
use std::ffi::c_void;

use mlua::Function;
use mlua::IntoLuaMulti;
use mlua::Lua;
use mlua::Value;
use mlua::ffi;

pub struct Stack {
    state: *mut ffi::lua_State,
    /// Slots that were in use before.
    base: c_int,
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

/// Runs `work` on a stack that holds just `args`, in a protected call: what Lua raises in it (want of memory, or a
/// finalizer's error) must leave neither a step's frames, which hold a connection, nor mlua's. What it leaves on top
/// of `args` comes back beside its answer.
pub fn run<T>(
    lua: &Lua,
    args: impl IntoLuaMulti,
    work: impl FnOnce(&mut Stack) -> T,
) -> mlua::Result<(T, Value)> {
    let mut answer = None;
    let outcome = &mut answer;
    // SAFETY: mlua calls the closure at once, with the state that is running and its stack holding just the
    // arguments; it takes what is left there for the result.
    let value = unsafe {
        lua.exec_raw::<Value>(args, move |state| {
            let mut stack = Stack { state, base: 0 };
            let arguments = stack.top();
            *outcome = Some(work(&mut stack));
            if stack.top() > arguments {
                ffi::lua_insert(state, 1);
                ffi::lua_settop(state, 1);
            } else {
                ffi::lua_settop(state, 0);
            }
        })?
    };
    answer.map(|answer| (answer, value)).ok_or(mlua::Error::StackError)
}

/// A function for the embedded Lua that works on the stack from its call to its return.
pub trait Work {
    /// Its callers give this many arguments.
    const ARGUMENTS: c_int;

    /// What it leaves above the arguments is the result.
    fn work(stack: &mut Stack);
}

/// Not one of mlua's functions: those cost as much as a small text, and must not see LuaJIT's exceptions.
pub fn function<W: Work>(lua: &Lua) -> mlua::Result<Function> {
    // SAFETY: `enter` is a C function as Lua wants them: it takes its arguments from the stack, leaves its
    // results on top and says how many they are.
    unsafe { lua.create_c_function(enter::<W>) }
}

/// # Safety
/// Lua calls it, with the state that is running.
unsafe extern "C-unwind" fn enter<W: Work>(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: the arguments are made to be there; LUA_MINSTACK slots are free.
    unsafe { ffi::lua_settop(state, W::ARGUMENTS) };
    let mut stack = Stack { state, base: 0 };
    W::work(&mut stack);
    // SAFETY: `work` takes off nothing but its own values.
    unsafe { ffi::lua_gettop(state) - W::ARGUMENTS }
}

// SAFETY, for every block below: `state` is the running state (see `run`); indices are in use (see above);
// each function needs the slots that its doc says, made sure of by `reserve` in the callers.
impl Stack {
    /// Makes room for `slots` more values. `false`: Lua's limit is reached.
    pub fn reserve(&mut self, slots: usize) -> bool {
        let Ok(slots) = c_int::try_from(slots) else { return false };
        // SAFETY: see above; lua_checkstack answers 0 where it cannot grow, or raises.
        unsafe { ffi::lua_checkstack(self.state, slots) != 0 }
    }

    pub fn top(&self) -> usize {
        // SAFETY: see above; the top never falls below the base.
        unsafe { (ffi::lua_gettop(self.state) - self.base) as usize }
    }

    /// An index of this stack as Lua counts it.
    fn at(&self, index: usize) -> c_int {
        self.base + index as c_int
    }

    /// Takes off everything above `top`.
    pub fn cut(&mut self, top: usize) {
        debug_assert!(top <= self.top());
        // SAFETY: see above; `top` is at most the present one.
        unsafe { ffi::lua_settop(self.state, self.at(top)) }
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
        unsafe { ffi::lua_pushvalue(self.state, self.at(index)) }
    }

    /// A table with room for a list of `list` values and `named` others.
    pub fn push_table(&mut self, list: usize, named: usize) {
        let room = |count: usize| c_int::try_from(count).unwrap_or(c_int::MAX);
        // SAFETY: see above; one slot.
        unsafe { ffi::lua_createtable(self.state, room(list), room(named)) }
    }

    /// Takes the topmost value off and puts it into the slot at `index`.
    pub fn replace(&mut self, index: usize) {
        debug_assert!(index >= 1 && index < self.top());
        // SAFETY: see above.
        unsafe { ffi::lua_replace(self.state, self.at(index)) }
    }

    /// `table[position] = value on top`, which is taken off.
    pub fn set_element(&mut self, table: usize, position: usize) {
        debug_assert!(table < self.top());
        // SAFETY: see above; callers name a table.
        unsafe { ffi::lua_rawseti(self.state, self.at(table), position as ffi::lua_Integer) }
    }

    /// `table[value below the top] = value on top`; both are taken off. The key is a string.
    pub fn set_field(&mut self, table: usize) {
        debug_assert!(table + 1 < self.top());
        // SAFETY: see above; callers name a table, and a key that is neither nil nor NaN.
        unsafe { ffi::lua_rawset(self.state, self.at(table)) }
    }

    /// Gives the table on top the metatable at `index`.
    pub fn set_metatable(&mut self, index: usize) {
        // SAFETY: see above; both are tables, one slot.
        unsafe {
            ffi::lua_pushvalue(self.state, self.at(index));
            ffi::lua_setmetatable(self.state, -2);
        }
    }

    pub fn slot(&self, index: usize) -> Slot {
        let index = self.at(index);
        // SAFETY: see above; each reading function is used on a value of its own type, and the name of a type
        // is a constant of Lua's.
        unsafe {
            match ffi::lua_type(self.state, index) {
                ffi::LUA_TNIL => Slot::Null,
                ffi::LUA_TBOOLEAN => Slot::Boolean(ffi::lua_toboolean(self.state, index) != 0),
                #[cfg(any(feature = "lua53", feature = "lua54", feature = "lua55"))]
                ffi::LUA_TNUMBER if ffi::lua_isinteger(self.state, index) != 0 => {
                    Slot::Integer(ffi::lua_tointeger(self.state, index))
                }
                ffi::LUA_TNUMBER => number(ffi::lua_tonumber(self.state, index)),
                ffi::LUA_TSTRING => Slot::String,
                ffi::LUA_TTABLE => Slot::Table,
                ffi::LUA_TLIGHTUSERDATA if ffi::lua_touserdata(self.state, index).is_null() => Slot::Null,
                ffi::LUA_TFUNCTION => Slot::Other("function"),
                ffi::LUA_TTHREAD => Slot::Other("thread"),
                ffi::LUA_TUSERDATA | ffi::LUA_TLIGHTUSERDATA => Slot::Other("userdata"),
                _ => Slot::Other("cdata"),
            }
        }
    }

    pub fn is_table(&self, index: usize) -> bool {
        // SAFETY: see above.
        unsafe { ffi::lua_type(self.state, self.at(index)) == ffi::LUA_TTABLE }
    }

    /// Lends the bytes of the string at `index`.
    pub fn with_bytes<R>(&self, index: usize, look: impl FnOnce(&[u8]) -> R) -> R {
        let index = self.at(index);
        // SAFETY: see above; a number would be converted in place, anything else but a string has no text. Lua
        // keeps the text while the value is in its slot, and `look` cannot reach the stack to take it off.
        unsafe {
            let mut length = 0;
            let text = ffi::lua_tolstring(self.state, index, &mut length);
            if text.is_null() {
                return look(&[]);
            }
            look(std::slice::from_raw_parts(text.cast(), length))
        }
    }

    /// Lends the string in the first slot to `work`, which sees the slots above it only. `None`: it is none.
    pub fn above_text<R>(&mut self, work: impl FnOnce(&mut Stack, &[u8]) -> R) -> Option<R> {
        let index = self.at(1);
        // SAFETY: see above; only a string is asked for its text, which Lua keeps while the value is in its
        // slot, and no slot below the base of the new stack can be reached.
        unsafe {
            if ffi::lua_type(self.state, index) != ffi::LUA_TSTRING {
                return None;
            }
            let mut length = 0;
            let text = ffi::lua_tolstring(self.state, index, &mut length);
            let text = std::slice::from_raw_parts(text.cast(), length);
            Some(work(&mut Stack { state: self.state, base: index }, text))
        }
    }

    /// The key on top is replaced by the next key of `table` and its value on top of it; `false`, and the key
    /// is gone, after the last one. Needs one slot.
    pub fn next(&mut self, table: usize) -> bool {
        // SAFETY: see above; callers name a table, and the key is nil or came from the last call.
        unsafe { ffi::lua_next(self.state, self.at(table)) != 0 }
    }

    /// Pushes `table[position]`.
    pub fn push_element(&mut self, table: usize, position: usize) {
        // SAFETY: see above; callers name a table, one slot.
        unsafe {
            ffi::lua_rawgeti(self.state, self.at(table), position as ffi::lua_Integer);
        }
    }

    /// Replaces the key on top by its value in `table`.
    pub fn get_field(&mut self, table: usize) {
        // SAFETY: see above; callers name a table.
        unsafe {
            ffi::lua_rawget(self.state, self.at(table));
        }
    }

    /// The metatable of the value at `index`, to be compared with `identity`. Needs one slot.
    pub fn metatable(&mut self, index: usize) -> *const c_void {
        // SAFETY: see above; lua_getmetatable pushes only where there is one.
        unsafe {
            if ffi::lua_getmetatable(self.state, self.at(index)) == 0 {
                return std::ptr::null();
            }
            let identity = ffi::lua_topointer(self.state, -1);
            ffi::lua_settop(self.state, -2);
            identity
        }
    }

    /// Tells tables apart; never followed.
    pub fn identity(&self, index: usize) -> *const c_void {
        // SAFETY: see above.
        unsafe { ffi::lua_topointer(self.state, self.at(index)) }
    }
}

/// A Lua number as JSON sees it: where Lua has no integers of its own, whole numbers are integers, except
/// those whose sign or size an integer would lose.
fn number(value: f64) -> Slot {
    let whole = value as i64;
    let is_whole = whole as f64 == value && whole != i64::MAX && !(whole == 0 && value.is_sign_negative());
    match cfg!(not(any(feature = "lua53", feature = "lua54", feature = "lua55"))) && is_whole {
        true => Slot::Integer(whole),
        false => Slot::Number(value),
    }
}
