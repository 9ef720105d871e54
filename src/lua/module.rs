//! Puts the module together, once for each Lua state.

use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::lua::connection;
use crate::lua::dial;
use crate::lua::failure;
use crate::lua::file;
use crate::lua::json;
use crate::lua::legacy;
use crate::lua::listener;
use crate::lua::policy;
use crate::lua::reactor;
use crate::lua::reading;
use crate::lua::reply;
use crate::lua::resolve;
use crate::lua::runtime;
use crate::lua::state;
use crate::lua::tls;
use crate::lua::transfer;
use crate::lua::udp;
use crate::lua::wait;
use crate::lua::writing;

/// Where the module stands in the registry, so that `tcp` and `tcp.core` are one.
const MODULE: &str = "tcp.module";

/// Where the specs find the function that counts what is not over yet.
const COUNTS: &str = "tcp.counts";

/// The module, without touching any global: what `require("tcp.core")` gives.
pub fn load(lua: &Lua) -> mlua::Result<Table> {
    if let Value::Table(module) = lua.named_registry_value(MODULE)? {
        return Ok(module);
    }
    let core = lua.create_table()?;
    let marks = json::marks(lua)?;
    reply::register(lua, &core)?;
    policy::register(lua, &core)?;
    failure::register(lua, &core)?;
    wait::register(lua, &core)?;
    reactor::register(lua, &core)?;
    listener::register(lua, &core)?;
    dial::register(lua, &core)?;
    resolve::register(lua, &core)?;
    udp::register(lua, &core)?;
    reading::register(lua, &core, &marks)?;
    writing::register(lua, &core, &marks)?;
    state::register(lua, &core)?;
    tls::register(lua, &core)?;
    transfer::register(lua, &core)?;
    file::register(lua, &core)?;
    json::register(lua, &core, &marks)?;
    legacy::register(lua, &core)?;
    core.raw_set("version", env!("CARGO_PKG_VERSION"))?;
    #[cfg(feature = "lua51")]
    super::boundary::guard(lua, &core)?;
    let runtime = runtime::load(lua, &core)?;
    connection::register(lua, &runtime.connection)?;
    listener::register_type(lua, &runtime.listener)?;
    udp::register_type(lua, &runtime.udp)?;
    lua.set_named_registry_value(COUNTS, &runtime.counts)?;
    lua.set_named_registry_value(MODULE, &runtime.module)?;
    Ok(runtime.module)
}

/// The module with the legacy globals: what `require("tcp")` gives.
pub fn load_with_globals(lua: &Lua) -> mlua::Result<Table> {
    let module = load(lua)?;
    let globals = lua.globals();
    for name in ["connect", "connect_tls", "send", "recv"] {
        // Raw, so that a script that forbids undeclared globals is content.
        if globals.raw_get::<Value>(name)?.is_nil() {
            globals.raw_set(name, module.raw_get::<Value>(name)?)?;
        }
    }
    Ok(module)
}
