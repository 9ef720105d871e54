//! What is left of an accepted connection that was closed before its input was read whole, or of a TLS client's whose
//! server has still to send its tickets.
//!
//! Its sending side has ended; its input is read and discarded until the peer ends, too, or until it has been
//! patient enough. Only then is the socket closed.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::frame::buffer::Buffer;
use crate::net::reactor::Reactor;
use crate::net::stream::Fill;
use crate::net::stream::Stream;
use crate::step::Step;

pub struct Remains {
    stream: Stream,
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
        stream.shutdown(Shutdown::Write, &mut Buffer::default()).ok()?;
        stream.unsecure();
        Some(Self { stream, left: MOST })
    }

    /// Ready once the socket may be closed.
    pub fn step(&mut self) -> Step<()> {
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
    /// A process that ends now resets nothing that has arrived already.
    fn drop(&mut self) {
        self.stream.rest();
        let _ = self.step();
    }
}

impl AsFd for Remains {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
