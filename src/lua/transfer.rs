//! Files and pipes for `send_file` and `tcp.copy`: what the embedded Lua cannot do itself.

use std::cell::RefCell;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;

use mlua::AnyUserData;
use mlua::Integer;
use mlua::Lua;
use mlua::LuaString;
use mlua::Table;
use mlua::UserDataRef;
use mlua::UserDataRefMut;
use mlua::Value;

use crate::error::Error;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::each_option;
use crate::lua::connection::Connection;
use crate::lua::connection::Receiver;
use crate::lua::connection::reading;
use crate::lua::connection::receiver;
use crate::lua::policy;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Reply;
use crate::lua::writing;
use crate::net::connection::Body;
use crate::net::connection::Cut;
use crate::net::connection::Written;
use crate::net::transfer;
use crate::net::transfer::Part;
use crate::sys::file;

/// Filled and emptied again and again by one copy; without it once that has ended.
struct Pipe(Rc<RefCell<transfer::Pipe>>);

/// Adds to `core`: `send_file`, `copy_file` and `send_piped`, first steps of writes; `pipe`, `pipe_in`, `left_in_pipe`,
/// `take_back` and `close_pipe`; `put_back`, `can_be_piped` and `is_connection`; and `copy_options`.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.raw_set("send_file", reply::function(lua, send_file)?)?;
    core.raw_set("send_piped", reply::function(lua, send_piped)?)?;
    core.raw_set("copy_file", reply::function(lua, copy_file)?)?;
    core.raw_set("copy_options", reply::function(lua, copy_options)?)?;
    register_pipes(lua, core)?;
    let put_back = |_: &Lua, (mut it, bytes): (UserDataRefMut<Connection>, LuaString)| {
        Ok(it.net.put_back(&bytes.as_bytes()).is_ok())
    };
    core.raw_set("put_back", lua.create_function(put_back)?)?;
    let can = |_: &Lua, it: UserDataRef<Connection>| Ok(it.net.can_be_piped());
    core.raw_set("can_be_piped", lua.create_function(can)?)?;
    let is_connection = |_: &Lua, it: Value| Ok(it.as_userdata().is_some_and(|it| it.is::<Connection>()));
    core.raw_set("is_connection", lua.create_function(is_connection)?)
}

fn register_pipes(lua: &Lua, core: &Table) -> mlua::Result<()> {
    // Nil where there are none, or no descriptors for one.
    let pipe = |lua: &Lua, ()| {
        let pipe = transfer::Pipe::new().ok();
        pipe.map(|pipe| lua.create_any_userdata(Pipe(Rc::new(RefCell::new(pipe))))).transpose()
    };
    core.raw_set("pipe", reply::maker(lua, pipe)?)?;
    // Step: fills a pipe, and gives how much is in it; false: this has to go another way.
    reading(lua, core, "pipe_in", "copy", 2, |it, call, _| {
        let count = call.size(1, 1)?;
        let pipe = match call.argument(2) {
            (_, Value::UserData(pipe)) => pipe.borrow::<Pipe>()?,
            (place, other) => return Err(place.expected("pipe", other).into()),
        };
        let step = it.pipe_in(count, &mut pipe.0.borrow_mut())?;
        Ok(step.map(|count| count.map_or(Value::Boolean(false), |count| Value::Integer(count as Integer))))
    })?;
    let left = |_: &Lua, it: UserDataRef<Pipe>| Ok(it.0.borrow().left());
    core.raw_set("left_in_pipe", lua.create_function(left)?)?;
    // What is left in a pipe.
    let take_back = |lua: &Lua, it: UserDataRef<Pipe>| {
        let bytes = it.0.borrow_mut().take_back().unwrap_or_default();
        lua.create_string(bytes)
    };
    core.raw_set("take_back", reply::maker(lua, take_back)?)?;
    // At once: it has two descriptors.
    let close = |_: &Lua, it: AnyUserData| it.take::<Pipe>().map(drop);
    core.raw_set("close_pipe", lua.create_function(close)?)
}

/// Step: the first of sending part of a file, by its path, or by the `number` of a Lua file that stands at `position`.
/// nil: that is no regular file.
fn send_file(
    lua: &Lua,
    (it, path, first, count, number, position): (Receiver, Value, Value, Value, Option<i32>, Option<u64>),
) -> mlua::Result<Reply<Option<usize>>> {
    const OP: &str = "send_file";
    let mut it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let part = || -> Result<Option<Part>, Failure> {
        let path = if number.is_none() { path_of(&path, &first)? } else { PathBuf::new() };
        let (offset, count) = range(lua, position, &first, &count)?;
        let file = match number {
            Some(number) => of_number(number)?,
            None => Some(opened(lua, &path)?),
        };
        Ok(file.map(|file| Part::of(file, offset, count)))
    };
    match part() {
        Ok(Some(part)) => {
            let written = it.net.write_body(Body::Part(Box::new(part)), Cut::EndsOutput);
            written_reply(lua, &it, written, OP)
        }
        Ok(None) => Ok(reply::done(None)),
        Err(failure) => reply::failed_on(lua, failure.of_write(), OP, &it),
    }
}

/// Step: the first of copying part of an open file, which may be continued where it was given up.
fn copy_file(
    lua: &Lua,
    (it, number, position, count): (Receiver, i32, u64, u64),
) -> mlua::Result<Reply<Option<usize>>> {
    const OP: &str = "copy";
    let mut it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    match of_number(number) {
        Ok(Some(file)) => {
            let part = Part::of(file, position, Some(count));
            let written = it.net.write_body(Body::Part(Box::new(part)), Cut::MayContinue);
            written_reply(lua, &it, written, OP)
        }
        Ok(None) => Ok(reply::done(None)),
        Err(failure) => reply::failed_on(lua, failure.of_write(), OP, &it),
    }
}

/// Where the bytes begin, and how many they are.
fn range(
    lua: &Lua,
    position: Option<u64>,
    first: &Value,
    count: &Value,
) -> Result<(u64, Option<u64>), Failure> {
    let offset = match first {
        Value::Nil => position.unwrap_or_default(),
        first => Place::Argument(2).size(lua, first, 1)? as u64 - 1,
    };
    let count = match count {
        Value::Nil => None,
        count => match Place::Argument(3).limit(lua, count, 0)? {
            usize::MAX => None,
            count => Some(count as u64),
        },
    };
    Ok((offset, count))
}

/// Another descriptor of a Lua file's open file. `None` for what is no regular file.
fn of_number(number: i32) -> Result<Option<File>, Failure> {
    let open = || file::is_regular(number)?.then(|| file::of_number(number)).transpose();
    Ok(open().map_err(|error| Error::from_file("the file cannot be read", &error))?)
}

fn path_of(path: &Value, next: &Value) -> Result<PathBuf, Misuse> {
    let place = Place::Argument(1);
    match (path, next) {
        (Value::String(path), _) => Ok(file::path(&path.as_bytes())),
        // `send_file(io.open(path))`
        (Value::Nil, Value::String(problem)) => {
            let problem = problem.to_string_lossy();
            Err(place.misuse(format!("path or open file expected, got nil: {problem}")))
        }
        (other, _) => Err(place.expected("path or open file", other)),
    }
}

fn opened(lua: &Lua, path: &Path) -> Result<File, Failure> {
    policy::of(lua).check_files()?;
    let open = file::open(path);
    Ok(open.map_err(|error| Error::from_file(&format!("{} cannot be opened", path.display()), &error))?)
}

/// Step: the first of sending what is in a pipe. One that is given up may be continued: the rest goes back to where it
/// came from.
fn send_piped(lua: &Lua, (it, pipe): (Receiver, UserDataRef<Pipe>)) -> mlua::Result<Reply<Option<usize>>> {
    const OP: &str = "copy";
    let mut it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let written = it.net.write_body(Body::Piped(Rc::clone(&pipe.0)), Cut::MayContinue);
    written_reply(lua, &it, written, OP)
}

fn written_reply(
    lua: &Lua,
    it: &Connection,
    written: Result<Written, Error>,
    op: &str,
) -> mlua::Result<Reply<Option<usize>>> {
    match written {
        Ok(Written::Whole(sent)) => Ok(reply::done(Some(sent))),
        Ok(Written::Queued(ticket, interest)) => {
            Ok(reply::waiting(lua, interest, writing::expiry(&it.net), Value::Integer(ticket as Integer)))
        }
        Err(error) => reply::failed_on(lua, error.of_write().into(), op, it),
    }
}

/// Step: checks the options of `copy`; gives the limit, or nothing.
fn copy_options(lua: &Lua, options: Value) -> mlua::Result<Reply<Option<f64>>> {
    let parse = || -> Result<Option<f64>, Misuse> {
        let mut limit = None;
        match &options {
            Value::Nil => {}
            Value::Table(table) => each_option(table, &["limit", "progress"], |name, value| {
                let place = Place::Option(name);
                match name {
                    "limit" => {
                        limit = match place.limit(lua, value, 0)? {
                            usize::MAX => None,
                            most => Some(most as f64),
                        };
                    }
                    _ if value.is_function() => {}
                    _ => return Err(place.expected("function", value)),
                }
                Ok(())
            })?,
            other => return Err(Place::Argument(3).expected("table (options)", other)),
        }
        Ok(limit)
    };
    reply::settled(lua, parse().map_err(Failure::Misuse), "copy", || None)
}
