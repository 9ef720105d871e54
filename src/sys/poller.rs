//! One blocking wait for a few descriptors, with an end on the monotonic clock.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;

use crate::deadline::Deadline;
use crate::step::Interest;

/// A descriptor and what is awaited of it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub fd: BorrowedFd<'a>,
    pub interest: Interest,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Woken {
    /// A descriptor is ready, or failed: the next step will tell.
    Ready,
    TimedOut,
    /// A signal came, or the wait was longer than the system counts: the caller decides whether to go on.
    Early,
}

/// Blocks this thread until one of `sources` is ready or `deadline` passes.
///
/// poll(2) is never restarted after a signal, whatever SA_RESTART says (signal(7)), which is what lets an
/// interpreter run its Ctrl-C hook.
pub fn wait(sources: &[Source<'_>], deadline: Deadline) -> io::Result<Woken> {
    let mut fds: Vec<PollFd<'_>> =
        sources.iter().map(|source| PollFd::new(source.fd, flags(source.interest))).collect();
    match poll(&mut fds, timeout(deadline.remaining(Instant::now()))) {
        Ok(0) if deadline.passed(Instant::now()) => Ok(Woken::TimedOut),
        Ok(0) | Err(Errno::EINTR) => Ok(Woken::Early),
        Ok(_) => Ok(Woken::Ready),
        Err(errno) => Err(errno.into()),
    }
}

fn flags(interest: Interest) -> PollFlags {
    match interest {
        Interest::Read => PollFlags::POLLIN,
        Interest::Write => PollFlags::POLLOUT,
        Interest::Pass | Interest::Turn => PollFlags::empty(),
    }
}

/// Whole milliseconds, rounded up: waking too early would spin.
fn timeout(remaining: Option<Duration>) -> PollTimeout {
    match remaining {
        None => PollTimeout::NONE,
        Some(left) => {
            let milliseconds = left.as_nanos().div_ceil(1_000_000);
            i32::try_from(milliseconds).ok().and_then(|ms| ms.try_into().ok()).unwrap_or(PollTimeout::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_wait_ends_at_its_deadline_and_not_before() {
        let began = Instant::now();
        let deadline = Deadline::after(began, Some(Duration::from_millis(20)));
        let mut woken = Woken::Early;
        while woken == Woken::Early {
            woken = wait(&[], deadline).unwrap();
        }
        assert_eq!(woken, Woken::TimedOut);
        assert!(began.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn a_wait_ends_when_a_descriptor_is_ready() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let source = Source { fd: reader.as_fd(), interest: Interest::Read };
        assert_eq!(wait(&[source], Deadline::NEVER).unwrap(), Woken::Ready);
    }

    #[test]
    fn part_of_a_millisecond_is_waited_for_whole() {
        assert_eq!(timeout(Some(Duration::from_nanos(1))), PollTimeout::from(1_u8));
        assert_eq!(timeout(Some(Duration::ZERO)), PollTimeout::ZERO);
        assert_eq!(timeout(Some(Duration::MAX)), PollTimeout::MAX);
    }
}
