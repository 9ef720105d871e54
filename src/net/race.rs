//! Attempts to connect to several addresses, in the manner of RFC 8305: each has a head start before the next one
//! begins beside it, and one that fails lets the next begin at once.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;
use std::time::Instant;

use crate::address::Address;
use crate::error::Error;
use crate::error::Kind;
use crate::net::reactor::Registration;
use crate::options::ConnectOptions;
use crate::sys::socket::Attempt;
use crate::sys::socket::Socket;

/// Attempts under way, and those to come.
pub struct Race {
    pub waiting: VecDeque<SocketAddr>,
    pub running: Vec<(Watched<Socket>, SocketAddr)>,
    /// When the next attempt begins.
    pub next: Instant,
}

/// A descriptor, and whether it belongs to the dial's registration.
pub struct Watched<T> {
    pub it: T,
    pub is_watched: bool,
}

impl<T: AsFd> Watched<T> {
    pub fn not_yet(it: T) -> Self {
        Self { it, is_watched: false }
    }

    pub fn watch(&mut self, registration: &Registration) -> io::Result<()> {
        if !self.is_watched {
            registration.add(self.it.as_fd())?;
            self.is_watched = true;
        }
        Ok(())
    }
}

/// The head start of an attempt (RFC 8305, section 5, recommends 250 ms).
pub const HEAD_START: Duration = Duration::from_millis(250);

impl Race {
    pub fn of(addresses: impl Iterator<Item = SocketAddr>, now: Instant) -> Self {
        Self { waiting: interleave(addresses), running: Vec::new(), next: now }
    }

    /// Looks at what is running and starts what is due, until there is nothing left to do at once.
    pub fn step(
        &mut self,
        options: &ConnectOptions,
        now: Instant,
        failure: &mut Option<Error>,
    ) -> Option<(Watched<Socket>, SocketAddr)> {
        loop {
            if let Some(connected) = self.look(now, failure) {
                return Some(connected);
            }
            if !self.running.is_empty() && now < self.next {
                return None;
            }
            let address = self.waiting.pop_front()?;
            match Socket::connect(&address, options.bind.as_ref()) {
                Ok(socket) => {
                    self.running.push((Watched::not_yet(socket), address));
                    self.next = now + HEAD_START;
                }
                Err(error) => note(failure, Error::from_connect(&error)),
            }
        }
    }

    /// Nothing is under way or to come.
    pub fn is_over(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    fn look(&mut self, now: Instant, failure: &mut Option<Error>) -> Option<(Watched<Socket>, SocketAddr)> {
        let mut at = 0;
        while let Some((socket, address)) = self.running.get(at) {
            let error = match socket.it.attempt() {
                Attempt::Pending => {
                    at += 1;
                    continue;
                }
                // TCP's simultaneous open has connected the socket with itself: nobody listens there.
                Attempt::Connected
                    if socket.it.local_address().is_ok_and(|own| own == Address::Ip(*address)) =>
                {
                    io::ErrorKind::ConnectionRefused.into()
                }
                Attempt::Connected => return Some(self.running.swap_remove(at)),
                Attempt::Failed(error) => error,
            };
            self.running.swap_remove(at);
            self.next = now;
            note(failure, Error::from_connect(&error));
        }
        None
    }
}

/// Keeps the failure that tells most: `refused` before `unreachable` before anything else.
fn note(failure: &mut Option<Error>, new: Error) {
    let rank = |error: &Error| match error.kind() {
        Kind::Refused => 0,
        Kind::Unreachable => 1,
        _ => 2,
    };
    if failure.as_ref().is_none_or(|old| rank(&new) < rank(old)) {
        *failure = Some(new);
    }
}

/// Alternates the families, beginning with that of the first address (RFC 8305, section 4). Within a family
/// the system's order stays (RFC 6724).
fn interleave(addresses: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut addresses = addresses.peekable();
    let first_is_ipv4 = addresses.peek().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses.partition(|it| it.is_ipv4() == first_is_ipv4);
    let mut mixed = VecDeque::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return mixed,
            pair => mixed.extend([pair.0, pair.1].into_iter().flatten()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_and_keep_their_order() {
        let [a, b, c, x]: [SocketAddr; 4] =
            ["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"].map(|text| text.parse().unwrap());
        assert_eq!(interleave([a, b, c, x].into_iter()), [a, x, b, c]);
        assert_eq!(interleave([x, a, b].into_iter()), [x, a, b]);
    }
}
