//! Readiness of many descriptors, edge-triggered: each is registered once, and reported when something changed.
//!
//! On Linux this is epoll(7). Its own descriptor becomes readable when an event is pending, so that another loop
//! can watch it; with `set_alarm` also when time has come.

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::time::Duration;
use std::time::Instant;

use mio::Events;
use mio::Poll;
use mio::Token;
use mio::unix::SourceFd;

use crate::deadline::Deadline;
use crate::sys::poller::Woken;

pub struct Selector {
    poll: Poll,
    events: Events,
    alarm: Option<Alarm>,
}

/// What has changed with the descriptors of a token. It may be spurious.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Change {
    pub token: usize,
    pub readable: bool,
    pub writable: bool,
    /// The peer ended or broke the stream, or sent urgent data: no later event says that more can be read.
    pub last: bool,
}

/// Events taken from the system at once.
const BATCH: usize = 1024;

/// The token of the alarm: no descriptor's.
const ALARM: Token = Token(usize::MAX);

impl Selector {
    pub fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(BATCH), alarm: None })
    }

    /// `PermissionDenied`: a regular file or the like, which is always ready.
    pub fn add(&self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), Token(token), interests())
    }

    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()))
    }

    /// Waits until something changes or `deadline` passes, and tells every change.
    ///
    /// epoll_wait(2) is never restarted after a signal (signal(7)), which lets an interpreter run its Ctrl-C hook.
    pub fn select(&mut self, deadline: Deadline, mut tell: impl FnMut(Change)) -> io::Result<Woken> {
        match self.poll.poll(&mut self.events, deadline.remaining(Instant::now())) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Woken::Early),
            other => other?,
        }
        if self.events.is_empty() {
            return Ok(if deadline.passed(Instant::now()) { Woken::TimedOut } else { Woken::Early });
        }
        loop {
            self.tell_each(&mut tell);
            // Who is ready must not be taken for one whose time is up: there may be more than one batch.
            if self.events.iter().count() < BATCH {
                return Ok(Woken::Ready);
            }
            match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Woken::Ready),
                other => other?,
            }
        }
    }

    fn tell_each(&self, tell: &mut impl FnMut(Change)) {
        for event in &self.events {
            if event.token() == ALARM {
                continue;
            }
            let last = event.is_read_closed() || event.is_error() || event.is_priority();
            tell(Change {
                token: event.token().0,
                readable: event.is_readable() || last,
                writable: event.is_writable() || event.is_write_closed() || event.is_error(),
                last,
            });
        }
    }

    /// The descriptor for loops of others.
    pub fn raw(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// From now on the descriptor also becomes readable at `at`. Without a clock that has a descriptor, as outside
    /// Linux, it does not.
    pub fn set_alarm(&mut self, at: Deadline) -> io::Result<()> {
        if self.alarm.is_none() {
            self.alarm = Alarm::new(&self.poll)?;
        }
        self.alarm.as_ref().map_or(Ok(()), |alarm| alarm.set(at))
    }
}

/// Urgent data ends a read early, as the end of the stream does: it has to be told apart.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn interests() -> mio::Interest {
    mio::Interest::READABLE | mio::Interest::WRITABLE | mio::Interest::PRIORITY
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn interests() -> mio::Interest {
    mio::Interest::READABLE | mio::Interest::WRITABLE
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod alarm {
    use std::os::fd::AsFd;

    use nix::sys::timerfd::ClockId;
    use nix::sys::timerfd::Expiration;
    use nix::sys::timerfd::TimerFd;
    use nix::sys::timerfd::TimerFlags;
    use nix::sys::timerfd::TimerSetTimeFlags;

    use super::*;

    /// A clock's descriptor (timerfd_create(2)).
    pub struct Alarm(TimerFd);

    impl Alarm {
        pub fn new(poll: &Poll) -> io::Result<Option<Self>> {
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
            let fd = timer.as_fd().as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), ALARM, mio::Interest::READABLE)?;
            Ok(Some(Self(timer)))
        }

        pub fn set(&self, at: Deadline) -> io::Result<()> {
            match at.remaining(Instant::now()) {
                None => self.0.unset()?,
                // Zero would switch it off.
                Some(left) => {
                    let left = left.max(Duration::from_nanos(1));
                    self.0.set(Expiration::OneShot(left.into()), TimerSetTimeFlags::empty())?;
                }
            }
            Ok(())
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod alarm {
    use super::*;

    pub enum Alarm {}

    impl Alarm {
        pub fn new(_: &Poll) -> io::Result<Option<Self>> {
            Ok(None)
        }

        pub fn set(&self, _: Deadline) -> io::Result<()> {
            match *self {}
        }
    }
}

use alarm::Alarm;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    fn changes(selector: &mut Selector, patience: u64) -> (Woken, Vec<Change>) {
        let mut seen = Vec::new();
        let deadline = Deadline::after(Instant::now(), Some(Duration::from_millis(patience)));
        let woken = selector.select(deadline, |change| seen.push(change)).unwrap();
        (woken, seen)
    }

    #[test]
    fn a_change_is_told_once() {
        let mut selector = Selector::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        selector.add(reader.as_fd(), 7).unwrap();
        assert!(changes(&mut selector, 0).1.is_empty());
        writer.write_all(b"x").unwrap();
        let (woken, seen) = changes(&mut selector, 1000);
        assert_eq!(woken, Woken::Ready);
        assert_eq!(seen, [Change { token: 7, readable: true, ..Change::default() }]);
        assert!(changes(&mut selector, 0).1.is_empty());
        drop(writer);
        assert!(changes(&mut selector, 1000).1[0].last);
    }

    #[test]
    fn what_is_removed_is_not_told() {
        let mut selector = Selector::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        selector.add(reader.as_fd(), 7).unwrap();
        selector.remove(reader.as_fd()).unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(changes(&mut selector, 0), (Woken::TimedOut, Vec::new()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_alarm_makes_the_descriptor_readable_and_is_no_change() {
        let mut selector = Selector::new().unwrap();
        selector.set_alarm(Deadline::after(Instant::now(), Some(Duration::from_millis(5)))).unwrap();
        assert_eq!(changes(&mut selector, 1000), (Woken::Ready, Vec::new()));
        assert_eq!(changes(&mut selector, 0).0, Woken::TimedOut);
    }
}
