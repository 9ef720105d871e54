//! What is sent without being in memory whole: parts of files, and bytes on their way from one socket to another.

use std::fs::File;
use std::io;
use std::io::IoSlice;
use std::rc::Rc;

use crate::error::Error;
use crate::frame::buffer::Buffer;
use crate::net::stream::BYTES;
use crate::net::stream::CALL;
use crate::net::stream::Direction;
use crate::net::stream::SHARE;
use crate::net::stream::Stream;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::file;
#[cfg(any(target_os = "linux", target_os = "android"))]
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
    /// At most `count` bytes from `offset` on.
    pub fn of(file: File, offset: u64, count: Option<u64>) -> io::Result<Self> {
        let left = file::rest(&file, offset)?.min(count.unwrap_or(u64::MAX));
        Ok(Self { file, offset, left, chunk: Vec::new(), taken: 0, by_kernel: true })
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

/// Bytes between two connections, and how many.
pub struct Pump {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pipe: transfer::Pipe,
}

impl Pump {
    /// `None` where the kernel has nothing of the kind.
    pub fn new() -> io::Result<Option<Rc<Self>>> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        return Ok(Some(Rc::new(Self { pipe: transfer::Pipe::new()? })));
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        return Ok(None);
    }
}

impl Stream {
    /// Whether the kernel may move its bytes: TLS's it does not know, and standard input may be anything.
    pub fn can_be_piped(&self) -> bool {
        self.secure.is_none() && self.socket().is_some()
    }

    /// One step of sending a part of a file.
    pub(super) fn send_part(&mut self, part: &mut Part, buffer: &mut Buffer) -> Result<Step<usize>, Error> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
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

    /// One step of sending what is in the pipe: `count` bytes.
    pub(super) fn send_piped(
        &mut self,
        pump: &Pump,
        count: usize,
        buffer: &mut Buffer,
    ) -> Result<Step<usize>, Error> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(step) = self.move_out(buffer, |socket| pump.pipe.drain(socket, count))? {
            return Ok(step);
        }
        Err(Error::closed_here())
    }

    /// `None`: the kernel cannot do that.
    #[cfg(any(target_os = "linux", target_os = "android"))]
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
            Err(error) if transfer::cannot(&error) => Ok(None),
            Err(error) => Err(self.broken(&error, buffer)),
        }
    }

    /// Moves what has arrived into the pipe, which is empty. 0: the end of the stream.
    pub fn pipe_in(&mut self, pump: &Pump, count: usize) -> Result<Step<usize>, Error> {
        match &self.input {
            Direction::Open => {}
            Direction::Ended => return Ok(Step::Ready(0)),
            Direction::Failed(error) => return Err(error.clone()),
        }
        if self.has_had_its_share() {
            return Ok(Step::Wait(Interest::Pass));
        }
        let Some(socket) = self.socket() else { return Err(Error::closed_here()) };
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let filled = pump.pipe.fill(socket, count);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let filled = Err::<Step<usize>, _>(io::ErrorKind::Unsupported.into());
        match filled {
            Ok(Step::Ready(0)) => {
                self.input = Direction::Ended;
                Ok(Step::Ready(0))
            }
            Ok(Step::Ready(count)) => {
                self.spent += CALL * (1 + count / BYTES);
                Ok(Step::Ready(count))
            }
            Ok(Step::Wait(interest)) => Ok(self.wait(interest)),
            Err(error) => {
                let error = Error::from_io(&error);
                self.input = Direction::Failed(error.clone());
                Err(error)
            }
        }
    }
}
