//! Until when a session may be resumed: rustls looks at no certificate then, and each resumption brings the next ticket.
//! So no session outlives the certificates that it began with.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;

use crate::tls::certificate::Facts;

/// When the first of these certificates ends that has not ended yet, in Unix seconds: a server may send some that nobody
/// needs any more.
pub fn first_end<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'a>>, now: UnixTime) -> u64 {
    let ends = certificates.filter_map(|it| Facts::of(it)?.validity().1.try_into().ok());
    ends.filter(|end| *end >= now.as_secs()).min().unwrap_or(u64::MAX)
}

fn has_passed(end: u64) -> bool {
    UnixTime::now().as_secs() > end
}

/// A client's: when the sessions with servers end.
#[derive(Debug, Default)]
pub struct ServerEnds(Mutex<HashMap<String, u64>>);

impl ServerEnds {
    /// More are not remembered: then all are forgotten, and full handshakes follow.
    const MOST: usize = 1024;

    /// Names of any case are the same.
    pub fn note(&self, server: &ServerName<'_>, end: u64) {
        let server = server.to_str().to_lowercase();
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.len() == Self::MOST && !ends.contains_key(&server) {
            ends.clear();
        }
        ends.insert(server, end);
    }

    pub fn has_passed(&self, server: &ServerName<'_>) -> bool {
        let server = server.to_str().to_lowercase();
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(&server).is_none_or(|end| has_passed(*end))
    }
}

thread_local! {
    /// When the client's certificate ends whose connection is being worked on.
    static CLIENT_END: Cell<Option<u64>> = const { Cell::new(None) };
}

pub fn set_client_end(end: Option<u64>) {
    CLIENT_END.set(end);
}

pub fn client_end() -> Option<u64> {
    CLIENT_END.get()
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
        let end = client_end().unwrap_or(u64::MAX);
        self.0.encrypt(&[&end.to_be_bytes(), plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.0.decrypt(cipher)?;
        let (end, plain) = plain.split_first_chunk()?;
        let end = u64::from_be_bytes(*end);
        set_client_end(Some(end));
        (!has_passed(end)).then(|| plain.to_vec())
    }
}
