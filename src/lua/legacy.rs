//! The last connection that was opened, kept in the Lua registry for the legacy `send` and `recv`.

use mlua::AnyUserData;
use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::error::Error;
use crate::error::Kind;
use crate::lua::connection::Connection;
use crate::lua::failure;
use crate::lua::reply;
use crate::lua::reply::Nothing;

/// Where it stands in the registry.
const LAST: &str = "tcp.last_connection";

/// Adds to `core`: `remember`, `last`, and the error of there being none.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.raw_set("remember", reply::maker(lua, remember)?)?;
    core.raw_set("last", reply::maker(lua, |lua, ()| lua.named_registry_value::<Value>(LAST))?)?;
    core.raw_set("no_connection", reply::maker(lua, no_connection)?)
}

fn remember(lua: &Lua, connection: AnyUserData) -> mlua::Result<Nothing> {
    if let Value::UserData(before) = lua.named_registry_value(LAST)? {
        before.borrow_mut::<Connection>()?.is_last = false;
    }
    connection.borrow_mut::<Connection>()?.is_last = true;
    lua.set_named_registry_value(LAST, connection)?;
    Ok(None)
}

/// A connection that is closed is nobody's last any more.
pub fn forget(lua: &Lua, connection: &mut Connection) -> mlua::Result<()> {
    if connection.is_last {
        connection.is_last = false;
        lua.unset_named_registry_value(LAST)?;
    }
    Ok(())
}

fn no_connection(lua: &Lua, op: String) -> mlua::Result<Table> {
    let error = Error::new(Kind::Closed, "no connection is open: call connect first");
    failure::object(lua, &error, &op, None)
}
