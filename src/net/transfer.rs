//! What is sent without being in memory whole: parts of files, and bytes on their way from one socket to another.

use std::fs::File;
use std::io;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::error::Error;
use crate::error::Kind;
use crate::frame::buffer::Buffer;
use crate::net::reactor::Reactor;
use crate::net::stream::BYTES;
use crate::net::stream::CALL;
use crate::net::stream::Direction;
use crate::net::stream::SHARE;
use crate::net::stream::Stream;
use crate::net::watched::Watched;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::file;
use crate::sys::input::Input;
use crate::sys::transfer;

/// Part of a file that is to be sent.
pub struct Part {
    file: File,
    /// Where the bytes begin that have not been read or sent yet, and how many they are.
    offset: u64,
    left: u64,
    /// Read already, where the kernel cannot send them itself, and how much of that is sent.
    chunk: Vec<u8>,
    taken: usize,
    by_kernel: bool,
}

/// Bytes read at once where the kernel cannot send a file itself.
const CHUNK: usize = 256 * 1024;

impl Part {
    /// At most `count` bytes from `offset` on, up to where the file ends when they are sent.
    pub fn of(file: File, offset: u64, count: Option<u64>) -> Self {
        let left = count.unwrap_or(u64::MAX);
        Self { file, offset, left, chunk: Vec::new(), taken: 0, by_kernel: true }
    }

    pub fn is_done(&self) -> bool {
        self.left == 0 && self.taken == self.chunk.len()
    }

    fn advance(&mut self, count: usize) {
        self.taken += count;
        debug_assert!(self.taken <= self.chunk.len());
    }

    /// The next bytes, read if need be. Empty: it is done, or the file has become shorter.
    fn bytes(&mut self) -> Result<&[u8], Error> {
        if self.taken == self.chunk.len() && self.left > 0 {
            let wanted = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
            self.chunk.resize(wanted, 0);
            self.taken = 0;
            let count = file::read_at(&self.file, &mut self.chunk, self.offset)
                .map_err(|error| Error::from_file("the file cannot be read", &error));
            self.chunk.truncate(*count.as_ref().unwrap_or(&0));
            self.note(count?);
        }
        Ok(&self.chunk[self.taken..])
    }

    /// So many bytes were read or sent; none are the end of the file.
    fn note(&mut self, count: usize) {
        self.offset += count as u64;
        self.left = if count == 0 { 0 } else { self.left - count as u64 };
    }
}

/// A pipe or a terminal that Lua has as a file: it is read and written without blocking.
pub struct SlowFile(Watched<Input>);

impl SlowFile {
    pub fn of(file: File) -> Self {
        Self(Watched::new(Input::of(file)))
    }

    /// One read. `Ready(0)` is the end.
    pub fn read(&self, room: &mut [u8]) -> Result<Step<usize>, Error> {
        self.0.recv(room).map_err(|error| Error::from_file("the file cannot be read", &error))
    }

    /// One write of some of the bytes.
    pub fn write(&self, bytes: &[u8]) -> Result<Step<usize>, Error> {
        self.0.send(bytes).map_err(|error| Error::from_system(&error))
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Has the loop watch it; the slot is where it is told.
    pub fn watch(&mut self, reactor: &Rc<Reactor>) -> io::Result<usize> {
        self.0.watch(reactor)
    }
}

/// Bytes between two connections, in the kernel.
pub use crate::sys::transfer::Pipe;

impl Stream {
    /// Whether the kernel may move its bytes: TLS's it does not know, and standard input may be anything.
    pub fn can_be_piped(&self) -> bool {
        self.secure.is_none() && self.socket().is_some()
    }

    /// One step of sending a part of a file.
    pub(super) fn send_part(&mut self, part: &mut Part, buffer: &mut Buffer) -> Result<Step<usize>, Error> {
        if part.by_kernel && part.chunk.is_empty() && self.can_be_piped() {
            let count = usize::try_from(part.left).unwrap_or(transfer::MOST);
            let (file, offset) = (&part.file, part.offset);
            let sent = self.move_out(buffer, |socket| transfer::send_file(socket, file, offset, count))?;
            match sent {
                Some(Step::Ready(count)) => {
                    part.note(count);
                    return Ok(Step::Ready(count));
                }
                Some(wait) => return Ok(wait),
                None => part.by_kernel = false,
            }
        }
        let bytes = part.bytes()?;
        if bytes.is_empty() {
            return Ok(Step::Ready(0));
        }
        let sent = self.send(&[IoSlice::new(bytes)], usize::MAX, buffer);
        let count = match &sent {
            Ok(Step::Ready(count)) => *count,
            Ok(Step::Wait(_)) => 0,
            Err(error) => error.written().unwrap_or_default(),
        };
        part.advance(count);
        sent
    }

    /// One step of sending what is in the pipe.
    pub(super) fn send_piped(&mut self, pipe: &mut Pipe, buffer: &mut Buffer) -> Result<Step<usize>, Error> {
        match self.move_out(buffer, |socket| pipe.drain(socket))? {
            Some(step) => Ok(step),
            // It goes the other way.
            None => {
                let bytes = pipe.take_back().map_err(|error| Error::from_io(&error))?;
                Err(Error::new(Kind::System, "the kernel cannot move the bytes itself").with_data(bytes))
            }
        }
    }

    /// `None`: the kernel cannot do that.
    fn move_out(
        &mut self,
        buffer: &mut Buffer,
        call: impl FnOnce(&crate::sys::socket::Socket) -> io::Result<Step<usize>>,
    ) -> Result<Option<Step<usize>>, Error> {
        self.check_output()?;
        if self.spent >= SHARE {
            self.spent = 0;
            return Ok(Some(Step::Wait(Interest::Pass)));
        }
        let Some(socket) = self.socket() else { return Ok(None) };
        match call(socket) {
            Ok(Step::Ready(count)) => {
                self.spent += CALL * (1 + count / BYTES);
                Ok(Some(Step::Ready(count)))
            }
            Ok(Step::Wait(interest)) => Ok(Some(self.wait(interest))),
            Err(error) if transfer::is_of_socket(&error) => Err(self.broken(&error, buffer)),
            Err(_) => Ok(None),
        }
    }

    /// Moves what has arrived into an empty pipe, and tells how much that is; 0 is the end of the stream. `None`:
    /// nothing has arrived, or the kernel cannot do that; it has to go another way.
    pub fn pipe_in(&mut self, count: usize, pipe: &mut Pipe) -> Result<Step<Option<usize>>, Error> {
        if self.has_had_its_share() {
            return Ok(Step::Wait(Interest::Pass));
        }
        let (Direction::Open, Some(socket)) = (&self.input, self.socket()) else {
            return Ok(Step::Ready(None));
        };
        match pipe.fill(socket, count) {
            Ok(Step::Ready(count)) => {
                if count == 0 {
                    self.input = Direction::Ended;
                }
                self.spent += CALL * (1 + count / BYTES);
                Ok(Step::Ready(Some(count)))
            }
            // The system tells it once.
            Err(error) if transfer::is_of_socket(&error) => {
                let error = Error::from_io(&error);
                self.input = Direction::Failed(error.clone());
                Err(error)
            }
            Ok(Step::Wait(_)) | Err(_) => Ok(Step::Ready(None)),
        }
    }
}
