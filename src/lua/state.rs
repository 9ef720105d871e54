//! The methods of a connection that tell its state or change it: none of them waits.

use std::net::Shutdown;
use std::time::Duration;
use std::time::Instant;

use mlua::AnyUserData;
use mlua::Either;
use mlua::Integer;
use mlua::Lua;
use mlua::Table;
use mlua::UserDataRef;
use mlua::Value;

use crate::address::Address;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::connection::Call;
use crate::lua::connection::Connection;
use crate::lua::connection::Receiver;
use crate::lua::connection::Remains;
use crate::lua::connection::instant;
use crate::lua::connection::query;
use crate::lua::connection::receiver;
use crate::lua::failure;
use crate::lua::legacy;
use crate::lua::options;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Nothing;
use crate::lua::reply::Reply;
use crate::net::connection::Ticket;
use crate::net::connection::Time;
use crate::net::remains::PATIENCE;
use crate::step::Interest;
use crate::step::Step;

/// Adds to `core`: `plain`, methods that the world cannot make fail, and `fallible`, those that it can.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    let plain = lua.create_table()?;
    ends(lua, &plain)?;
    times(lua, &plain)?;
    foreign_loops(lua, &plain)?;
    query(lua, &plain, "is_closed", |it: &mut Connection| it.net.is_closed())?;
    query(lua, &plain, "is_tls", |it: &mut Connection| it.net.is_tls())?;
    query(lua, &plain, "buffered", |it: &mut Connection| it.net.buffered())?;
    core.raw_set("plain", plain)?;
    query(lua, core, "peer", |it: &mut Connection| it.net.peer())?;
    // If so, what stands for it in `origins`.
    query(lua, core, "has_left", |it: &mut Connection| it.net.has_left().then(|| failure::identity(it)))?;
    closing(lua, core)?;

    let fallible = lua.create_table()?;
    instant(lua, &fallible, "set_option", |lua, it, [name, value, _]| {
        let name = option_name(lua, &name)?;
        set_option(lua, it, name, &value)?;
        Ok(Nothing::None)
    })?;
    instant(lua, &fallible, "get_option", |lua, it, [name, ..]| {
        let name = option_name(lua, &name)?;
        option(lua, it, name)
    })?;
    core.raw_set("fallible", fallible)?;
    core.raw_set("handshake", reply::function(lua, handshake)?)?;
    core.raw_set("shutdown", reply::function(lua, shutdown)?)
}

/// Step: while it waits, `more` is the ticket of a write that comes first.
fn handshake(lua: &Lua, (it, options): (Receiver, Value)) -> mlua::Result<Reply<Nothing>> {
    const OP: &str = "handshake";
    let both = receiver(it).and_then(|it| Ok((it, Call::new(lua, [options, Value::Nil, Value::Nil], 0)?)));
    let (mut it, call) = match both {
        Ok(both) => both,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    if !it.net.is_tls() {
        return reply::failed(lua, Misuse::plain().into(), OP, None);
    }
    match it.net.begin_handshake() {
        Ok(None) => Ok(reply::done(Nothing::None)),
        Ok(Some((ticket, interest))) => {
            let limit = call.timeout.unwrap_or(it.net.reading.timeout);
            let expiry = it.net.reading.expiry(limit);
            Ok(reply::waiting(lua, interest, expiry, Value::Integer(ticket as Integer)))
        }
        Err(error) => reply::failed_on(lua, error.without_written().into(), OP, &it),
    }
}

/// Step: behind the writes that are queued, if the sending side is to end. While it waits, `more` is the ticket; once
/// it `has_waited`, it comes before the writes that were called after it.
fn shutdown(lua: &Lua, (it, direction, has_waited): (Receiver, Value, bool)) -> mlua::Result<Reply<Nothing>> {
    const OP: &str = "shutdown";
    let mut it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let words = [("send", Shutdown::Write), ("recv", Shutdown::Read), ("both", Shutdown::Both)];
    let direction = match Place::Argument(1).word(lua, &direction, &words) {
        Ok(direction) => direction,
        Err(misuse) => return reply::failed(lua, misuse.into(), OP, None),
    };
    match end_output(&mut it, direction, has_waited) {
        Ok(None) => {}
        Ok(Some((ticket, interest))) => {
            let expiry = it.net.writing.expiry(it.net.writing.timeout);
            return Ok(reply::waiting(lua, interest, expiry, Value::Integer(ticket as Integer)));
        }
        Err(error) => return reply::failed_on(lua, error.without_written().into(), OP, &it),
    }
    let done = it.net.shutdown(direction).map(|()| Nothing::None);
    reply::settled_on(lua, done.map_err(Failure::World), OP, &it)
}

fn end_output(
    it: &mut Connection,
    direction: Shutdown,
    has_waited: bool,
) -> Result<Option<(Ticket, Interest)>, Error> {
    if direction == Shutdown::Read || it.net.is_closed() {
        return Ok(None);
    }
    if !has_waited && let Some(wait) = it.net.follow_writes()? {
        return Ok(Some(wait));
    }
    // TLS has a last word, which has to leave before the end of the stream.
    it.net.end_output();
    if it.net.has_unsent() { it.net.follow_writes() } else { Ok(None) }
}

/// Adds to `core`: `close`, and what goes on with what is left of a connection.
fn closing(lua: &Lua, core: &Table) -> mlua::Result<()> {
    instant(lua, core, "close", |lua, it, _| {
        legacy::forget(lua, it)?;
        let remains = it.net.close();
        Ok(remains.map(|it| lua.create_any_userdata(Remains(it))).transpose()?)
    })?;
    // Where the loop tells of it, if it is watched; nil for anything else.
    let slot =
        |_: &Lua, it: Either<UserDataRef<Connection>, Value>| Ok(it.left().and_then(|it| it.net.slot()));
    core.raw_set("slot", lua.create_function(slot)?)?;
    core.raw_set("patience", PATIENCE.as_secs_f64())?;
    core.raw_set(
        "discard",
        lua.create_function(|lua, it: AnyUserData| match it.borrow_mut::<Remains>()?.0.step() {
            Step::Ready(()) => Ok(reply::done(Nothing::None)),
            Step::Wait(interest) => Ok(reply::waiting(lua, interest, Deadline::NEVER, Value::Nil)),
        })?,
    )?;
    // Closes for good, at once.
    core.raw_set("drop", lua.create_function(|_, it: AnyUserData| it.take::<Remains>().map(drop))?)
}

fn ends(lua: &Lua, plain: &Table) -> mlua::Result<()> {
    query(lua, plain, "host", |it: &mut Connection| it.net.ends().host())?;
    query(lua, plain, "port", |it: &mut Connection| it.net.ends().port())?;
    query(lua, plain, "local_host", |it: &mut Connection| it.net.ends().local.host())?;
    query(lua, plain, "local_port", |it: &mut Connection| it.net.ends().local.port())?;
    query(lua, plain, "local_addr", |it: &mut Connection| Address::to_string(&it.net.ends().local))?;
    query(lua, plain, "remote_addr", |it: &mut Connection| Address::to_string(&it.net.ends().remote))
}

fn times(lua: &Lua, plain: &Table) -> mlua::Result<()> {
    instant(lua, plain, "set_timeout", |lua, it, [time, ..]| {
        let time = timeout(lua, &time)?;
        it.net.reading.timeout = time;
        it.net.writing.timeout = time;
        Ok(Nothing::None)
    })?;
    instant(lua, plain, "set_read_timeout", |lua, it, [time, ..]| {
        it.net.reading.timeout = timeout(lua, &time)?;
        Ok(Nothing::None)
    })?;
    instant(lua, plain, "set_write_timeout", |lua, it, [time, ..]| {
        it.net.writing.timeout = timeout(lua, &time)?;
        Ok(Nothing::None)
    })?;
    instant(lua, plain, "set_deadline", |lua, it, [time, ..]| {
        let moment = deadline(lua, &time)?;
        it.net.reading.deadline = moment;
        it.net.writing.deadline = moment;
        Ok(Nothing::None)
    })?;
    instant(lua, plain, "set_read_deadline", |lua, it, [time, ..]| {
        it.net.reading.deadline = deadline(lua, &time)?;
        Ok(Nothing::None)
    })?;
    instant(lua, plain, "set_write_deadline", |lua, it, [time, ..]| {
        it.net.writing.deadline = deadline(lua, &time)?;
        Ok(Nothing::None)
    })?;
    let seconds = |time: &Time| time.timeout.map(|time| time.as_secs_f64());
    query(lua, plain, "read_timeout", move |it: &mut Connection| seconds(&it.net.reading))?;
    query(lua, plain, "write_timeout", move |it: &mut Connection| seconds(&it.net.writing))
}

/// What cqueues and other loops ask of an object that they poll.
fn foreign_loops(lua: &Lua, plain: &Table) -> mlua::Result<()> {
    query(lua, plain, "pollfd", |it: &mut Connection| it.net.raw())?;
    query(lua, plain, "events", |it: &mut Connection| {
        match (it.net.waits_for(Interest::Read), it.net.waits_for(Interest::Write)) {
            (true, true) => Some("rw"),
            (true, false) => Some("r"),
            (false, true) => Some("w"),
            (false, false) => None,
        }
    })?;
    query(lua, plain, "timeout", |it: &mut Connection| {
        let nearest = it.net.nearest_deadline();
        nearest.remaining(Instant::now()).map(|left| left.as_secs_f64())
    })
}

/// nil and infinity are no limit.
fn timeout(lua: &Lua, time: &Value) -> Result<Option<Duration>, Misuse> {
    match time {
        Value::Nil => Ok(None),
        time => Place::Argument(1).seconds(lua, time),
    }
}

fn deadline(lua: &Lua, time: &Value) -> Result<Deadline, Misuse> {
    Ok(Deadline::after(Instant::now(), timeout(lua, time)?))
}

const OPTIONS: [&str; 11] = [
    "keepalive",
    "linger",
    "max_json",
    "max_line",
    "max_packet",
    "newline",
    "nodelay",
    "packet_endian",
    "recv_buffer",
    "send_buffer",
    "user_timeout",
];

fn option_name(lua: &Lua, name: &Value) -> Result<&'static str, Misuse> {
    let place = Place::Argument(1);
    let name = place.text(lua, name)?;
    let known = OPTIONS.iter().find(|known| **known == name);
    known.copied().ok_or_else(|| place.unknown_option(&name, &OPTIONS))
}

fn set_option(lua: &Lua, it: &mut Connection, name: &'static str, value: &Value) -> Result<(), Failure> {
    if options::set_format(lua, &mut it.net.format, name, value)? {
        return Ok(());
    }
    let place = Place::Option(name);
    // What is wrong with the value is told before what is wrong with the connection.
    let socket = it.net.socket();
    let set = match name {
        "nodelay" => {
            let on = place.boolean(value)?;
            socket?.set_nodelay(on)
        }
        "keepalive" => {
            let keepalive = options::keepalive(lua, place, value)?;
            socket?.set_keepalive(keepalive)
        }
        "linger" => {
            let time = off_or_seconds(lua, place, value, Duration::from_secs(1))?;
            socket?.set_linger(time)
        }
        "user_timeout" => {
            let time = off_or_seconds(lua, place, value, Duration::from_millis(1))?;
            socket?.set_user_timeout(time)
        }
        "recv_buffer" => {
            let bytes = place.int(lua, value, 1)?;
            socket?.set_recv_buffer(bytes)
        }
        _ => {
            let bytes = place.int(lua, value, 1)?;
            socket?.set_send_buffer(bytes)
        }
    };
    set.map_err(|error| Error::from_io(&error).into())
}

/// `false` switches off.
fn off_or_seconds(
    lua: &Lua,
    place: Place<'_>,
    value: &Value,
    unit: Duration,
) -> Result<Option<Duration>, Misuse> {
    match value {
        Value::Boolean(false) => Ok(None),
        Value::Integer(_) | Value::Number(_) | Value::String(_) => {
            place.coarse_seconds(lua, value, unit).map(Some)
        }
        other => Err(place.expected("false or number (seconds)", other)),
    }
}

fn option(lua: &Lua, it: &mut Connection, name: &'static str) -> Result<Value, Failure> {
    let format = &it.net.format;
    let number = |count: usize| i64::try_from(count).map_or(Value::Number(f64::INFINITY), integer);
    match name {
        "newline" => return Ok(Value::String(lua.create_string(&format.newline)?)),
        "max_line" => return Ok(number(format.max_line)),
        "max_packet" => return Ok(number(format.max_packet)),
        "max_json" => return Ok(number(format.max_json)),
        "packet_endian" => {
            let words = options::ENDIANS.iter();
            let word = words.filter(|(_, endian)| *endian == format.packet_endian).map(|(word, _)| *word);
            return Ok(Value::String(lua.create_string(word.collect::<String>())?));
        }
        _ => {}
    }
    let socket = it.net.socket()?;
    let seconds = |time: Option<Duration>| match time {
        Some(time) => Value::Number(time.as_secs_f64()),
        None => Value::Boolean(false),
    };
    let value = match name {
        "nodelay" => socket.nodelay().map(Value::Boolean),
        "keepalive" => socket.keepalive().map(seconds),
        "linger" => socket.linger().map(seconds),
        "user_timeout" => socket.user_timeout().map(seconds),
        "recv_buffer" => socket.recv_buffer().map(number),
        _ => socket.send_buffer().map(number),
    };
    value.map_err(|error| Error::from_io(&error).into())
}

/// An integer of this Lua, or where it has none a number.
fn integer(value: i64) -> Value {
    Integer::try_from(value).map_or(Value::Number(value as f64), Value::Integer)
}
