//! Names to addresses, off the calling thread.
//!
//! The system's own resolver (getaddrinfo) knows the hosts file, search domains and whatever else the machine
//! is set up with, but it blocks. So each look-up has a thread, and a descriptor that becomes readable once the
//! answer is there. Dropping a `Lookup` abandons it: the thread goes on when the system answers, and keeps
//! nothing of ours open until then.
//!
//! Slow look-ups must not hold up quick ones, so threads are many; but a process has no more than `MOST` of them,
//! however many states it runs, and further look-ups wait for one. A few stay for a while: the system's resolver reads
//! its configuration anew in each thread, which takes longer than a look-up in the hosts file.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::process;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;

use bell::Bell;
use bell::Ear;

/// A look-up under way.
pub struct Lookup {
    shared: Arc<Mutex<Shared>>,
    done: Ear,
}

type Answer = io::Result<Vec<SocketAddr>>;

/// What the thread and its `Lookup` both hold.
struct Shared {
    answer: Option<Answer>,
    /// Rings `done`. Gone once the answer is there, or not wanted any more.
    bell: Option<Bell>,
}

struct Job {
    name: String,
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

/// Threads at the same time, at most.
const MOST: usize = 512;

/// getaddrinfo keeps its answers on the stack, some of which the default would let grow to 8 MiB.
const STACK: usize = 512 * 1024;

/// Threads that wait for another look-up, at most, and for how long.
const MOST_IDLE: usize = 2;
const PATIENCE: Duration = Duration::from_secs(5);

/// What all states of a process share.
static POOL: Mutex<Pool> = Mutex::new(Pool { process: 0, threads: 0, idle: 0, jobs: VecDeque::new() });

/// Wakes idle threads.
static MORE: Condvar = Condvar::new();

struct Pool {
    /// Whose threads they are: a process that was forked has none of its parent's.
    process: u32,
    threads: usize,
    /// `idle <= threads`
    idle: usize,
    /// Look-ups that no thread has begun.
    jobs: VecDeque<Job>,
}

impl Pool {
    fn forget_parent(&mut self) {
        let process = process::id();
        if self.process != process {
            *self = Self { process, threads: 0, idle: 0, jobs: VecDeque::new() };
        }
    }
}

impl Lookup {
    pub fn start(name: String, port: u16) -> io::Result<Self> {
        let (bell, done) = bell::new()?;
        let shared = Arc::new(Mutex::new(Shared { answer: None, bell: Some(bell) }));
        let job = Job { name, port, shared: Arc::clone(&shared) };
        let mut pool = lock(&POOL);
        pool.forget_parent();
        pool.jobs.push_back(job);
        if pool.jobs.len() <= pool.idle {
            MORE.notify_one();
        } else if pool.threads < MOST {
            match spawn() {
                Ok(()) => pool.threads += 1,
                // A thread that is there takes it.
                Err(_) if pool.threads > 0 => {}
                Err(error) => {
                    pool.jobs.pop_back();
                    return Err(error);
                }
            }
        }
        Ok(Self { shared, done })
    }

    /// The answer, once it is there.
    pub fn poll(&self) -> Option<Answer> {
        lock(&self.shared).answer.take()
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        lock(&self.shared).bell = None;
    }
}

impl AsFd for Lookup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

/// The thread inherits a mask with every signal blocked: Ctrl-C belongs to the interpreter's thread.
fn spawn() -> io::Result<()> {
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let spawned = thread::Builder::new().name("tcp-resolver".into()).stack_size(STACK).spawn(work);
    // It cannot fail with a mask that has just been read.
    let _ = mask.thread_set_mask();
    spawned.map(drop)
}

fn work() {
    while let Some(job) = next_job() {
        let is_wanted = lock(&job.shared).bell.is_some();
        if is_wanted {
            let answer = (job.name.as_str(), job.port).to_socket_addrs().map(Iterator::collect);
            let mut shared = lock(&job.shared);
            shared.answer = Some(answer);
            if let Some(bell) = shared.bell.take() {
                bell.ring();
            }
        }
    }
}

/// `None` ends the thread.
fn next_job() -> Option<Job> {
    let mut pool = lock(&POOL);
    if pool.jobs.is_empty() && pool.idle < MOST_IDLE {
        pool.idle += 1;
        let waited = MORE.wait_timeout_while(pool, PATIENCE, |pool| pool.jobs.is_empty());
        pool = waited.unwrap_or_else(PoisonError::into_inner).0;
        pool.idle -= 1;
    }
    let job = pool.jobs.pop_front();
    if job.is_none() {
        pool.threads -= 1;
    }
    job
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On Linux one descriptor for both ends, so that checking hundreds of hosts takes no more than connecting to them.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod bell {
    use nix::sys::eventfd::EfdFlags;
    use nix::sys::eventfd::EventFd;

    use super::*;

    pub struct Bell(Arc<EventFd>);
    pub struct Ear(Arc<EventFd>);

    pub fn new() -> io::Result<(Bell, Ear)> {
        let fd = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        Ok((Bell(Arc::clone(&fd)), Ear(fd)))
    }

    impl Bell {
        pub fn ring(self) {
            // It can fail only if it was rung 2^64 times.
            let _ = self.0.write(1);
        }
    }

    impl AsFd for Ear {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod bell {
    use std::io::PipeReader;
    use std::io::PipeWriter;

    use super::*;

    pub struct Bell(PipeWriter);
    pub type Ear = PipeReader;

    pub fn new() -> io::Result<(Bell, Ear)> {
        io::pipe().map(|(ear, bell)| (Bell(bell), ear))
    }

    impl Bell {
        /// Its end of the pipe is closed.
        pub fn ring(self) {
            drop(self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Deadline;
    use crate::step::Interest;
    use crate::sys::poller;

    fn wait(lookup: &Lookup) -> Answer {
        let source = poller::Source { fd: lookup.as_fd(), interest: Interest::Read };
        assert_eq!(poller::wait(&[source], Deadline::NEVER).unwrap(), poller::Woken::Ready);
        lookup.poll().expect("the answer is there when the descriptor says so")
    }

    #[test]
    fn localhost_is_found_and_the_descriptor_says_when() {
        let addresses = wait(&Lookup::start("localhost".into(), 80).unwrap()).unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
    }

    #[test]
    fn more_look_ups_than_threads_are_answered_all() {
        let lookups: Vec<_> =
            (0..MOST + 50).map(|_| Lookup::start("127.0.0.1".into(), 80).unwrap()).collect();
        assert!(lookups.iter().all(|lookup| wait(lookup).is_ok()));
    }
}
