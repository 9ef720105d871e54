//! SIGPIPE, kept from calls that raise it and take no flag against it.

use std::io;

use nix::sys::signal::SigSet;
use nix::sys::signal::SigmaskHow;
use nix::sys::signal::Signal;

/// As long as it is there, SIGPIPE does not reach this thread. One that came meanwhile is taken in the end.
pub struct Blocked {
    before: SigSet,
}

pub fn block() -> io::Result<Blocked> {
    let before = pipe().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    Ok(Blocked { before })
}

fn pipe() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGPIPE);
    set
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // Who has blocked it for itself sees to it.
        if !self.before.contains(Signal::SIGPIPE) {
            take_pending();
        }
        // It cannot fail with a mask that has just been read.
        let _ = self.before.thread_set_mask();
    }
}

#[allow(unsafe_code, reason = "no safe crate takes a signal without waiting for it")]
fn take_pending() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: both point to what lives during the call, and nothing is asked to be written.
    unsafe {
        let now = nix::libc::timespec { tv_sec: 0, tv_nsec: 0 };
        nix::libc::sigtimedwait(pipe().as_ref(), std::ptr::null_mut(), &raw const now);
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    // SAFETY: the set is written whole before it is read, and lives during the call.
    unsafe {
        let mut pending = std::mem::zeroed();
        if nix::libc::sigpending(&raw mut pending) == 0
            && nix::libc::sigismember(&raw const pending, nix::libc::SIGPIPE) == 1
        {
            // It is there, and blocked: this does not wait.
            let _ = pipe().wait();
        }
    }
}
