//! Names to addresses, off the calling thread.
//!
//! The system's own resolver (getaddrinfo) knows the hosts file, search domains and whatever else the machine
//! is set up with, but it blocks. So each look-up has a thread of its own, and the end of a pipe that becomes
//! readable once the answer is there. Dropping a `Lookup` abandons it: the thread ends when the system
//! answers, and keeps nothing of ours open until then.

use std::io;
use std::io::PipeReader;
use std::io::PipeWriter;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;

/// A look-up under way.
pub struct Lookup {
    shared: Arc<Mutex<Shared>>,
    done: PipeReader,
}

type Answer = io::Result<Vec<SocketAddr>>;

/// What the thread and its `Lookup` both hold.
struct Shared {
    answer: Option<Answer>,
    /// The other end of `done`: closed once the answer is there, or not wanted any more.
    wake: Option<PipeWriter>,
}

impl Lookup {
    pub fn start(name: String, port: u16) -> io::Result<Self> {
        let (done, wake) = io::pipe()?;
        let shared = Arc::new(Mutex::new(Shared { answer: None, wake: Some(wake) }));
        let own = Arc::clone(&shared);
        let look_up = move || {
            let answer = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
            let mut shared = own.lock().unwrap_or_else(PoisonError::into_inner);
            shared.answer = Some(answer);
            shared.wake = None;
        };
        // The thread inherits a mask with every signal blocked: Ctrl-C belongs to the interpreter's thread.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let spawned = thread::Builder::new().name("tcp-resolver".into()).spawn(look_up);
        mask.thread_set_mask()?;
        spawned.map(|_| Self { shared, done })
    }

    /// The answer, once it is there.
    pub fn poll(&self) -> Option<Answer> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).answer.take()
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).wake = None;
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
