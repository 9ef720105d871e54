//! Until when a session may be resumed: rustls looks at no certificate then, and each resumption brings the next ticket.
//! So no session outlives the certificates that it began with.

use std::cell::Cell;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;

use crate::tls::certificate::Facts;

/// When the first of these certificates ends that has not ended yet, in Unix seconds: a server may send some that nobody
/// needs any more.
pub fn first_end<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'a>>, now: UnixTime) -> u64 {
    let ends = certificates.filter_map(|it| Facts::of(it)?.validity().1.try_into().ok());
    ends.filter(|end| *end >= now.as_secs()).min().unwrap_or(u64::MAX)
}

pub fn has_passed(end: u64) -> bool {
    UnixTime::now().as_secs() > end
}

thread_local! {
    /// When the certificates end of the peer whose connection is being worked on.
    static PEER_END: Cell<Option<u64>> = const { Cell::new(None) };
}

pub fn set_peer_end(end: Option<u64>) {
    PEER_END.set(end);
}

pub fn peer_end() -> Option<u64> {
    PEER_END.get()
}

/// A server's tickets: they tell when the client's certificate ends.
#[derive(Debug)]
pub struct Tickets(pub Arc<dyn ProducesTickets>);

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let end = peer_end().unwrap_or(u64::MAX);
        self.0.encrypt(&[&end.to_be_bytes(), plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.0.decrypt(cipher)?;
        let (end, plain) = plain.split_first_chunk()?;
        let end = u64::from_be_bytes(*end);
        if has_passed(end) {
            return None;
        }
        set_peer_end(Some(end));
        Some(plain.to_vec())
    }
}
