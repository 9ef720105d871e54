//! A client's sessions, by the address and the name of the server that has given them: they are offered to no other. (One
//! that wants another group and another hash than theirs would break off: rustls 0.23's does so where a second hello
//! has no session any more.)

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustls::ClientConfig;
use rustls::client::ClientSessionMemoryCache;
use rustls::client::ClientSessionStore;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;

use crate::tls::expiry::has_passed;

/// Those of one configuration.
#[derive(Clone)]
pub struct Sessions {
    config: Arc<ClientConfig>,
    /// Whether certificates are looked at: then sessions end with them.
    is_checked: bool,
    servers: Arc<Mutex<Servers>>,
}

/// By address, and name in lower case.
type Servers = HashMap<(String, String), Arc<Server>>;

/// Those with one server.
pub struct Server {
    pub config: Arc<ClientConfig>,
    name: ServerName<'static>,
    sessions: Arc<ClientSessionMemoryCache>,
    /// The Unix second after which none is resumed.
    end: AtomicU64,
}

/// With so many servers; then all are forgotten, and full handshakes follow.
const MOST: usize = 512;

/// rustls makes room for one server of so many sessions, which is the least it makes.
const ROOM: usize = 8;

impl Sessions {
    pub fn of(config: ClientConfig, is_checked: bool) -> Self {
        Self { config: Arc::new(config), is_checked, servers: Arc::default() }
    }

    pub fn with(&self, address: &str, name: ServerName<'static>) -> Arc<Server> {
        // Names of any case are the same.
        let key = (address.to_owned(), name.to_str().to_lowercase());
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.len() == MOST && !servers.contains_key(&key) {
            servers.clear();
        }
        let server = servers.entry(key).or_insert_with(|| Arc::new(self.server(name)));
        if has_passed(server.end.load(Ordering::Relaxed)) {
            server.forget();
        }
        Arc::clone(server)
    }

    fn server(&self, name: ServerName<'static>) -> Server {
        let sessions = Arc::new(ClientSessionMemoryCache::new(ROOM));
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::store(Arc::clone(&sessions) as Arc<_>);
        let end = AtomicU64::new(if self.is_checked { 0 } else { u64::MAX });
        Server { config: Arc::new(config), name, sessions, end }
    }
}

impl Server {
    /// Certificates that are good until `end` were shown. What rests on others is forgotten.
    pub fn note_end(&self, end: u64) {
        if self.end.swap(end, Ordering::Relaxed) != end {
            self.forget();
        }
    }

    pub fn forget(&self) {
        self.sessions.remove_tls12_session(&self.name);
        while self.sessions.take_tls13_ticket(&self.name).is_some() {}
    }

    pub fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }
}
