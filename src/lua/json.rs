//! `tcp.json`: the rules of packets and documents, for texts of the script's own.

use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::json::Marks;
use crate::json::decode::decode;
use crate::json::encode::Layout;
use crate::json::encode::encode;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::each_option;
use crate::lua::reply;
use crate::lua::reply::Failure;

/// Room for a text before its length is known.
const FIRST_ROOM: usize = 256;

/// Adds to `core`: `json`, with the steps and the metatables.
pub fn register(lua: &Lua, core: &Table, marks: &Marks) -> mlua::Result<()> {
    let json = lua.create_table()?;
    json.raw_set("array_mt", &marks.array)?;
    json.raw_set("object_mt", &marks.object)?;
    json.raw_set("null", Value::NULL)?;
    let own = marks.clone();
    let encode = lua.create_function(move |lua, (value, options): (Value, Value)| {
        let text = || {
            let mut text = Vec::with_capacity(FIRST_ROOM);
            encode(lua, &own, value, layout(&options)?, &mut text)??;
            Ok(lua.create_string(text)?)
        };
        reply::settled(lua, text(), "encode", || None)
    })?;
    json.raw_set("encode", encode)?;
    let own = marks.clone();
    let decode = lua.create_function(move |lua, text: Value| {
        let value = || match &text {
            Value::String(text) => Ok(decode(lua, &own, &text.as_bytes())??),
            other => Err(Failure::Misuse(Place::Argument(1).expected("string", other))),
        };
        reply::settled(lua, value(), "decode", || None)
    })?;
    json.raw_set("decode", decode)?;
    core.raw_set("json", json)
}

fn layout(options: &Value) -> Result<Layout, Misuse> {
    let mut layout = Layout::Compact;
    match options {
        Value::Nil => {}
        Value::Table(table) => each_option(table, &["pretty"], |name, value| {
            if Place::Option(name).boolean(value)? {
                layout = Layout::Pretty;
            }
            Ok(())
        })?,
        other => return Err(Place::Argument(2).expected("table (options)", other)),
    }
    Ok(layout)
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
