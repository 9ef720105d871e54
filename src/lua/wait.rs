//! Waiting without tasks, as the embedded Lua asks for it: one blocking wait, and the clock.

use std::os::fd::BorrowedFd;
use std::sync::LazyLock;
use std::time::Duration;
use std::time::Instant;

use mlua::Integer;
use mlua::Lua;
use mlua::Number;
use mlua::Table;
use mlua::Value;

use crate::deadline::Deadline;
use crate::lua::args::Place;
use crate::lua::connection::Connection;
use crate::lua::dial::Dial;
use crate::lua::file::SlowFile;
use crate::lua::listener::Listen;
use crate::lua::listener::Listener;
use crate::lua::reactor;
use crate::lua::reply;
use crate::lua::resolve::Resolve;
use crate::lua::udp::Opening;
use crate::lua::udp::UdpSocket;
use crate::net;
use crate::step::Interest;
use crate::sys::poller;
use crate::sys::poller::Source;
use crate::sys::poller::Woken;

/// The code of what is awaited: wait.lua knows them, too.
pub fn code(interest: Interest) -> Integer {
    match interest {
        Interest::Read => 0,
        Interest::Write => 1,
        Interest::Pass => 2,
        Interest::Turn => 3,
    }
}

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
    core.raw_set("cut", reply::maker(lua, reactor::cut)?)?;
    core.raw_set("moment", reply::function(lua, moment)?)?;
    core.raw_set("current_thread", lua.create_function(|lua, ()| Ok(lua.current_thread()))?)
}

pub fn to_seconds(deadline: Deadline) -> Option<f64> {
    deadline.moment().map(|at| at.saturating_duration_since(*EPOCH).as_secs_f64())
}

pub fn from_seconds(expiry: Option<f64>) -> Deadline {
    let since_epoch = expiry.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    since_epoch.map_or(Deadline::NEVER, |since| Deadline::after(*EPOCH, Some(since)))
}

/// Blocks until `target` (a connection, a listener, one of them in the making, or nil for a plain sleep) is worth
/// another step, or until `expiry`. A time that is over is not waited for at all.
fn block(_: &Lua, (target, interest, expiry): (Value, Integer, Option<f64>)) -> mlua::Result<Integer> {
    let (now, expiry) = (Instant::now(), from_seconds(expiry));
    if expiry.passed(now) {
        return Ok(TIMED_OUT);
    }
    let Value::UserData(target) = target else { return poll(&[], expiry, Deadline::NEVER) };
    if let Ok(dial) = target.borrow::<Dial>() {
        return poll(&dial.net.sources(), expiry, dial.net.wake(now));
    }
    let fd = |fd: Option<BorrowedFd<'_>>, interests: &[Interest], wake| match fd {
        Some(fd) => {
            let sources: Vec<_> = interests.iter().map(|&interest| Source { fd, interest }).collect();
            poll(&sources, expiry, wake)
        }
        None => Ok(READY),
    };
    if let Ok(listener) = target.borrow::<Listener>() {
        return fd(listener.net.descriptor(), &[Interest::Read], Deadline::NEVER);
    }
    if let Ok(socket) = target.borrow::<UdpSocket>() {
        let interest = if interest == code(Interest::Write) { Interest::Write } else { Interest::Read };
        return fd(socket.net.descriptor(), &[interest], Deadline::NEVER);
    }
    let look_up = |resolve: Option<&mut net::resolve::Resolve>| {
        fd(resolve.as_ref().and_then(|it| it.descriptor()), &[Interest::Read], Deadline::NEVER)
    };
    if let Ok(mut listen) = target.borrow_mut::<Listen>() {
        return look_up(listen.net.resolve());
    }
    if let Ok(mut opening) = target.borrow_mut::<Opening>() {
        return look_up(opening.net.resolve());
    }
    if let Ok(mut resolve) = target.borrow_mut::<Resolve>() {
        return look_up(Some(&mut resolve.net));
    }
    if let Ok(file) = target.borrow::<SlowFile>() {
        let interest = if interest == code(Interest::Write) { Interest::Write } else { Interest::Read };
        return fd(Some(file.net.descriptor()), &[interest], Deadline::NEVER);
    }
    let net = &target.borrow::<Connection>()?.net;
    let interests: &[_] = match interest == code(Interest::Write) {
        true => &[Interest::Write],
        false if net.has_unsent() => &[Interest::Read, Interest::Write],
        false => &[Interest::Read],
    };
    fd(net.descriptor(), interests, net.handshake_deadline())
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

/// Step: `seconds` from now, of the argument at `position` of `op`; nil is no limit.
fn moment(
    lua: &Lua,
    (seconds, position, op): (Value, usize, String),
) -> mlua::Result<reply::Reply<Option<Number>>> {
    let limit = Place::Argument(position).seconds(lua, &seconds);
    let moment = limit.map(|limit| to_seconds(Deadline::after(Instant::now(), limit)));
    reply::settled(lua, moment.map_err(reply::Failure::Misuse), &op, || None)
}
