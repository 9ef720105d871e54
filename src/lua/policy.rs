//! `tcp.allow` and its environment variables: from entries to layers, kept where no script reaches them.
//!
//! A state's policy is found by the state itself, not by anything in it: loading the module again finds the same one.

use std::collections::HashMap;
use std::env;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::did_you_mean;
use crate::lua::args::each_option;
use crate::lua::args::is_module;
use crate::lua::args::type_name;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Nothing;
use crate::lua::reply::Reply;
use crate::policy::Layer;
use crate::policy::List;
use crate::policy::Policy;
use crate::policy::entry::Entry;

/// Tells the Lua states of a process apart.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct StateId(pub usize);

/// The policies of this process's states.
static POLICIES: LazyLock<Mutex<HashMap<StateId, Policy>>> = LazyLock::new(Mutex::default);

type Parser = fn(&str) -> Result<Entry, String>;

const ENVIRONMENT: [(&str, &str); 3] =
    [("LUA_TCP_ALLOW_NET", "net"), ("LUA_TCP_ALLOW_LISTEN", "listen"), ("LUA_TCP_DENY", "deny")];

/// What the names of all variables begin with.
const PREFIXES: [&str; 2] = ["LUA_TCP_ALLOW", "LUA_TCP_DENY"];

/// The policy of a state that loads the module, which begins with what the environment says. `Err` names what is wrong
/// with that. `is_marked`: this very state has loaded it before.
pub fn begin(lua: &Lua, id: StateId, is_marked: bool) -> Result<(), String> {
    let mut policies = lock(&POLICIES);
    let policy = match policies.get(&id) {
        Some(known) => known.clone(),
        None => {
            let environment = from_environment()?;
            // Of a state that seemed to be closed, and yet loads the module again, nothing is known any more.
            let policy = if is_marked { Policy::closed() } else { Policy::default() };
            policy.add(environment);
            if !is_marked {
                policies.insert(id, policy.clone());
            }
            policy
        }
    };
    lua.set_app_data(policy);
    Ok(())
}

/// Adds to `core`: `allow`.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.raw_set("allow", reply::function(lua, allow)?)
}

/// The policy of this state.
pub fn of(lua: &Lua) -> Policy {
    lua.app_data_ref::<Policy>().map_or_else(Policy::closed, |policy| policy.clone())
}

/// It seems that the state is being closed: the next one may be another at the same place.
pub fn note_close(id: StateId) {
    lock(&POLICIES).remove(&id);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Step: adds a layer, all of it or nothing.
fn allow(lua: &Lua, (rules, extra): (Value, Value)) -> mlua::Result<Reply<Nothing>> {
    let layer = match (&rules, &extra) {
        (rules, _) if is_module(rules) => Err(Place::Argument(1).expected("table", rules)),
        (_, extra) if !extra.is_nil() => Err(Place::Argument(2).misuse("nothing more expected")),
        (Value::Table(rules), _) => layer(lua, rules),
        (other, _) => Err(Place::Argument(1).expected("table", other)),
    };
    let added = layer.map(|layer| {
        of(lua).add(layer);
        Nothing::None
    });
    reply::settled(lua, added.map_err(Failure::Misuse), "allow", || None)
}

fn layer(lua: &Lua, rules: &Table) -> Result<Layer, Misuse> {
    let mut layer = Layer::default();
    each_option(rules, &["deny", "files", "listen", "net"], |name, value| {
        let place = Place::Option(name);
        match name {
            "files" => layer.no_files = !place.boolean(value)?,
            name => {
                let entries = list(lua, place, value, parser(name))?;
                set_list(&mut layer, name, List { name: format!("'{name}' of tcp.allow"), entries });
            }
        }
        Ok(())
    })?;
    Ok(layer)
}

fn set_list(layer: &mut Layer, name: &str, list: List) {
    let place = match name {
        "net" => &mut layer.net,
        "listen" => &mut layer.listen,
        _ => &mut layer.deny,
    };
    *place = Some(list);
}

fn parser(name: &str) -> Parser {
    if name == "deny" { Entry::of_denied } else { Entry::of_allowed }
}

fn list(lua: &Lua, place: Place<'_>, value: &Value, parse: Parser) -> Result<Vec<Entry>, Misuse> {
    let Value::Table(list) = value else { return Err(place.expected("table (list of entries)", value)) };
    let length = list.raw_len();
    if list.pairs::<Value, Value>().count() != length {
        return Err(place.misuse("list expected, got a table with holes or names"));
    }
    let entry = |at| {
        let value: Value = list.raw_get(at).unwrap_or(Value::Nil);
        let Value::String(_) = &value else {
            let number = value.as_integer().and_then(|number| u16::try_from(number).ok());
            let hint = number.map(|port| format!("; write ':{port}' for a port")).unwrap_or_default();
            let got = type_name(&value);
            return Err(place.misuse(format!("string as entry {at} expected, got {got}{hint}")));
        };
        let text = place.text(lua, &value).map_err(|_| place.misuse(format!("entry {at} is not UTF-8")))?;
        parse(&text).map_err(|problem| place.misuse(format!("entry {at}, '{text}': {problem}")))
    };
    (1..=length).map(entry).collect()
}

/// `Err` names the variable and the entry.
fn from_environment() -> Result<Layer, String> {
    let mut layer = Layer::default();
    for (variable, _) in env::vars_os() {
        let variable = variable.to_string_lossy();
        let is_ours = PREFIXES.iter().any(|prefix| variable.starts_with(prefix));
        if is_ours && ENVIRONMENT.iter().all(|(known, _)| *known != variable) {
            return Err(format!("{variable} is no variable of this module ({})", meant(&variable)));
        }
    }
    for (variable, name) in ENVIRONMENT {
        let Some(text) = env::var_os(variable) else { continue };
        let text = text.to_str().ok_or_else(|| format!("{variable} is not UTF-8"))?;
        let mut entries = Vec::new();
        for entry in text.split(',').map(str::trim) {
            if text.trim().is_empty() {
                break;
            }
            let parsed = parser(name)(entry);
            entries.push(parsed.map_err(|problem| format!("{variable}: bad entry '{entry}': {problem}"))?);
        }
        set_list(&mut layer, name, List { name: variable.into(), entries });
    }
    Ok(layer)
}

/// The variable that was probably meant: about `deny` there is one only.
fn meant(variable: &str) -> String {
    let [net, listen, deny] = ENVIRONMENT.map(|(name, _)| name);
    did_you_mean(match variable {
        _ if variable.contains("DENY") => deny,
        _ if variable.starts_with("LUA_TCP_ALLOW_L") => listen,
        _ => net,
    })
}
