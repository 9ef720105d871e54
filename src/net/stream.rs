//! The two directions of a connection: bytes from the peer into a buffer, bytes to the peer, and how each
//! direction ended.

use std::io;
use std::io::IoSlice;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::rc::Rc;

use crate::error::Error;
use crate::error::Kind;
use crate::frame::buffer::Buffer;
use crate::net::reactor::Reactor;
use crate::net::reactor::Registration;
use crate::net::secure::Secure;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::input::Input;
use crate::sys::socket::Socket;

pub struct Stream {
    pub(super) source: Source,
    pub(super) input: Direction,
    pub(super) output: Direction,
    /// With TLS, see `secure.rs`.
    pub(super) secure: Option<Box<Secure>>,
    /// Set once the loop watches it.
    pub(super) registration: Option<Registration>,
    /// Operations since the last wait, see `SHARE`.
    pub(super) spent: usize,
    /// The last step did not ask the system, see `Registration::take_drained`.
    pub(super) took_word: bool,
}

/// Where the bytes come from.
pub enum Source {
    Socket(Socket),
    Stdin(Input),
}

impl Source {
    pub(super) fn socket(&self) -> Option<&Socket> {
        match self {
            Source::Socket(socket) => Some(socket),
            Source::Stdin(_) => None,
        }
    }
}

/// Once ended, a direction stays so, and every later use is answered alike.
pub(super) enum Direction {
    Open,
    /// In an orderly way: the peer's end of stream, or a shutdown on this side.
    Ended,
    Failed(Error),
}

/// What a read brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fill {
    Bytes,
    End,
}

/// What is read at most to save a peer's last words before a broken connection is reported.
const LAST_WORDS: usize = 1 << 20;

/// Least room for one read.
pub(super) const ROOM: usize = 2048;

/// A connection on which there is always something to do lets others have their turn after so many operations.
pub(super) const SHARE: usize = 2048;

/// A system call counts as so many operations, and once more for so many bytes.
pub(super) const CALL: usize = 32;
pub(super) const BYTES: usize = 16 * 1024;

impl Stream {
    pub fn new(source: Source) -> Self {
        let output = match source {
            Source::Socket(_) => Direction::Open,
            Source::Stdin(_) => {
                Direction::Failed(Error::new(Kind::Closed, "standard input is for reading only"))
            }
        };
        let input = Direction::Open;
        Self { source, input, output, secure: None, registration: None, spent: 0, took_word: false }
    }

    /// One read into `buffer`, with room for `wanted` more bytes.
    pub fn fill(&mut self, buffer: &mut Buffer, wanted: usize) -> Result<Step<Fill>, Error> {
        self.took_word = false;
        if let Direction::Open = self.input {
            if self.has_had_its_share() {
                return Ok(Step::Wait(Interest::Pass));
            }
            let has_more = self.secure.as_ref().is_some_and(|secure| secure.session.peer_has_closed());
            if !has_more
                && !self.has_unsent()
                && self.registration.as_ref().is_some_and(Registration::take_drained)
            {
                self.took_word = true;
                return Ok(Step::Wait(Interest::Read));
            }
        }
        self.fill_now(buffer, wanted)
    }

    pub(super) fn fill_now(&mut self, buffer: &mut Buffer, wanted: usize) -> Result<Step<Fill>, Error> {
        match &self.input {
            Direction::Open => {}
            Direction::Ended => return Ok(Step::Ready(Fill::End)),
            Direction::Failed(error) => return Err(error.clone()),
        }
        if self.secure.is_some() {
            return self.fill_secure(buffer);
        }
        let room = buffer.room(wanted.max(ROOM))?;
        let received = match &self.source {
            Source::Socket(socket) => socket.recv(room),
            Source::Stdin(input) => input.recv(room),
        };
        match received {
            Ok(Step::Ready(0)) => {
                self.input = Direction::Ended;
                Ok(Step::Ready(Fill::End))
            }
            Ok(Step::Ready(count)) => {
                if count < room.len() {
                    self.note_drained();
                }
                buffer.arrived(count);
                self.spent += CALL * (1 + count / BYTES);
                Ok(Step::Ready(Fill::Bytes))
            }
            Ok(Step::Wait(interest)) => Ok(self.wait(interest)),
            Err(error) => {
                let error = Error::from_io(&error);
                self.input = Direction::Failed(error.clone());
                Err(error)
            }
        }
    }

    /// Only a TCP stream's short read says that nothing more is there: others end one at the end of a message, of
    /// a line, or where descriptors were passed. And only where urgent data is told (see `sys::selector`), which ends
    /// a read early, too.
    pub(super) fn note_drained(&self) {
        if cfg!(any(target_os = "linux", target_os = "android"))
            && let (Some(registration), Source::Socket(socket)) = (&self.registration, &self.source)
            && socket.is_tcp()
        {
            registration.set_drained();
        }
    }

    /// A read was satisfied, from what had arrived before.
    pub fn note_operation(&mut self) {
        self.spent += 1;
    }

    /// Others have their turn: its share is whole again.
    pub fn rest(&mut self) {
        self.spent = 0;
    }

    /// Whether others are to have their turn now. It says so once.
    pub(super) fn has_had_its_share(&mut self) -> bool {
        let had = self.spent >= SHARE;
        if had {
            self.spent = 0;
        }
        had
    }

    pub(super) fn wait<T>(&mut self, interest: Interest) -> Step<T> {
        self.spent = 0;
        Step::Wait(interest)
    }

    /// Whether the last step said that it has to wait without having asked the system.
    pub fn took_word(&self) -> bool {
        self.took_word
    }

    /// What a write that was taken in part has to wait for.
    pub fn awaited(&self) -> Interest {
        match self.secure {
            // It had enough of a share: the system would take more.
            Some(_) if self.is_settled() => Interest::Pass,
            _ => Interest::Write,
        }
    }

    /// Has the loop watch it; the slot is where it is told. `PermissionDenied`: it is always ready.
    pub fn watch(&mut self, reactor: &Rc<Reactor>) -> io::Result<usize> {
        if let Some(slot) = self.slot() {
            return Ok(slot);
        }
        let registration = Registration::new(reactor);
        registration.set_any(!self.is_settled());
        registration.add(self.as_fd())?;
        let slot = registration.slot();
        self.registration = Some(registration);
        Ok(slot)
    }

    /// The descriptor is watched already.
    pub fn set_registration(&mut self, registration: Registration) {
        registration.set_any(!self.is_settled());
        self.registration = Some(registration);
    }

    pub fn slot(&self) -> Option<usize> {
        self.registration.as_ref().map(Registration::slot)
    }

    /// One write. When the connection turns out to be broken, what the peer had still said is read into
    /// `buffer` first.
    /// TLS seals at most `most` bytes.
    pub fn send(
        &mut self,
        slices: &[IoSlice<'_>],
        most: usize,
        buffer: &mut Buffer,
    ) -> Result<Step<usize>, Error> {
        self.check_output()?;
        let Source::Socket(socket) = &self.source else { return Err(Error::closed_here()) };
        if self.spent >= SHARE {
            self.spent = 0;
            return Ok(Step::Wait(Interest::Pass));
        }
        if self.secure.is_some() {
            return self.send_secure(slices, most, buffer);
        }
        match socket.send(slices) {
            Ok(Step::Ready(count)) => {
                self.spent += CALL * (1 + count / BYTES);
                Ok(Step::Ready(count))
            }
            Ok(Step::Wait(interest)) => Ok(self.wait(interest)),
            Err(error) => Err(self.broken(&error, buffer)),
        }
    }

    /// What a write that failed has to report.
    pub(super) fn broken(&mut self, error: &io::Error, buffer: &mut Buffer) -> Error {
        let was_reset = error.kind() == io::ErrorKind::ConnectionReset;
        let had_ended = matches!(self.input, Direction::Ended);
        let error = Error::from_io(error);
        self.output = Direction::Failed(error.clone());
        if error.kind() == Kind::Reset {
            self.save_last_words(buffer);
        }
        match &self.input {
            // The peer has told why, and TLS knows that it was the peer.
            Direction::Failed(reason) if reason.alert().is_some() => {
                let reason = reason.clone();
                self.output = Direction::Failed(reason.clone());
                reason
            }
            // The system tells a reset once (EPIPE instead follows an orderly end): reading has to tell it, too. TLS may
            // have brought the end already.
            _ if was_reset && !had_ended => {
                self.input = Direction::Failed(error.clone());
                error
            }
            _ => error,
        }
    }

    fn save_last_words(&mut self, buffer: &mut Buffer) {
        let enough = buffer.len() + LAST_WORDS;
        while buffer.len() < enough
            && matches!(
                self.fill_now(buffer, ROOM),
                Ok(Step::Ready(Fill::Bytes) | Step::Wait(Interest::Pass))
            )
        {}
    }

    pub fn check_output(&self) -> Result<(), Error> {
        match &self.output {
            Direction::Open => Ok(()),
            Direction::Ended => Err(Error::new(Kind::Closed, "the sending side has ended")),
            Direction::Failed(error) => Err(error.clone()),
        }
    }

    /// Whether the peer has ended the stream, or broken it off.
    pub fn has_left(&self) -> bool {
        let is_broken = |it: &Direction| matches!(it, Direction::Failed(error) if error.kind().is_leave());
        matches!(self.input, Direction::Ended) || is_broken(&self.input) || is_broken(&self.output)
    }

    /// No later write may follow: one was cut half-way. What is sealed of it stays here, and TLS says nothing: the peer
    /// sees that the stream is cut off.
    pub fn cut_output(&mut self) {
        if let Direction::Open = self.output {
            self.output = Direction::Ended;
            self.stop_sending();
        }
    }

    /// No later write will follow.
    pub fn end_output(&mut self) {
        self.say_goodbye();
        if let Direction::Open = self.output {
            self.output = Direction::Ended;
        }
    }

    /// What has arrived before the receiving side is shut down can still be read.
    pub fn shutdown(&mut self, direction: Shutdown, buffer: &mut Buffer) -> Result<(), Error> {
        if matches!(direction, Shutdown::Write | Shutdown::Both) {
            self.end_output();
        }
        if matches!(direction, Shutdown::Read | Shutdown::Both) {
            self.save_last_words(buffer);
            self.input = Direction::Ended;
        }
        let Source::Socket(socket) = &self.source else { return Ok(()) };
        match socket.shutdown(direction) {
            // The peer has gone already: what was asked for is the case.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other.map_err(|error| Error::from_io(&error)),
        }
    }

    /// `None`: standard input.
    pub fn socket(&self) -> Option<&Socket> {
        self.source.socket()
    }

    pub fn raw(&self) -> RawFd {
        match &self.source {
            Source::Socket(socket) => socket.raw(),
            Source::Stdin(input) => input.raw(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Socket(socket) => socket.as_fd(),
            Source::Stdin(input) => input.as_fd(),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.part();
        if let Some(registration) = &self.registration {
            registration.remove(self.as_fd());
        }
    }
}
