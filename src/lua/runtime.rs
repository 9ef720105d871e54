//! Loads the embedded Lua. A chunk gets `core` and the chunks before it as arguments, and gives a table.

use mlua::Lua;
use mlua::Table;

/// What the names of the embedded chunks begin with. Not `@`: that would be the name of a file of the
/// script's in a folder `tcp`.
pub const CHUNK_PREFIX: &str = "=tcp/";

const ERRORS: &str = include_str!("../runtime/errors.lua");
const WAIT: &str = include_str!("../runtime/wait.lua");
const METHODS: &str = include_str!("../runtime/methods.lua");
const MODULE: &str = include_str!("../runtime/module.lua");

/// The module's table, and what the metatable of connections needs.
pub struct Runtime {
    pub module: Table,
    pub connection: Table,
}

pub fn load(lua: &Lua, core: &Table) -> mlua::Result<Runtime> {
    let chunk = |name: &str, source: &'static str| lua.load(source).set_name(format!("{CHUNK_PREFIX}{name}"));
    let errors: Table = chunk("errors.lua", ERRORS).call(core)?;
    let wait: Table = chunk("wait.lua", WAIT).call((core, &errors))?;
    let connection: Table = chunk("methods.lua", METHODS).call((core, &errors, &wait))?;
    let module = chunk("module.lua", MODULE).call((core, &errors, &wait))?;
    Ok(Runtime { module, connection })
}
