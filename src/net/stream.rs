//! The two directions of a connection: bytes from the peer into a buffer, bytes to the peer, and how each
//! direction ended.

use std::io;
use std::io::IoSlice;
use std::net::Shutdown;

use crate::error::Error;
use crate::error::Kind;
use crate::frame::buffer::Buffer;
use crate::step::Step;
use crate::sys::socket::Socket;

pub struct Stream {
    socket: Socket,
    input: Direction,
    output: Direction,
}

/// Once ended, a direction stays so, and every later use is answered alike.
enum Direction {
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
const ROOM: usize = 2048;

impl Stream {
    pub fn new(socket: Socket) -> Self {
        Self { socket, input: Direction::Open, output: Direction::Open }
    }

    /// One read into `buffer`, with room for `wanted` more bytes.
    pub fn fill(&mut self, buffer: &mut Buffer, wanted: usize) -> Result<Step<Fill>, Error> {
        match &self.input {
            Direction::Open => {}
            Direction::Ended => return Ok(Step::Ready(Fill::End)),
            Direction::Failed(error) => return Err(error.clone()),
        }
        match self.socket.recv(buffer.room(wanted.max(ROOM))?) {
            Ok(Step::Ready(0)) => {
                self.input = Direction::Ended;
                Ok(Step::Ready(Fill::End))
            }
            Ok(Step::Ready(count)) => {
                buffer.arrived(count);
                Ok(Step::Ready(Fill::Bytes))
            }
            Ok(Step::Wait(interest)) => Ok(Step::Wait(interest)),
            Err(error) => {
                let error = Error::from_io(&error);
                self.input = Direction::Failed(error.clone());
                Err(error)
            }
        }
    }

    /// One write. When the connection turns out to be broken, what the peer had still said is read into
    /// `buffer` first.
    pub fn send(&mut self, slices: &[IoSlice<'_>], buffer: &mut Buffer) -> Result<Step<usize>, Error> {
        self.check_output()?;
        match self.socket.send(slices) {
            Ok(step) => Ok(step),
            Err(error) => {
                let was_reset = error.kind() == io::ErrorKind::ConnectionReset;
                let error = Error::from_io(&error);
                self.output = Direction::Failed(error.clone());
                if error.kind() == Kind::Reset {
                    self.save_last_words(buffer);
                }
                // The system tells a reset once (EPIPE instead follows an orderly end): reading has to tell it, too.
                if was_reset {
                    self.input = Direction::Failed(error.clone());
                }
                Err(error)
            }
        }
    }

    fn save_last_words(&mut self, buffer: &mut Buffer) {
        let enough = buffer.len() + LAST_WORDS;
        while buffer.len() < enough && matches!(self.fill(buffer, ROOM), Ok(Step::Ready(Fill::Bytes))) {}
    }

    pub fn check_output(&self) -> Result<(), Error> {
        match &self.output {
            Direction::Open => Ok(()),
            Direction::Ended => Err(Error::new(Kind::Closed, "the sending side has ended")),
            Direction::Failed(error) => Err(error.clone()),
        }
    }

    /// No later write may follow: one was cut half-way.
    pub fn end_output(&mut self) {
        if let Direction::Open = self.output {
            self.output = Direction::Ended;
        }
    }

    /// What has arrived before the receiving side is shut down can still be read.
    pub fn shutdown(&mut self, direction: Shutdown, buffer: &mut Buffer) -> Result<(), Error> {
        if matches!(direction, Shutdown::Write | Shutdown::Both) {
            self.output = Direction::Ended;
        }
        if matches!(direction, Shutdown::Read | Shutdown::Both) {
            self.save_last_words(buffer);
            self.input = Direction::Ended;
        }
        match self.socket.shutdown(direction) {
            // The peer has gone already: what was asked for is the case.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other.map_err(|error| Error::from_io(&error)),
        }
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}
