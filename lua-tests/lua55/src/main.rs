//! Runs lua-tests/lua55/smoke.lua on Lua 5.5.

use mlua::Lua;

fn main() -> mlua::Result<()> {
    // SAFETY: loading the module under test, a shared library, is what this program is for.
    let lua = unsafe { Lua::unsafe_new() };
    lua.load(include_str!("../smoke.lua")).set_name("@lua-tests/lua55/smoke.lua").exec()
}
