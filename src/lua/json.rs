//! `tcp.json`: the rules of packets and documents, for texts of the script's own. module.lua makes functions of
//! what is here.

use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::error::Error;
use crate::error::Kind;
use crate::json::Marks;
use crate::json::decode::Decode;
use crate::json::encode::Encode;
use crate::json::function;
use crate::lua::args::Place;
use crate::lua::args::each_option;
use crate::lua::failure;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Reply;

/// Adds to `core`: `json`, with the working functions, the metatables, and what is needed when they fail.
pub fn register(lua: &Lua, core: &Table, marks: &Marks) -> mlua::Result<()> {
    let json = lua.create_table()?;
    json.raw_set("array_mt", &marks.array)?;
    json.raw_set("object_mt", &marks.object)?;
    json.raw_set("null", Value::NULL)?;
    json.raw_set("decode", function::<Decode>(lua)?)?;
    json.raw_set("encode", function::<Encode>(lua)?)?;
    json.raw_set("is_pretty", reply::function(lua, is_pretty)?)?;
    json.raw_set("text", reply::function(lua, text)?)?;
    json.raw_set("failed", reply::maker(lua, failed)?)?;
    core.raw_set("json", json)
}

/// Step: what the options of `encode` say.
fn is_pretty(lua: &Lua, options: Value) -> mlua::Result<Reply<bool>> {
    let mut pretty = false;
    let parsed = match &options {
        Value::Table(table) => each_option(table, &["pretty"], |name, value| {
            pretty = Place::Option(name).boolean(value)?;
            Ok(())
        }),
        other => Err(Place::Argument(2).expected("table (options)", other)),
    };
    reply::settled(lua, parsed.map(|()| pretty).map_err(Failure::Misuse), "encode", || None)
}

/// Step: the text to decode, where it is not plainly a string.
fn text(lua: &Lua, value: Value) -> mlua::Result<Reply<mlua::LuaString>> {
    let text = Place::Argument(1).string(lua, &value).map_err(Failure::Misuse);
    reply::settled(lua, text, "decode", || None)
}

/// The error object of `op`; `data` is the malformed text.
fn failed(lua: &Lua, (op, message, data): (String, String, Option<mlua::LuaString>)) -> mlua::Result<Table> {
    let mut error = Error::new(Kind::Json, message);
    if let Some(data) = data {
        error = error.with_data(&*data.as_bytes());
    }
    failure::object(lua, &error, &op, None)
}

/// The two metatables. `__jsontype` is how other JSON modules for Lua ask for the same.
pub fn marks(lua: &Lua) -> mlua::Result<Marks> {
    let mark = |name: &str| {
        let table = lua.create_table()?;
        table.raw_set("__jsontype", name)?;
        Ok::<_, mlua::Error>(table)
    };
    Ok(Marks { array: mark("array")?, object: mark("object")? })
}
