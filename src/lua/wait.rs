//! Waiting, as the embedded Lua asks for it: one blocking wait, the clock, and the error when time is up.

use std::sync::LazyLock;
use std::time::Duration;
use std::time::Instant;

use mlua::AnyUserData;
use mlua::Integer;
use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::lua::args::Place;
use crate::lua::connection::Connection;
use crate::lua::dial::Dial;
use crate::lua::reply;
use crate::step::Interest;
use crate::sys::poller;
use crate::sys::poller::Source;
use crate::sys::poller::Woken;

/// Codes of what is awaited.
pub const READ: Integer = 0;
pub const WRITE: Integer = 1;

/// How a wait ended: `wait.lua` compares with these.
const READY: Integer = 0;
const TIMED_OUT: Integer = 1;
const EARLY: Integer = 2;

/// Where Lua keeps its main thread in the registry (LUA_RIDX_MAINTHREAD).
const MAIN_THREAD_KEY: Option<Integer> = if cfg!(feature = "lua55") {
    Some(3)
} else if cfg!(any(feature = "lua52", feature = "lua53", feature = "lua54")) {
    Some(1)
} else {
    None
};

/// Zero of `tcp.now`. Every state reads the same clock; nothing is kept in it.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    // Raw: the script may have taken it away, and forbidden globals that are not there.
    core.raw_set("debug", lua.globals().raw_get::<Value>("debug")?)?;
    core.raw_set("hooks_are_shared", cfg!(feature = "luajit"))?;
    core.raw_set("main_thread_key", MAIN_THREAD_KEY)?;
    LazyLock::force(&EPOCH);
    core.raw_set("now", lua.create_function(|_, ()| Ok(EPOCH.elapsed().as_secs_f64()))?)?;
    core.raw_set("block", lua.create_function(block)?)?;
    core.raw_set("timed_out", lua.create_function(timed_out)?)?;
    core.raw_set("sleep", lua.create_function(sleep)?)?;
    core.raw_set("current_thread", lua.create_function(|lua, ()| Ok(lua.current_thread()))?)
}

pub fn to_seconds(deadline: Deadline) -> Option<f64> {
    deadline.moment().map(|at| at.saturating_duration_since(*EPOCH).as_secs_f64())
}

fn from_seconds(expiry: Option<f64>) -> Deadline {
    let since_epoch = expiry.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    since_epoch.map_or(Deadline::NEVER, |since| Deadline::after(*EPOCH, Some(since)))
}

/// Blocks until `target` (a connection, a dial, or nil for a plain sleep) is worth another step, or until
/// `expiry`. A time that is over is not waited for at all.
fn block(_: &Lua, (target, interest, expiry): (Value, Integer, Option<f64>)) -> mlua::Result<Integer> {
    let (now, expiry) = (Instant::now(), from_seconds(expiry));
    if expiry.passed(now) {
        return Ok(TIMED_OUT);
    }
    let Value::UserData(target) = target else { return poll(&[], expiry, Deadline::NEVER) };
    if let Ok(dial) = target.borrow::<Dial>() {
        return poll(&dial.0.sources(), expiry, dial.0.wake(now));
    }
    let connection = target.borrow::<Connection>()?;
    let interest = if interest == WRITE { Interest::Write } else { Interest::Read };
    match connection.net.descriptor() {
        Some(fd) => poll(&[Source { fd, interest }], expiry, Deadline::NEVER),
        None => Ok(READY),
    }
}

fn poll(sources: &[Source<'_>], expiry: Deadline, wake: Deadline) -> mlua::Result<Integer> {
    Ok(match poller::wait(sources, expiry.earliest(wake)) {
        Ok(Woken::Ready) => READY,
        Ok(Woken::TimedOut) if expiry.passed(Instant::now()) => TIMED_OUT,
        Ok(Woken::TimedOut) => READY,
        Ok(Woken::Early) => EARLY,
        // The descriptor itself is at fault; the next step will say how.
        Err(_) => READY,
    })
}

/// Step: the error of an operation on `target` whose time is up.
fn timed_out(lua: &Lua, (target, op): (AnyUserData, String)) -> mlua::Result<Table> {
    if let Ok(mut dial) = target.borrow_mut::<Dial>() {
        let error = dial.0.expire();
        return super::failure::object(lua, &error, &op, Some(dial.0.peer()));
    }
    let peer = target.borrow::<Connection>()?.net.peer();
    let error = Error::new(Kind::Timeout, "timed out");
    let error = if op == "send_some" { error.of_write() } else { error };
    super::failure::object(lua, &error, &op, Some(peer))
}

/// Step: when a sleep that begins now ends.
fn sleep(lua: &Lua, seconds: Value) -> mlua::Result<reply::Reply<Value>> {
    let expiry = Place::Argument(1)
        .seconds(lua, &seconds)
        .map(|limit| to_seconds(Deadline::after(Instant::now(), limit)).map_or(Value::Nil, Value::Number));
    reply::settled(lua, expiry.map_err(reply::Failure::Misuse), "sleep", || None)
}
