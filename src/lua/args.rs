//! Arguments and options, taken as Lua's own functions take them, and what is said when they are wrong.

use std::fmt::Display;
use std::time::Duration;

use mlua::Lua;
use mlua::LuaString;
use mlua::Table;
use mlua::Value;

use crate::lua::connection::Connection;
use crate::lua::connection::Named;
use crate::lua::listener::Listener;
use crate::lua::udp::UdpSocket;

/// A script's mistake: the text before and after the name of the function, which the embedded Lua knows.
#[derive(Debug)]
pub struct Misuse {
    pub before: String,
    pub after: String,
}

impl Misuse {
    /// With what the script may have meant.
    pub fn hinting(mut self, hint: impl Display) -> Self {
        let end = self.after.len() - 1;
        self.after.insert_str(end, &format!("; {hint}"));
        self
    }

    /// Something other than `expected` stands before the colon.
    pub fn receiver(expected: &str, got: &Value) -> Self {
        let got = type_name(got);
        let after = format!("' ({expected} expected, got {got}; use ':')");
        Self { before: "bad self to '".into(), after }
    }

    /// The connection before the colon has no TLS.
    pub fn plain() -> Self {
        let after = "' (connection with TLS expected, got a plain one)".into();
        Self { before: "bad self to '".into(), after }
    }

    /// The connection before the colon has TLS already.
    pub fn secure() -> Self {
        let after = "' (plain connection expected, got one with TLS)".into();
        Self { before: "bad self to '".into(), after }
    }
}

/// Where a value comes from: the way in which a mistake with it is told.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// Counted from 1, without self.
    Argument(usize),
    Option(&'a str),
}

impl Place<'_> {
    pub fn misuse(self, problem: impl Display) -> Misuse {
        let before = match self {
            Place::Argument(position) => format!("bad argument #{position} to '"),
            Place::Option(name) => format!("bad option '{name}' to '"),
        };
        Misuse { before, after: format!("' ({problem})") }
    }

    pub fn expected(self, what: &str, got: &Value) -> Misuse {
        self.misuse(format!("{what} expected, got {}", given(got)))
    }

    /// Of an argument that names an option.
    pub fn unknown_option(self, name: &str, known: &[&str]) -> Misuse {
        let hint = match nearest(name, known) {
            Some(meant) => did_you_mean(meant),
            None => format!("known are {}", known.join(", ")),
        };
        self.misuse(format!("unknown option '{name}'; {hint}"))
    }

    pub fn number(self, lua: &Lua, value: &Value) -> Result<f64, Misuse> {
        match value {
            Value::Integer(it) => Ok(*it as f64),
            Value::Number(it) => Ok(*it),
            Value::String(_) => match lua.coerce_number(value.clone()) {
                Ok(Some(it)) => Ok(it),
                _ => Err(self.expected("number", value)),
            },
            _ => Err(self.expected("number", value)),
        }
    }

    pub fn whole(self, lua: &Lua, value: &Value) -> Result<f64, Misuse> {
        let number = self.number(lua, value)?;
        if number.fract() != 0.0 || !number.is_finite() {
            return Err(self.misuse("number has no integer representation"));
        }
        Ok(number)
    }

    /// A whole number of at least `least`.
    pub fn size(self, lua: &Lua, value: &Value, least: usize) -> Result<usize, Misuse> {
        let number = self.whole(lua, value)?;
        if number < least as f64 {
            return Err(self.misuse(format!("number of at least {least} expected, got {}", shown(number))));
        }
        Ok(number as usize)
    }

    /// As `size`, with infinity for no limit.
    pub fn limit(self, lua: &Lua, value: &Value, least: usize) -> Result<usize, Misuse> {
        match self.number(lua, value)? {
            f64::INFINITY => Ok(usize::MAX),
            _ => self.size(lua, value, least),
        }
    }

    /// A size that the system counts in a C int.
    pub fn int(self, lua: &Lua, value: &Value, least: usize) -> Result<usize, Misuse> {
        match self.size(lua, value, least)? {
            size if i32::try_from(size).is_ok() => Ok(size),
            size => Err(self.misuse(format!("number of at most {} expected, got {size}", i32::MAX))),
        }
    }

    /// Seconds that the system counts in units of `unit` in a C int, rounded up: a little is not nothing.
    pub fn coarse_seconds(self, lua: &Lua, value: &Value, unit: Duration) -> Result<Duration, Misuse> {
        let time = self.seconds(lua, value)?.unwrap_or(Duration::MAX);
        let units = i32::try_from(time.as_nanos().div_ceil(unit.as_nanos()));
        units.map(|units| unit * units.unsigned_abs()).map_err(|_| {
            let most = (unit * i32::MAX.unsigned_abs()).as_secs();
            self.misuse(format!("at most {most} seconds expected"))
        })
    }

    /// Seconds; `None`, which is infinity, is no limit.
    pub fn seconds(self, lua: &Lua, value: &Value) -> Result<Option<Duration>, Misuse> {
        let seconds = self.number(lua, value)?;
        if seconds.is_nan() || seconds < 0.0 {
            return Err(self.misuse(format!("seconds expected, 0 or more, got {}", shown(seconds))));
        }
        Ok(Duration::try_from_secs_f64(seconds).ok())
    }

    pub fn boolean(self, value: &Value) -> Result<bool, Misuse> {
        value.as_boolean().ok_or_else(|| self.expected("boolean", value))
    }

    /// A string, or a number as its text.
    pub fn string(self, lua: &Lua, value: &Value) -> Result<LuaString, Misuse> {
        match value {
            Value::String(it) => Ok(it.clone()),
            Value::Integer(_) | Value::Number(_) => {
                let text = lua.coerce_string(value.clone());
                text.ok().flatten().ok_or_else(|| self.expected("string", value))
            }
            _ => Err(self.expected("string", value)),
        }
    }

    /// As `string`, for texts that have to be UTF-8.
    pub fn text(self, lua: &Lua, value: &Value) -> Result<String, Misuse> {
        let bytes = self.string(lua, value)?.as_bytes().to_vec();
        String::from_utf8(bytes).map_err(|_| self.misuse("string is not UTF-8"))
    }

    /// One of a few words.
    pub fn word<T: Copy>(self, lua: &Lua, value: &Value, words: &[(&str, T)]) -> Result<T, Misuse> {
        let text = self.text(lua, value)?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => {
                let listed: Vec<_> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
                Err(self.misuse(format!("{} expected, got '{text}'", listed.join(" or "))))
            }
        }
    }
}

/// Hands every option of `table` to `apply`, after its name was found in `known`.
pub fn each_option(
    table: &Table,
    known: &[&'static str],
    apply: impl FnMut(&'static str, &Value) -> Result<(), Misuse>,
) -> Result<(), Misuse> {
    each_option_under(table, "", known, &|_| None, apply)
}

/// The same for a table that is itself an option: the names in `known` begin with `prefix`. What is not known, without
/// the prefix, may have a `hint`.
pub fn each_option_under(
    table: &Table,
    prefix: &str,
    known: &[&'static str],
    hint: &dyn Fn(&str) -> Option<String>,
    mut apply: impl FnMut(&'static str, &Value) -> Result<(), Misuse>,
) -> Result<(), Misuse> {
    // A table's `pairs` here is raw; it fails for want of memory only, and then the rest is not read.
    for (key, value) in table.pairs::<Value, Value>().flatten() {
        let Value::String(key) = &key else {
            let name = key.to_string().unwrap_or_else(|_| type_name(&key).into());
            return Err(unknown_option(&format!("{prefix}{name}"), known));
        };
        let bare = key.to_string_lossy();
        let key = format!("{prefix}{bare}");
        let Some(name) = known.iter().find(|name| **name == key) else {
            return Err(hint(&bare)
                .map_or_else(|| unknown_option(&key, known), |hint| Place::Option(&key).misuse(hint)));
        };
        apply(name, &value)?;
    }
    Ok(())
}

/// What says where an option belongs that is known elsewhere.
pub fn belongs_to(names: &[&'static str]) -> impl Fn(&str) -> Option<String> {
    |bare| {
        let name = names.iter().find(|name| name.rsplit('.').next() == Some(bare))?;
        Some(did_you_mean(name))
    }
}

pub fn did_you_mean(name: &str) -> String {
    format!("did you mean '{name}'?")
}

pub fn unknown_option(name: &str, known: &[&str]) -> Misuse {
    Place::Option(name).misuse(match nearest(name, known) {
        Some(meant) => did_you_mean(meant),
        None => format!("unknown; known are {}", known.join(", ")),
    })
}

/// The word that `text` was probably meant to be.
pub fn nearest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let text = text.to_lowercase();
    let distances = words.iter().map(|word| (strsim::damerau_levenshtein(&text, word), *word));
    distances.min().filter(|(distance, word)| *distance <= 2 && *distance < word.len()).map(|(_, word)| word)
}

/// A function, or what has `__call`.
pub fn is_callable(value: &Value) -> bool {
    let metatable = match value {
        Value::Function(_) => return true,
        Value::Table(table) => table.metatable(),
        Value::UserData(_) => return true,
        _ => None,
    };
    metatable.is_some_and(|it| it.raw_get::<Value>("__call").is_ok_and(|call| !call.is_nil()))
}

/// A number in few digits.
pub fn shown(number: f64) -> String {
    if number.abs() < 1e16 { number.to_string() } else { format!("{number:e}") }
}

/// What stands where something else is expected: the module, as before a colon that should be a dot, or a type.
pub fn given(value: &Value) -> &'static str {
    if is_module(value) { "the module; use '.'" } else { type_name(value) }
}

/// The type as a script knows it.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "number",
        Value::LightUserData(_) => "userdata",
        Value::UserData(it) if it.is::<Connection>() => Connection::NAME,
        Value::UserData(it) if it.is::<Listener>() => Listener::NAME,
        Value::UserData(it) if it.is::<UdpSocket>() => UdpSocket::NAME,
        Value::Other(_) => "cdata",
        other => other.type_name(),
    }
}

/// Whether it is what `require("tcp")` gives.
pub fn is_module(value: &Value) -> bool {
    let Value::Table(table) = value else { return false };
    table.raw_get::<LuaString>("_VERSION").is_ok_and(|it| it.as_bytes().starts_with(b"tcp "))
}
