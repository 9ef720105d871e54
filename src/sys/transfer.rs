//! Bytes that the kernel moves itself, without them coming here: from a file to a socket (sendfile(2)), and from
//! socket to socket through a pipe (splice(2)).
//!
//! Both raise SIGPIPE where the peer has gone, and take no flag against it: it is blocked in this thread meanwhile, and
//! one that has come of it is taken.

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
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::unistd::pipe2;

use crate::step::Interest;
use crate::step::Step;
use crate::sys::socket::Socket;

/// What is moved at once, at most: a pipe's size that every user may ask for (pipe(7)).
pub const MOST: usize = 1 << 20;

/// Bytes of a file on their way to a socket, from `offset` on. 0: the file ends there.
pub fn send_file(socket: &Socket, file: &File, offset: u64, count: usize) -> io::Result<Step<usize>> {
    let mut offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    moved(Interest::Write, || sendfile(socket, file, Some(&mut offset), count.min(MOST)))
}

/// Whether this says that the kernel cannot move these bytes itself.
pub fn cannot(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ESPIPE))
}

/// Where bytes are between two sockets.
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A small one is slower, nothing else.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(MOST as i32));
        Ok(Self { reader, writer })
    }

    /// Fills the pipe, which is empty. 0: the end of the stream.
    pub fn fill(&self, socket: &Socket, count: usize) -> io::Result<Step<usize>> {
        moved(Interest::Read, || splice(socket.as_fd(), None, &self.writer, None, count.min(MOST), flags()))
    }

    /// Empties the pipe, or as much of it as the socket takes.
    pub fn drain(&self, socket: &Socket, count: usize) -> io::Result<Step<usize>> {
        moved(Interest::Write, || splice(&self.reader, None, socket.as_fd(), None, count, flags()))
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

fn moved(interest: Interest, mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<Step<usize>> {
    let mut pipe_signal = SigSet::empty();
    pipe_signal.add(Signal::SIGPIPE);
    let before = pipe_signal.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let result = loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    if result == Err(Errno::EPIPE) && !before.contains(Signal::SIGPIPE) {
        // It is there already: nothing is waited for.
        let _ = pipe_signal.wait();
    }
    // It cannot fail with a mask that has just been read.
    let _ = before.thread_set_mask();
    match result {
        Ok(count) => Ok(Step::Ready(count)),
        Err(Errno::EAGAIN) => Ok(Step::Wait(interest)),
        Err(errno) => Err(errno.into()),
    }
}
