//! What is left of a connection that was closed: of an accepted one before its input was read whole, of a TLS client's
//! whose server has still to send its tickets, or of one that has sealed bytes to send.
//!
//! Those bytes leave, then its sending side ends; its input is read and discarded until the peer ends, too,
//! or until it has been patient enough. Only then is the socket closed.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::frame::buffer::Buffer;
use crate::net::reactor::Reactor;
use crate::net::stream::Fill;
use crate::net::stream::Stream;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::poller;
use crate::sys::poller::Source;
use crate::sys::poller::Woken;

/// How far a connection has come in its end.
struct Parting {
    /// Its sending side has ended.
    has_ended: bool,
    /// What was reported as sent would be lost if this ended now.
    would_lose: bool,
    /// Bytes that are still discarded.
    left: usize,
}

pub struct Remains {
    stream: Stream,
    parting: Parting,
    /// Until when this goes on at most.
    deadline: Deadline,
}

/// How long at most.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes discarded at most.
const MOST: usize = 1 << 20;

/// Bytes read at once.
const ROOM: usize = 16 * 1024;

thread_local! {
    /// What connections that nobody has closed may keep everybody waiting, all together.
    static PATIENCE_LEFT: Cell<Duration> = const { Cell::new(Duration::from_millis(250)) };
}

impl Parting {
    /// TLS says its last word, if that can be done at once.
    fn begin(stream: &mut Stream) -> Self {
        if stream.is_unshaken() {
            stream.unsecure();
        }
        let would_lose = stream.awaits_tickets() || stream.has_unsent();
        stream.end_output();
        // What it spent before is not its end's.
        stream.rest();
        Self { has_ended: false, would_lose, left: MOST }
    }

    /// What is sealed leaves, and then the end of the stream.
    fn end(&mut self, stream: &mut Stream) -> Result<Step<()>, Error> {
        if let Step::Wait(interest) = stream.settle(&mut Buffer::default())? {
            return Ok(Step::Wait(interest));
        }
        stream.shutdown(Shutdown::Write, &mut Buffer::default())?;
        // Tickets are worth reading: the next connection resumes the session.
        if !stream.awaits_tickets() {
            stream.unsecure();
        }
        self.has_ended = true;
        Ok(Step::Ready(()))
    }

    /// Ready once the socket may be closed.
    fn step(&mut self, stream: &mut Stream) -> Step<()> {
        if !self.has_ended {
            match self.end(stream) {
                Ok(Step::Ready(())) => {}
                Ok(Step::Wait(interest)) => return Step::Wait(interest),
                Err(_) => return Step::Ready(()),
            }
        }
        let (mut bin, before) = (Buffer::default(), self.left);
        while self.left > 0 {
            match stream.fill(&mut bin, ROOM) {
                Ok(Step::Ready(Fill::Bytes)) => {
                    self.left = self.left.saturating_sub(bin.len());
                    bin.consume(bin.len());
                }
                Ok(Step::Wait(interest)) => {
                    // It has had its share and brought nothing: TLS's records may be about nothing.
                    if interest == Interest::Pass && self.left == before {
                        self.left = self.left.saturating_sub(MOST / 2);
                    }
                    return Step::Wait(interest);
                }
                Ok(Step::Ready(Fill::End)) | Err(_) => break,
            }
        }
        Step::Ready(())
    }

    /// Waits for what would be lost, and for nothing else.
    fn complete(&mut self, stream: &mut Stream, deadline: Deadline) {
        while let Step::Wait(interest) = self.step(stream) {
            if interest == Interest::Pass && self.would_lose && !deadline.passed(Instant::now()) {
                continue;
            }
            let source = Source { fd: stream.as_fd(), interest };
            if !self.would_lose || !matches!(poller::wait(&[source], deadline), Ok(Woken::Ready)) {
                break;
            }
        }
    }
}

impl Stream {
    /// The end of a connection that nobody has closed. A moment is spent on what would be lost.
    pub(super) fn part(&mut self) {
        self.cut_if_unfinished();
        if !self.awaits_tickets() && !self.has_unsent() {
            return self.end_output();
        }
        let began = Instant::now();
        let deadline = Deadline::after(began, Some(PATIENCE_LEFT.get()));
        Parting::begin(self).complete(self, deadline);
        PATIENCE_LEFT.set(PATIENCE_LEFT.get().saturating_sub(began.elapsed()));
    }
}

impl Remains {
    /// `None` if the connection is broken anyway.
    pub fn of(mut stream: Stream) -> Option<Self> {
        let mut parting = Parting::begin(&mut stream);
        let deadline = Deadline::after(Instant::now(), Some(PATIENCE));
        let _ = parting.end(&mut stream).ok()?;
        Some(Self { stream, parting, deadline })
    }

    /// Ready once the socket may be closed.
    pub fn step(&mut self) -> Step<()> {
        self.parting.step(&mut self.stream)
    }

    pub fn watch(&mut self, reactor: &Rc<Reactor>) -> io::Result<usize> {
        self.stream.watch(reactor)
    }
}

impl Drop for Remains {
    /// A program that ends waits for what it would lose, within the same time.
    fn drop(&mut self) {
        self.parting.complete(&mut self.stream, self.deadline);
        self.stream.unsecure();
    }
}

impl AsFd for Remains {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
