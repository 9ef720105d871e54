//! What the embedded Lua's loop is made of: descriptors that are watched, and moments.

use std::io::Write;
use std::rc::Rc;
use std::time::Instant;

use mlua::AnyUserData;
use mlua::Integer;
use mlua::Lua;
use mlua::Number;
use mlua::Table;
use mlua::Value;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Stage;
use crate::lua::connection::Connection;
use crate::lua::connection::Remains;
use crate::lua::dial::Dial;
use crate::lua::failure;
use crate::lua::file::SlowFile;
use crate::lua::listener::Listen;
use crate::lua::listener::Listener;
use crate::lua::reply;
use crate::lua::resolve::Resolve;
use crate::lua::udp::Opening;
use crate::lua::udp::UdpSocket;
use crate::lua::wait::from_seconds;
use crate::lua::wait::to_seconds;
use crate::net;
use crate::net::reactor::Reactor;
use crate::net::timers::Timers;
use crate::sys::poller::Woken;

/// What `watch` answers for a descriptor that cannot be watched now: it has to be tried again and again.
const CANNOT: Integer = -1;

/// How a turn of the loop ended.
const CAME: Integer = 0;
const INTERRUPTED: Integer = 1;

pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    let reactor = Rc::new(Reactor::default());
    watching(lua, core, &reactor)?;
    timing(lua, core, &reactor)?;
    #[cfg(feature = "lua51")]
    core.raw_set("can_suspend", super::boundary::can_suspend(lua)?)?;
    core.raw_set(
        "report",
        lua.create_function(|_, text: mlua::LuaString| {
            // Whoever has closed stderr does not want to know.
            let _ = writeln!(std::io::stderr(), "{}", text.to_string_lossy());
            Ok(())
        })?,
    )
}

fn watching(lua: &Lua, core: &Table, reactor: &Rc<Reactor>) -> mlua::Result<()> {
    let own = Rc::clone(reactor);
    let watch = move |_: &Lua, target: AnyUserData| watch(&own, &target);
    core.raw_set("watch", lua.create_function(watch)?)?;

    let own = Rc::clone(reactor);
    let next = move |_: &Lua, ()| {
        let ready = own.take();
        Ok(ready.map_or((None, false, false), |it| (Some(it.slot), it.readable, it.writable)))
    };
    core.raw_set("next_ready", lua.create_function(next)?)?;

    // Has the next wait for any change end at once.
    let own = Rc::clone(reactor);
    core.raw_set(
        "rouse",
        lua.create_function(move |_, ()| {
            own.rouse();
            Ok(())
        })?,
    )?;

    let own = Rc::clone(reactor);
    core.raw_set("registrations", lua.create_function(move |_, ()| Ok(own.len()))?)?;

    let own = Rc::clone(reactor);
    core.raw_set(
        "loop_fd",
        lua.create_function(move |lua, ()| match own.descriptor() {
            Ok(fd) => Ok(reply::done(fd)),
            Err(error) => reply::failed(lua, Error::from_io(&error).into(), "pollfd", None),
        })?,
    )?;

    let own = Rc::clone(reactor);
    core.raw_set(
        "set_alarm",
        lua.create_function(move |_, at: Option<Number>| {
            // Without it another loop looks at its own pace.
            Ok(own.set_alarm(from_seconds(at)).is_ok())
        })?,
    )
}

fn timing(lua: &Lua, core: &Table, reactor: &Rc<Reactor>) -> mlua::Result<()> {
    let timers = Rc::new(std::cell::RefCell::new(Timers::default()));

    let own = Rc::clone(&timers);
    core.raw_set(
        "arm",
        lua.create_function(move |_, (id, at): (u64, Number)| {
            if let Some(at) = from_seconds(Some(at)).moment() {
                own.borrow_mut().arm(id, at);
            }
            Ok(())
        })?,
    )?;

    let own = Rc::clone(&timers);
    core.raw_set(
        "disarm",
        lua.create_function(move |_, (id, at): (u64, Number)| {
            if let Some(at) = from_seconds(Some(at)).moment() {
                own.borrow_mut().disarm(id, at);
            }
            Ok(())
        })?,
    )?;

    let own = Rc::clone(&timers);
    let take_due = move |_: &Lua, ()| Ok(own.borrow_mut().take_due(Instant::now()));
    core.raw_set("take_due", lua.create_function(take_due)?)?;

    let own = Rc::clone(&timers);
    core.raw_set("timers", lua.create_function(move |_, ()| Ok(own.borrow().len()))?)?;

    let own = Rc::clone(&timers);
    core.raw_set("next_timer", lua.create_function(move |_, ()| Ok(to_seconds(own.borrow().next())))?)?;

    let reactor = Rc::clone(reactor);
    // Waits for a change or a timer, at most until `limit`; zero does not wait.
    core.raw_set(
        "wait_for_any",
        lua.create_function(move |_, limit: Option<Number>| {
            let deadline = from_seconds(limit).earliest(timers.borrow().next());
            match reactor.wait(deadline) {
                Ok(Woken::Early) => Ok(INTERRUPTED),
                Ok(Woken::Ready | Woken::TimedOut) => Ok(CAME),
                Err(error) => Err(mlua::Error::external(error)),
            }
        })?,
    )
}

/// The slot, when to look anyway, and whether the target keeps the slot as long as it is open.
type Watched = (Option<Integer>, Option<Number>, bool);

fn watch(reactor: &Rc<Reactor>, target: &AnyUserData) -> mlua::Result<Watched> {
    let mut wake = Deadline::NEVER;
    let mut is_lasting = false;
    let slot = if let Ok(mut it) = target.borrow_mut::<Connection>() {
        // Until the handshake is done, its deadline is asked for each time.
        is_lasting = !it.net.is_handshaking();
        wake = it.net.handshake_deadline();
        it.net.watch(reactor)
    } else if let Ok(mut it) = target.borrow_mut::<Listener>() {
        it.net.watch(reactor)
    } else if let Ok(mut it) = target.borrow_mut::<Dial>() {
        wake = it.net.wake(Instant::now());
        Some(it.net.watch(reactor))
    } else if let Ok(mut it) = target.borrow_mut::<UdpSocket>() {
        it.net.watch(reactor)
    } else if let Ok(mut it) = target.borrow_mut::<Resolve>() {
        it.net.watch(reactor)
    } else if let Ok(mut it) = target.borrow_mut::<Listen>() {
        it.net.resolve().and_then(|resolve| resolve.watch(reactor))
    } else if let Ok(mut it) = target.borrow_mut::<SlowFile>() {
        Some(it.net.watch(reactor))
    } else if let Ok(mut it) = target.borrow_mut::<Opening>() {
        it.net.resolve().and_then(|resolve| resolve.watch(reactor))
    } else {
        Some(target.borrow_mut::<Remains>()?.0.watch(reactor))
    };
    let slot = match slot {
        Some(Ok(slot)) => return Ok((Some(slot as Integer), to_seconds(wake), is_lasting)),
        None => None,
        // A regular file has nothing to wait for.
        Some(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
        Some(Err(_)) => Some(CANNOT),
    };
    Ok((slot, to_seconds(wake), false))
}

/// The error of an operation on `target` (nil: on nothing outside) that ends because of `cause`.
pub fn cut(lua: &Lua, (target, op, cause): (Value, String, Integer)) -> mlua::Result<Table> {
    let cause = Cause::of(cause);
    let Value::UserData(target) = target else { return failure::object(lua, &cause.error(), &op, None) };
    let (error, peer) = if let Ok(mut it) = target.borrow_mut::<Dial>() {
        let error = match cause {
            Cause::Time => it.net.expire(),
            cause => it.net.give_up(cause.error()),
        };
        (error, it.net.peer())
    } else if let Ok(mut it) = target.borrow_mut::<Listen>() {
        let error = it.net.resolve().map_or_else(|| cause.error(), |resolve| cause.of_look_up(resolve));
        it.net.abandon();
        (error, it.net.peer())
    } else if target.is::<SlowFile>() {
        return failure::object(lua, &cause.error(), &op, None);
    } else if let Ok(mut it) = target.borrow_mut::<Resolve>() {
        (cause.of_look_up(&mut it.net), it.net.peer())
    } else if let Ok(mut it) = target.borrow_mut::<Opening>() {
        let error = it.net.resolve().map_or_else(|| cause.error(), |resolve| cause.of_look_up(resolve));
        (error, it.net.peer())
    } else if let Ok(it) = target.borrow::<UdpSocket>() {
        (cause.error(), it.net.name())
    } else if let Ok(it) = target.borrow::<Listener>() {
        (cause.error(), it.net.address().to_string())
    } else {
        let it = target.borrow::<Connection>()?;
        (it.net.cut(cause.error()), it.net.peer())
    };
    failure::object(lua, &error, &op, Some(peer))
}

/// Why a wait ended without what it waited for: codes that loop.lua knows, too.
#[derive(Clone, Copy)]
pub enum Cause {
    Time,
    Cancelled,
    Overdue,
}

impl Cause {
    pub fn of(code: Integer) -> Self {
        match code {
            1 => Cause::Time,
            2 => Cause::Cancelled,
            _ => Cause::Overdue,
        }
    }

    fn of_look_up(self, resolve: &mut net::resolve::Resolve) -> Error {
        let expired = resolve.expire();
        if let Cause::Time = self { expired } else { self.error().with_stage(Stage::Resolve) }
    }

    pub fn error(self) -> Error {
        use crate::error::Kind;
        match self {
            Cause::Time => Error::new(Kind::Timeout, "timed out"),
            Cause::Cancelled => Error::new(Kind::Cancelled, "the task was cancelled"),
            Cause::Overdue => Error::new(Kind::Cancelled, "the time of with_timeout is over"),
        }
    }
}
