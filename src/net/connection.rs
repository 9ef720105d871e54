//! A connection: what has arrived, what waits to be sent, its limits, its time, and both its ends.
//!
//! Reading is in `reading.rs`, TLS in `tls.rs`. Every operation is a step: it never blocks, and says what to wait for.

use std::io;
use std::io::IoSlice;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;

use crate::address::Address;
use crate::address::peer_name;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::error::Stage;
use crate::frame::buffer::Buffer;
use crate::net::outbox::Outbox;
use crate::net::reactor::Reactor;
use crate::net::reactor::Registration;
use crate::net::reading::Search;
use crate::net::remains::Remains;
use crate::net::stream::Source;
use crate::net::stream::Stream;
use crate::net::transfer::Pipe;
use crate::options::ConnectionOptions;
use crate::options::Format;
use crate::options::Keepalive;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::input::Input;
use crate::sys::socket::Socket;

pub use crate::net::outbox::Body;
pub use crate::net::outbox::Cut;
pub use crate::net::outbox::Piece;
pub use crate::net::outbox::Ticket;

pub struct Connection {
    /// `None` once this side has closed.
    pub(super) stream: Option<Stream>,
    pub(super) buffer: Buffer,
    /// How far the search for the end of the next frame has come in `buffer`.
    pub(super) search: Search,
    pub(super) outbox: Outbox,
    pub(super) ends: Ends,
    origin: Origin,
    pub(super) is_tls: bool,
    /// Of a closed one: whether the peer had left before.
    had_left: bool,
    pub format: Rc<Format>,
    pub reading: Time,
    pub writing: Time,
}

/// How a connection came about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    Dialled,
    Accepted,
}

/// Both ends, as they were when the connection was made.
pub struct Ends {
    /// As given to connect; `None` of an accepted one, whose addresses say it.
    given: Option<(Box<str>, Option<u16>)>,
    pub local: Address,
    pub remote: Address,
}

impl Ends {
    /// With the host and port as given to connect.
    pub fn dialled(host: &str, port: Option<u16>, local: Address, remote: Address) -> Self {
        Self { given: Some((host.into(), port)), local, remote }
    }

    pub fn accepted(local: Address, remote: Address) -> Self {
        Self { given: None, local, remote }
    }

    /// A client of a unix socket has no name: it is called by the listener's.
    fn called(&self) -> &Address {
        if let Address::Unix(_) = self.remote { &self.local } else { &self.remote }
    }

    pub fn host(&self) -> String {
        self.given.as_ref().map_or_else(|| self.called().host(), |(host, _)| host.to_string())
    }

    pub fn port(&self) -> Option<u16> {
        self.given.as_ref().map_or_else(|| self.called().port(), |(_, port)| *port)
    }
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
    pub fn expiry(&self, limit: Option<Duration>) -> Deadline {
        match limit {
            None => self.deadline,
            // The clock is asked only where it matters.
            limit => Deadline::after(Instant::now(), limit).earliest(self.deadline),
        }
    }

    fn note_wait(&mut self, interest: Interest) {
        self.waits_for = Some(if interest == Interest::Read { interest } else { Interest::Write });
    }
}

/// What a write has come to without waiting.
pub enum Written {
    /// So many bytes of it have left; all of them, unless some were enough.
    Whole(usize),
    /// The rest waits.
    Queued(Ticket, Interest),
}

impl Connection {
    /// Of a socket that is connected.
    pub fn new(socket: Socket, ends: Ends, origin: Origin, options: &ConnectionOptions) -> io::Result<Self> {
        if socket.is_tcp() {
            if options.nodelay {
                socket.set_nodelay(true)?;
            }
            if options.keepalive != Keepalive::Off {
                socket.set_keepalive(options.keepalive)?;
            }
        }
        let mut it = Self::of(Some(Stream::new(Source::Socket(socket))), ends, origin);
        it.format = Rc::clone(&options.format);
        it.reading.timeout = options.read_timeout;
        it.writing.timeout = options.write_timeout;
        Ok(it)
    }

    /// One that is closed.
    pub fn closed() -> Self {
        Self::of(None, Ends::accepted(Address::Stdin, Address::Stdin), Origin::Accepted)
    }

    /// Standard input, for reading only.
    pub fn stdin() -> io::Result<Self> {
        let stream = Stream::new(Source::Stdin(Input::stdin()?));
        let (local, remote) = (Address::Stdin, Address::Stdin);
        Ok(Self::of(Some(stream), Ends::dialled("stdin", None, local, remote), Origin::Dialled))
    }

    fn of(stream: Option<Stream>, ends: Ends, origin: Origin) -> Self {
        Self {
            stream,
            buffer: Buffer::default(),
            search: Search::None,
            outbox: Outbox::default(),
            ends,
            origin,
            is_tls: false,
            had_left: false,
            format: Rc::default(),
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
        let (mut sent, mut interest) = (0, Interest::Turn);
        stream.set_unfinished(false);
        if self.outbox.is_empty() && (total > 0 || !stream.is_settled()) {
            match stream.send(slices, cut.most(), &mut self.buffer).map_err(Error::of_write)? {
                Step::Ready(count) => (sent, interest) = (count, stream.awaited()),
                Step::Wait(wait) => interest = wait,
            }
        }
        if (sent == total || cut == Cut::Some && sent > 0) && stream.is_settled() {
            self.writing.waits_for = None;
            return Ok(Written::Whole(sent));
        }
        self.writing.note_wait(interest);
        Ok(Written::Queued(self.outbox.push(Body::of(pieces()), sent, cut, self.writing.timeout), interest))
    }

    /// As `write`, for bytes that last already.
    pub fn write_pieces(&mut self, pieces: Vec<Piece>, cut: Cut) -> Result<Written, Error> {
        self.write_body(Body::of(pieces), cut)
    }

    /// As `write`, for what need not be in memory.
    pub fn write_body(&mut self, body: Body, cut: Cut) -> Result<Written, Error> {
        let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
        stream.check_output().map_err(|error| error.with_written(0))?;
        stream.set_unfinished(false);
        let ticket = self.outbox.push(body, 0, cut, self.writing.timeout);
        Ok(match self.continue_write(ticket, &mut false)? {
            Step::Ready(sent) => Written::Whole(sent),
            Step::Wait(interest) => Written::Queued(ticket, interest),
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
                    true => Ok(Step::Wait(Interest::Turn)),
                    false => Err(Error::new(Kind::Closed, "the write was given up")),
                };
            };
            let (is_done, unsent) = (write.is_done(), stream.unsent());
            let step = match is_done {
                true if stream.is_settled() => match stream.check_handshake() {
                    Ok(()) => {
                        let sent = write.sent();
                        self.outbox.remove(ticket);
                        self.writing.waits_for = None;
                        return Ok(Step::Ready(sent));
                    }
                    // Another step has met its failure.
                    Err(error) => Err(error),
                },
                // What is sealed of it has still to leave.
                true => stream.settle(&mut self.buffer).map(|step| step.map(|()| 0)),
                false => match &mut write.body {
                    Body::Pieces(pieces) => stream.send(&pieces.slices(), write.cut.most(), &mut self.buffer),
                    Body::Part(part) => stream.send_part(part, &mut self.buffer),
                    Body::Piped(pipe) => stream.send_piped(&mut pipe.borrow_mut(), &mut self.buffer),
                },
            };
            match step {
                Ok(Step::Ready(count)) => {
                    write.advance(count);
                    *moved = true;
                }
                Ok(Step::Wait(interest)) => {
                    *moved |= stream.unsent() < unsent;
                    self.writing.note_wait(interest);
                    return Ok(Step::Wait(interest));
                }
                Err(error) => {
                    write.advance(error.written().unwrap_or_default());
                    let error = self.overdue(error);
                    return Err(self.drop_write(ticket, error));
                }
            }
        }
    }

    /// Gives a queued write up because of `cause`. Half of something that must stay whole ends the sending
    /// side.
    ///
    /// Some of it may be enough: then so many bytes have been taken.
    pub fn abandon_write(&mut self, ticket: Ticket, cause: Error) -> Result<usize, Error> {
        let has_some = self.outbox.has_some(ticket);
        if let Some(sent) = has_some.filter(|_| cause.kind() == Kind::Timeout) {
            self.outbox.remove(ticket);
            return Ok(sent);
        }
        let waits_for = self.writing.waits_for.or(Some(Interest::Write));
        let cause = self.cut(cause);
        let error = self.drop_write(ticket, cause);
        self.writing.waits_for = waits_for;
        Err(error)
    }

    /// What an operation that has waited for the handshake is told if that took too long: its time is over.
    /// Whoever comes later must not think that there is hope.
    pub(super) fn overdue(&self, error: Error) -> Error {
        match self.stream.as_ref().and_then(Stream::overdue) {
            Some(reason) => Error::new(Kind::Timeout, reason).with_stage(Stage::Handshake),
            None => error,
        }
    }

    fn drop_write(&mut self, ticket: Ticket, cause: Error) -> Error {
        let Some(write) = self.outbox.remove(ticket) else { return cause };
        let may_continue = write.cut == Cut::MayContinue && cause.kind() == Kind::Timeout;
        if write.sent() > 0
            && let Some(stream) = self.stream.as_mut()
        {
            match may_continue {
                true => stream.set_unfinished(!write.is_done()),
                false => stream.cut_output(),
            }
        }
        cause.with_written(write.sent())
    }

    /// When a queued write of which bytes have just moved has to end.
    pub fn write_expiry(&self, ticket: Ticket) -> Deadline {
        self.writing.expiry(self.outbox.limit(ticket))
    }

    /// The ticket of the write whose turn it is.
    pub fn front_write(&self) -> Option<Ticket> {
        self.outbox.front()
    }

    /// A write of nothing: it is done when those before it are, and what was sealed has left. `None` if that is so.
    pub fn follow_writes(&mut self) -> Result<Option<(Ticket, Interest)>, Error> {
        if self.outbox.is_empty() && self.stream.as_ref().is_none_or(Stream::is_settled) {
            return Ok(None);
        }
        let ticket = self.outbox.push(Body::nothing(), 0, Cut::EndsOutput, self.writing.timeout);
        Ok(match self.continue_write(ticket, &mut false)? {
            Step::Ready(_) => None,
            Step::Wait(interest) => Some((ticket, interest)),
        })
    }

    /// Ends what is sent, with TLS's last word.
    pub fn end_output(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.end_output();
        }
    }

    /// Moves what has arrived into a pipe, see `Stream::pipe_in`. What was read before goes another way.
    pub fn pipe_in(&mut self, count: usize, pipe: &mut Pipe) -> Result<Step<Option<usize>>, Error> {
        let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
        if self.buffer.len() > 0 || !stream.can_be_piped() {
            return Ok(Step::Ready(None));
        }
        let step = stream.pipe_in(count, pipe)?;
        self.reading.waits_for = if let Step::Wait(_) = step { Some(Interest::Read) } else { None };
        Ok(step)
    }

    /// Puts back what was read, before all that follows.
    pub fn put_back(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.search = Search::None;
        if self.stream.is_some() { self.buffer.put_back(bytes) } else { Ok(()) }
    }

    /// Whether the kernel may move its bytes.
    pub fn can_be_piped(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::can_be_piped)
    }

    /// Has the loop tell of it as it told of the dial.
    pub fn set_registration(&mut self, registration: Registration) {
        if let Some(stream) = &mut self.stream {
            stream.set_registration(registration);
        }
    }

    pub fn shutdown(&mut self, direction: Shutdown) -> Result<(), Error> {
        let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
        stream.shutdown(direction, &mut self.buffer)
    }

    /// Idempotent, does not wait for the peer, and forgets what was not read. Queued writes stay until those who
    /// wait for them come for their errors.
    ///
    /// What is left of an accepted connection whose input was not read whole is to be drained: closing it now
    /// would reset it, and the last answer might not reach the peer (RFC 2525, section 2.17). So is a
    /// client's whose server has tickets to send, and one with sealed bytes, which were reported as sent.
    pub fn close(&mut self) -> Option<Remains> {
        let mut stream = self.stream.take()?;
        self.had_left = stream.has_left();
        if self.outbox.is_in_the_middle() {
            // Half of it must not look like the whole.
            stream.cut_output();
        }
        stream.cut_if_unfinished();
        let buffer = std::mem::take(&mut self.buffer);
        self.search = Search::None;
        self.reading.waits_for = None;
        self.writing.waits_for = None;
        let socket = stream.socket()?;
        let has_to_linger = stream.has_unsent()
            || match self.origin {
                Origin::Dialled => stream.awaits_tickets(),
                Origin::Accepted => buffer.len() > 0 || stream.has_records() || socket.has_unread(),
            };
        // Who asked for a reset gets it.
        if (has_to_linger || self.is_tls)
            && stream.socket()?.linger().is_ok_and(|time| time == Some(Duration::ZERO))
        {
            stream.cut_output();
            return None;
        }
        has_to_linger.then(|| Remains::of(stream)).flatten()
    }

    /// Has the loop watch it, see `Stream::watch`. `None` once closed.
    pub fn watch(&mut self, reactor: &Rc<Reactor>) -> Option<io::Result<usize>> {
        self.stream.as_mut().map(|stream| stream.watch(reactor))
    }

    /// A wait follows: others have their turn.
    pub fn rest(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.rest();
        }
    }

    /// Where the loop tells of it, if it is watched.
    pub fn slot(&self) -> Option<usize> {
        self.stream.as_ref().and_then(Stream::slot)
    }

    /// Whether the last read did not ask the system, see `Stream::took_word`.
    pub fn took_word(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::took_word)
    }

    pub fn is_closed(&self) -> bool {
        self.stream.is_none()
    }

    /// Whether the peer has left, before this side closed.
    pub fn has_left(&self) -> bool {
        self.stream.as_ref().map_or(self.had_left, Stream::has_left)
    }

    /// The nearest moment at which an operation has to end, be it over already.
    pub fn nearest_deadline(&self) -> Deadline {
        let handshake = self.stream.as_ref().map_or(Deadline::NEVER, Stream::handshake_expiry);
        self.reading.deadline.earliest(self.writing.deadline).earliest(handshake)
    }

    /// Whether a direction that had to wait waits for `interest`.
    pub fn waits_for(&self, interest: Interest) -> bool {
        let is_over = self.stream.as_ref().is_none_or(|it| it.check_output().is_err() && !it.has_unsent());
        let writing = self.writing.waits_for.filter(|_| !is_over);
        let mut waits = self.reading.waits_for.into_iter().chain(writing);
        waits.any(|it| it == interest || interest == Interest::Write && self.has_unsent())
    }

    /// The error of an operation that ends because of `cause`, not because of the connection.
    pub fn cut(&self, cause: Error) -> Error {
        match cause.kind() {
            Kind::Timeout if self.is_handshaking() => {
                Error::new(Kind::Timeout, "timed out during the TLS handshake").with_stage(Stage::Handshake)
            }
            _ if self.is_handshaking() => cause.with_stage(Stage::Handshake),
            _ => cause,
        }
    }

    pub fn socket(&self) -> Result<&Socket, Error> {
        let stream = self.stream.as_ref().ok_or_else(Error::closed_here)?;
        stream.socket().ok_or_else(|| Error::new(Kind::System, "standard input is no socket"))
    }

    /// `None` once closed.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// The descriptor, for loops of others. `None` once closed.
    pub fn raw(&self) -> Option<RawFd> {
        self.stream.as_ref().map(Stream::raw)
    }

    pub fn ends(&self) -> &Ends {
        &self.ends
    }

    /// How error messages name the other side.
    pub fn peer(&self) -> String {
        peer_name(&self.ends.host(), self.ends.port())
    }
}
