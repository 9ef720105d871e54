//! Bytes that the kernel moves itself, without them coming here: from a file to a socket (sendfile(2)), and from
//! socket to socket through a pipe (splice(2)).
//!
//! Both raise SIGPIPE where the peer has gone, and take no flag against it, see `signal.rs`.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::FcntlArg;
use nix::fcntl::OFlag;
use nix::fcntl::SpliceFFlags;
use nix::fcntl::fcntl;
use nix::fcntl::splice;
use nix::sys::sendfile::sendfile;
use nix::unistd::pipe2;

use crate::step::Interest;
use crate::step::Step;
use crate::sys::signal;
use crate::sys::socket::Socket;

/// What is moved at once, at most: a pipe's size that every user may ask for (pipe(7)).
pub const MOST: usize = 1 << 20;

/// Bytes of a file on their way to a socket, from `offset` on. 0: the file ends there.
pub fn send_file(socket: &Socket, file: &File, offset: u64, count: usize) -> io::Result<Step<usize>> {
    let mut offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    moved(Interest::Write, || sendfile(socket, file, Some(&mut offset), count.min(MOST)))
}

/// Whether this says that the socket is at fault. Anything else is the file's, or the kernel's, which cannot move these
/// bytes itself.
pub fn is_of_socket(error: &io::Error) -> bool {
    let of_socket = [
        Errno::EPIPE,
        Errno::ECONNRESET,
        Errno::ECONNABORTED,
        Errno::ENOTCONN,
        Errno::ETIMEDOUT,
        Errno::EHOSTUNREACH,
        Errno::ENETUNREACH,
        Errno::ENETDOWN,
        Errno::EHOSTDOWN,
    ];
    error.raw_os_error().is_some_and(|errno| of_socket.contains(&Errno::from_raw(errno)))
}

/// Bytes on their way between two sockets.
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    left: usize,
}

impl Pipe {
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A small one is slower, nothing else.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(MOST as i32));
        Ok(Self { reader, writer, left: 0 })
    }

    /// What has arrived at a socket, `count` bytes at most, into the empty pipe. 0: the end of the stream.
    pub fn fill(&mut self, socket: &Socket, count: usize) -> io::Result<Step<usize>> {
        debug_assert!(self.left == 0);
        let call = || splice(socket.as_fd(), None, &self.writer, None, count.min(MOST), flags());
        let step = moved(Interest::Read, call)?;
        if let Step::Ready(count) = step {
            self.left = count;
        }
        Ok(step)
    }

    /// Bytes in it.
    pub fn left(&self) -> usize {
        self.left
    }

    /// As many as the socket takes.
    pub fn drain(&mut self, socket: &Socket) -> io::Result<Step<usize>> {
        let call = || splice(&self.reader, None, socket.as_fd(), None, self.left, flags());
        let step = moved(Interest::Write, call)?;
        if let Step::Ready(count) = step {
            self.left -= count;
        }
        Ok(step)
    }

    /// All of them, here.
    pub fn take_back(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.left];
        let mut taken = 0;
        while taken < bytes.len() {
            match nix::unistd::read(&self.reader, &mut bytes[taken..]) {
                Ok(0) => break,
                Ok(count) => taken += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        bytes.truncate(taken);
        self.left = 0;
        Ok(bytes)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

fn moved(interest: Interest, mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<Step<usize>> {
    let result = without_signal(|| {
        loop {
            match call() {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    })?;
    match result {
        Ok(count) => Ok(Step::Ready(count)),
        Err(Errno::EAGAIN) => Ok(Step::Wait(interest)),
        Err(errno) => Err(errno.into()),
    }
}

/// Calls what may raise SIGPIPE, and takes the signal if it has come of it.
fn without_signal<R>(call: impl FnOnce() -> R) -> io::Result<R> {
    let blocked = signal::block()?;
    let result = call();
    drop(blocked);
    Ok(result)
}
