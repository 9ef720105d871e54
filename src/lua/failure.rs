//! Error objects: tables with the fields of the API page and the metatable that errors.lua fills.

use std::ffi::c_void;

use mlua::LightUserData;
use mlua::Lua;
use mlua::Table;

use crate::error::Error;
use crate::error::Kind;
use crate::lua::args::Place;
use crate::lua::args::given;
use crate::lua::args::nearest;
use crate::lua::args::type_name;
use crate::lua::connection::Connection;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::sys::socket;

/// Where the metatable is kept in the registry.
const METATABLE: &str = "tcp.error";

/// Where the registry keeps on which connections errors happened that may say that the peer has left.
const ORIGINS: &str = "tcp.error origins";

/// Adds to `core`: the metatable, `origins`, and `where`.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    let metatable = lua.create_table()?;
    lua.set_named_registry_value(METATABLE, &metatable)?;
    core.raw_set("error_metatable", metatable)?;
    let (origins, weak) = (lua.create_table()?, lua.create_table()?);
    weak.raw_set("__mode", "k")?;
    origins.set_metatable(Some(weak))?;
    lua.set_named_registry_value(ORIGINS, &origins)?;
    core.raw_set("origins", origins)?;
    core.raw_set("where", lua.create_function(|lua, ()| Ok(position(lua)))?)?;
    core.raw_set("check_kind", reply::function(lua, check_kind)?)?;
    core.raw_set("type_name", lua.create_function(|_, value: mlua::Value| Ok(given(&value)))?)?;
    core.raw_set("self_name", lua.create_function(|_, value: mlua::Value| Ok(type_name(&value)))?)?;
    // The string that a hook has raised in a call of mlua's; nil of anything else.
    let raised = |lua: &Lua, value: mlua::Value| match value.as_error().and_then(reply::raised) {
        Some(text) => lua.create_string(text).map(Some),
        None => Ok(None),
    };
    core.raw_set("raised", lua.create_function(raised)?)?;
    core.raw_set("limit", reply::function(lua, limit)?)?;
    let is_shortage = |_: &Lua, errno: Option<i32>| Ok(errno.is_some_and(socket::is_shortage));
    core.raw_set("is_shortage", lua.create_function(is_shortage)?)
}

pub fn object(lua: &Lua, error: &Error, op: &str, peer: Option<String>) -> mlua::Result<Table> {
    let object = lua.create_table()?;
    object.raw_set("kind", error.kind().name())?;
    object.raw_set("message", error.message())?;
    object.raw_set("op", op)?;
    object.raw_set("peer", peer)?;
    object.raw_set("stage", error.stage().map(|stage| stage.name()))?;
    object.raw_set("errno", error.errno())?;
    object.raw_set("written", error.written())?;
    object.raw_set("alert", error.alert())?;
    if let Some(data) = error.data() {
        object.raw_set("data", lua.create_string(data)?)?;
    }
    object.set_metatable(Some(lua.named_registry_value(METATABLE)?))?;
    Ok(object)
}

/// The error of an operation on a connection.
pub fn object_on(lua: &Lua, error: &Error, op: &str, it: &Connection) -> mlua::Result<Table> {
    let object = object(lua, error, op, Some(it.net.peer()))?;
    if error.kind().is_leave() {
        lua.named_registry_value::<Table>(ORIGINS)?.raw_set(&object, identity(it))?;
    }
    Ok(object)
}

/// Stands for a connection as long as it lives.
pub fn identity(it: &Connection) -> LightUserData {
    LightUserData((&raw const *it).cast::<c_void>().cast_mut())
}

/// `file:line` of the innermost function of the script that is running: what `luaL_where` would say, had
/// the module no Lua of its own.
fn position(lua: &Lua) -> Option<String> {
    (0..).find_map(|level| {
        let inspected = lua.inspect_stack(level, |debug| {
            let line = debug.current_line()?;
            let source = debug.source();
            let is_ours = source.source.is_some_and(|name| name.starts_with(super::runtime::CHUNK_PREFIX));
            if is_ours { None } else { Some(format!("{}:{line}", source.short_src?)) }
        });
        match inspected {
            // Past the outermost function.
            None => Some(None),
            Some(None) => None,
            Some(found) => Some(found),
        }
    })?
}

/// Step: a whole number of at least 1 at a position; infinity is no limit.
fn limit(lua: &Lua, (value, position, op): (mlua::Value, usize, String)) -> mlua::Result<reply::Reply<f64>> {
    let number = match Place::Argument(position).limit(lua, &value, 1) {
        Ok(usize::MAX) => Ok(f64::INFINITY),
        other => other.map(|number| number as f64),
    };
    reply::settled(lua, number.map_err(Failure::Misuse), &op, || None)
}

/// Step: whether a kind that a script asks for exists.
fn check_kind(lua: &Lua, kind: mlua::Value) -> mlua::Result<reply::Reply<bool>> {
    let check = || {
        let place = Place::Argument(2);
        let kind = place.text(lua, &kind)?;
        if Kind::NAMES.contains(&kind.as_str()) {
            return Ok(true);
        }
        let hint = nearest(&kind, &Kind::NAMES).map_or(String::new(), |it| format!("; did you mean '{it}'?"));
        Err(Failure::Misuse(place.misuse(format!("no kind of error is called '{kind}'{hint}"))))
    };
    reply::settled(lua, check(), "is_error", || None)
}
