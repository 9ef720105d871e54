//! The process's standard input and what is like it: a terminal, a pipe or a file that other processes may share.
//!
//! O_NONBLOCK would hold for all who share it, the shell among them. So it is read only once it is readable.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::time::Instant;

use crate::deadline::Deadline;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::poller;
use crate::sys::poller::Source;
use crate::sys::poller::Woken;
use crate::sys::signal;

/// A descriptor of its own for standard input, so that closing it leaves descriptor 0 to others.
pub struct Input(File);

/// Bytes that every pipe takes at once if it takes any, on Linux; elsewhere at least 512 (POSIX, limits.h).
const FEW: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 4096 } else { 512 };

impl Input {
    pub fn stdin() -> io::Result<Self> {
        io::stdin().as_fd().try_clone_to_owned().map(|fd| Self(fd.into()))
    }

    /// Of any file that others have, too.
    pub fn of(file: File) -> Self {
        Self(file)
    }

    /// One read. `Ready(0)` is the end.
    pub fn recv(&self, room: &mut [u8]) -> io::Result<Step<usize>> {
        loop {
            let source = Source { fd: self.as_fd(), interest: Interest::Read };
            match poller::wait(&[source], Deadline::at(Instant::now()))? {
                Woken::Ready => {}
                Woken::TimedOut => return Ok(Step::Wait(Interest::Read)),
                Woken::Early => continue,
            }
            match (&self.0).read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Step::Wait(Interest::Read));
                }
                other => return other.map(Step::Ready),
            }
        }
    }

    /// One write of a few bytes, which does not block where there is room for any (PIPE_BUF, pipe(7)).
    pub fn send(&self, bytes: &[u8]) -> io::Result<Step<usize>> {
        loop {
            let source = Source { fd: self.as_fd(), interest: Interest::Write };
            match poller::wait(&[source], Deadline::at(Instant::now()))? {
                Woken::Ready => {}
                Woken::TimedOut => return Ok(Step::Wait(Interest::Write)),
                Woken::Early => continue,
            }
            let blocked = signal::block()?;
            let written = (&self.0).write(&bytes[..bytes.len().min(FEW)]);
            drop(blocked);
            match written {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Step::Wait(Interest::Write));
                }
                other => return other.map(Step::Ready),
            }
        }
    }

    /// The descriptor, for loops of others.
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
