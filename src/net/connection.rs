//! A connection: what has arrived, what waits to be sent, its limits, its time, and both its ends.
//!
//! Reading is in `reading.rs`. Every operation is a step: it never blocks, and says what to wait for.

use std::io::IoSlice;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use std::time::Instant;

use crate::address::Address;
use crate::address::peer_name;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::frame::buffer::Buffer;
use crate::net::outbox::Outbox;
use crate::net::reading::Search;
use crate::net::stream::Stream;
use crate::options::Format;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::socket::Socket;

pub use crate::net::outbox::Cut;
pub use crate::net::outbox::Piece;
pub use crate::net::outbox::Ticket;

pub struct Connection {
    /// `None` once this side has closed.
    pub(super) stream: Option<Stream>,
    pub(super) buffer: Buffer,
    /// How far the search for the end of the next frame has come in `buffer`.
    pub(super) search: Search,
    outbox: Outbox,
    ends: Ends,
    pub format: Format,
    pub reading: Time,
    pub writing: Time,
}

/// Both ends, as they were when the connection was made.
pub struct Ends {
    /// As given to connect.
    pub host: String,
    pub port: Option<u16>,
    pub local: Address,
    pub remote: Address,
}

/// The time of one direction, and what its last step was waiting for.
#[derive(Default)]
pub struct Time {
    /// Per operation; `None` is no limit.
    pub timeout: Option<Duration>,
    /// One moment for all operations.
    pub deadline: Deadline,
    /// Set while an operation has ended or stopped without what it waits for.
    pub waits_for: Option<Interest>,
}

impl Time {
    /// When an operation that begins now and may take `limit` has to end.
    pub fn expiry(&self, now: Instant, limit: Option<Duration>) -> Deadline {
        Deadline::after(now, limit).earliest(self.deadline)
    }
}

/// What a write has come to without waiting.
pub enum Written {
    Whole,
    /// The rest waits for its turn.
    Queued(Ticket),
}

impl Connection {
    pub fn new(socket: Socket, ends: Ends, format: Format) -> Self {
        Self {
            stream: Some(Stream::new(socket)),
            buffer: Buffer::default(),
            search: Search::None,
            outbox: Outbox::default(),
            ends,
            format,
            reading: Time::default(),
            writing: Time::default(),
        }
    }

    /// Sends `slices`, at once as far as the system takes them. If something is left, `pieces` makes the same
    /// bytes lasting, and they are queued.
    pub fn write(
        &mut self,
        slices: &[IoSlice<'_>],
        cut: Cut,
        pieces: impl FnOnce() -> Vec<Piece>,
    ) -> Result<Written, Error> {
        let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
        stream.check_output().map_err(|error| error.with_written(0))?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut sent = 0;
        if self.outbox.is_empty() && total > 0 {
            let step = stream.send(slices, &mut self.buffer).map_err(|error| error.with_written(0))?;
            if let Step::Ready(count) = step {
                sent = count;
            }
        }
        if sent == total {
            self.writing.waits_for = None;
            return Ok(Written::Whole);
        }
        self.writing.waits_for = Some(Interest::Write);
        Ok(Written::Queued(self.outbox.push(pieces(), sent, cut)))
    }

    /// As `write`, for bytes that last already.
    pub fn write_pieces(&mut self, pieces: Vec<Piece>, cut: Cut) -> Result<Written, Error> {
        let stream = self.stream.as_ref().ok_or_else(Error::closed_here)?;
        stream.check_output().map_err(|error| error.with_written(0))?;
        let ticket = self.outbox.push(pieces, 0, cut);
        Ok(match self.continue_write(ticket, &mut false)? {
            Step::Ready(_) => Written::Whole,
            Step::Wait(_) => Written::Queued(ticket),
        })
    }

    /// Goes on with a queued write: the bytes of it sent in all, once it is done. `moved` becomes true if
    /// bytes left in this step.
    pub fn continue_write(&mut self, ticket: Ticket, moved: &mut bool) -> Result<Step<usize>, Error> {
        let Some(stream) = self.stream.as_mut() else {
            return Err(self.drop_write(ticket, Error::closed_here()));
        };
        loop {
            let Some(write) = self.outbox.turn(ticket) else {
                return match self.outbox.contains(ticket) {
                    true => Ok(Step::Wait(Interest::Write)),
                    false => Err(Error::new(Kind::Closed, "another write took its place")),
                };
            };
            if write.is_done() {
                let sent = write.sent();
                self.outbox.remove(ticket);
                self.writing.waits_for = None;
                return Ok(Step::Ready(sent));
            }
            match stream.send(&write.slices(), &mut self.buffer) {
                Ok(Step::Ready(count)) => {
                    write.advance(count);
                    *moved = true;
                }
                Ok(Step::Wait(interest)) => {
                    self.writing.waits_for = Some(interest);
                    return Ok(Step::Wait(interest));
                }
                Err(error) => return Err(self.drop_write(ticket, error)),
            }
        }
    }

    /// Gives a queued write up because of `cause`. Half of something that must stay whole ends the sending
    /// side.
    pub fn abandon_write(&mut self, ticket: Ticket, cause: Error) -> Error {
        let error = self.drop_write(ticket, cause);
        self.writing.waits_for = Some(Interest::Write);
        error
    }

    fn drop_write(&mut self, ticket: Ticket, cause: Error) -> Error {
        let Some(write) = self.outbox.remove(ticket) else { return cause };
        if write.cut == Cut::EndsOutput
            && write.sent() > 0
            && let Some(stream) = self.stream.as_mut()
        {
            stream.end_output();
        }
        cause.with_written(write.sent())
    }

    /// Forgets queued writes with which nobody goes on any more, because they were interrupted. If one of them
    /// had begun to leave, what the peer got is cut somewhere: nothing may follow.
    pub fn forsake_writes(&mut self) {
        if self.outbox.clear()
            && let Some(stream) = self.stream.as_mut()
        {
            stream.end_output();
        }
    }

    /// The bytes that one write of `bytes` takes, at least one unless `bytes` is empty.
    pub fn send_some(&mut self, bytes: &[u8]) -> Result<Step<usize>, Error> {
        let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
        if bytes.is_empty() {
            return stream.check_output().map(|()| Step::Ready(0));
        }
        if !self.outbox.is_empty() {
            return Ok(Step::Wait(Interest::Write));
        }
        let step = stream.send(&[IoSlice::new(bytes)], &mut self.buffer)?;
        self.writing.waits_for = match step {
            Step::Ready(_) => None,
            Step::Wait(interest) => Some(interest),
        };
        Ok(step)
    }

    pub fn shutdown(&mut self, direction: Shutdown) -> Result<(), Error> {
        let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
        stream.shutdown(direction, &mut self.buffer)
    }

    /// Idempotent, does not wait for the peer, and forgets what was not read.
    pub fn close(&mut self) {
        self.stream = None;
        self.outbox.clear();
        self.buffer = Buffer::default();
        self.search = Search::None;
        self.reading.waits_for = None;
        self.writing.waits_for = None;
    }

    pub fn is_closed(&self) -> bool {
        self.stream.is_none()
    }

    pub fn socket(&self) -> Result<&Socket, Error> {
        self.stream.as_ref().map(Stream::socket).ok_or_else(Error::closed_here)
    }

    /// `None` once closed.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(|stream| stream.socket().as_fd())
    }

    pub fn ends(&self) -> &Ends {
        &self.ends
    }

    /// How error messages name the other side.
    pub fn peer(&self) -> String {
        peer_name(&self.ends.host, self.ends.port)
    }
}
