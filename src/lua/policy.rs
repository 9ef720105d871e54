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
use crate::lua::args::each_option;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Nothing;
use crate::lua::reply::Reply;
use crate::policy::Layer;
use crate::policy::Policy;
use crate::policy::entry::Entry;

/// Tells the Lua states of a process apart.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct StateId(pub usize);

/// The policies of this process's states.
static POLICIES: LazyLock<Mutex<HashMap<StateId, Known>>> = LazyLock::new(Mutex::default);

struct Known {
    policy: Policy,
    /// It seems that the state was closed: the next one may be another at the same place.
    seems_closed: bool,
}

type Parser = fn(&str) -> Result<Entry, String>;

const ENVIRONMENT: [(&str, &str); 3] =
    [("LUA_TCP_ALLOW_NET", "net"), ("LUA_TCP_ALLOW_LISTEN", "listen"), ("LUA_TCP_DENY", "deny")];

/// The policy of a state that loads the module, which begins with what the environment says. `Err` names what is wrong
/// with that. `is_marked`: this very state has loaded it before.
pub fn begin(lua: &Lua, id: StateId, is_marked: bool) -> Result<(), String> {
    let mut policies = lock(&POLICIES);
    if policies.get(&id).is_some_and(|known| known.seems_closed && !is_marked) {
        policies.remove(&id);
    }
    let policy = match policies.get(&id) {
        Some(known) => known.policy.clone(),
        None => {
            let policy = Policy::default();
            policy.add(from_environment()?);
            policies.insert(id, Known { policy: policy.clone(), seems_closed: false });
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

/// See `Known::seems_closed`.
pub fn note_close(id: StateId) {
    if let Some(known) = lock(&POLICIES).get_mut(&id) {
        known.seems_closed = true;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Step: adds a layer, all of it or nothing.
fn allow(lua: &Lua, (rules, extra): (Value, Value)) -> mlua::Result<Reply<Nothing>> {
    let layer = match (&rules, &extra) {
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
            name => set_list(&mut layer, name, list(lua, place, value, parser(name))?),
        }
        Ok(())
    })?;
    Ok(layer)
}

fn set_list(layer: &mut Layer, name: &str, entries: Vec<Entry>) {
    let list = match name {
        "net" => &mut layer.net,
        "listen" => &mut layer.listen,
        _ => &mut layer.deny,
    };
    *list = Some(entries);
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
            return Err(place.expected(&format!("string as entry {at}"), &value));
        };
        let text = place.text(lua, &value).map_err(|_| place.misuse(format!("entry {at} is not UTF-8")))?;
        parse(&text).map_err(|problem| place.misuse(format!("entry {at}, '{text}': {problem}")))
    };
    (1..=length).map(entry).collect()
}

/// `Err` names the variable and the entry.
fn from_environment() -> Result<Layer, String> {
    let mut layer = Layer::default();
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
        set_list(&mut layer, name, entries);
    }
    Ok(layer)
}
