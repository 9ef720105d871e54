//! What is left of an accepted connection that was closed before its input was read whole, of a TLS client's whose
//! server has still to send its tickets, or of one that has sealed bytes to send.
//!
//! Those bytes leave, then its sending side ends; its input is read and discarded until the peer ends, too,
//! or until it has been patient enough. Only then is the socket closed.

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

pub struct Remains {
    stream: Stream,
    /// Its sending side has ended.
    has_ended: bool,
    /// Until when this goes on at most.
    deadline: Deadline,
    /// What was reported as sent would be lost if this ended now.
    would_lose: bool,
    /// Bytes that are still discarded.
    left: usize,
}

/// How long at most.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes discarded at most.
const MOST: usize = 1 << 20;

/// Bytes read at once.
const ROOM: usize = 16 * 1024;

impl Remains {
    /// `None` if the connection is broken anyway.
    pub fn of(mut stream: Stream) -> Option<Self> {
        if stream.is_unshaken() {
            stream.unsecure();
        }
        let would_lose = stream.awaits_tickets() || stream.has_unsent();
        stream.end_output();
        let deadline = Deadline::after(Instant::now(), Some(PATIENCE));
        let mut it = Self { stream, has_ended: false, deadline, would_lose, left: MOST };
        let _ = it.end().ok()?;
        Some(it)
    }

    /// What is sealed leaves, and then the end of the stream.
    fn end(&mut self) -> Result<Step<()>, Error> {
        if let Step::Wait(interest) = self.stream.settle(&mut Buffer::default())? {
            return Ok(Step::Wait(interest));
        }
        self.stream.shutdown(Shutdown::Write, &mut Buffer::default())?;
        self.stream.unsecure();
        self.has_ended = true;
        Ok(Step::Ready(()))
    }

    /// Ready once the socket may be closed.
    pub fn step(&mut self) -> Step<()> {
        if !self.has_ended {
            match self.end() {
                Ok(Step::Ready(())) => {}
                Ok(Step::Wait(interest)) => return Step::Wait(interest),
                Err(_) => return Step::Ready(()),
            }
        }
        let mut bin = Buffer::default();
        while self.left > 0 {
            match self.stream.fill(&mut bin, ROOM) {
                Ok(Step::Ready(Fill::Bytes)) => {
                    self.left = self.left.saturating_sub(bin.len());
                    bin.consume(bin.len());
                }
                Ok(Step::Wait(interest)) => return Step::Wait(interest),
                Ok(Step::Ready(Fill::End)) | Err(_) => break,
            }
        }
        Step::Ready(())
    }

    pub fn watch(&mut self, reactor: &Rc<Reactor>) -> io::Result<usize> {
        self.stream.watch(reactor)
    }
}

impl Drop for Remains {
    /// A program that ends waits for what it would lose, within the same time.
    fn drop(&mut self) {
        while let Step::Wait(interest) = self.step() {
            if interest == Interest::Pass && self.would_lose {
                continue;
            }
            let source = Source { fd: self.stream.as_fd(), interest };
            if !self.would_lose || !matches!(poller::wait(&[source], self.deadline), Ok(Woken::Ready)) {
                break;
            }
        }
        self.stream.unsecure();
    }
}

impl AsFd for Remains {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
