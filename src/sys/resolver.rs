//! Names to addresses, off the calling thread.
//!
//! The system's own resolver (getaddrinfo) knows the hosts file, search domains and whatever else the machine
//! is set up with, but it blocks. So each look-up has a thread of its own, and the end of a pipe that becomes
//! readable once the answer is there. Dropping a `Lookup` abandons it: the thread ends when the system
//! answers, and touches nothing but what it owns.

use std::io;
use std::io::PipeReader;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::thread;

use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;

/// A look-up under way.
pub struct Lookup {
    answer: Receiver<io::Result<Vec<SocketAddr>>>,
    /// Its other end is closed after the answer was handed over.
    done: PipeReader,
}

impl Lookup {
    pub fn start(name: String, port: u16) -> io::Result<Self> {
        let (sender, answer) = mpsc::channel();
        let (done, writer) = io::pipe()?;
        let look_up = move || {
            let addresses = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
            // Nobody may be waiting any more; then the answer is not wanted.
            let _ = sender.send(addresses);
            drop(writer);
        };
        // The thread inherits a mask with every signal blocked: Ctrl-C belongs to the interpreter's thread.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let spawned = thread::Builder::new().name("tcp-resolver".into()).spawn(look_up);
        mask.thread_set_mask()?;
        spawned.map(|_| Self { answer, done })
    }

    /// The answer, once it is there.
    pub fn poll(&self) -> Option<io::Result<Vec<SocketAddr>>> {
        self.answer.try_recv().ok()
    }
}

impl AsFd for Lookup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Deadline;
    use crate::step::Interest;
    use crate::sys::poller;

    #[test]
    fn localhost_is_found_and_the_descriptor_says_when() {
        let lookup = Lookup::start("localhost".into(), 80).unwrap();
        let source = poller::Source { fd: lookup.as_fd(), interest: Interest::Read };
        assert_eq!(poller::wait(&[source], Deadline::NEVER).unwrap(), poller::Woken::Ready);
        let addresses = lookup.poll().expect("the answer is there when the descriptor says so").unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
    }
}
