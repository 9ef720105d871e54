//! Who one is: a certificate with its key, and a server's choice among several.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::ClientHello;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;

use crate::error::Error;
use crate::options::Identity;
use crate::options::TlsServerOptions;
use crate::tls::failure::lower;
use crate::tls::failure::unusable;
use crate::tls::pem;

/// Reads the files of `identity`.
pub fn certified(identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let (cert, key) = (&identity.called.0, &identity.called.1);
    let chain = pem::certificates(&identity.cert, cert)?;
    let der = pem::key(&identity.key, key)?;
    CertifiedKey::from_der(chain, der, provider).map_err(|error| {
        let (cert, key) = (pem::place(&identity.cert, cert), pem::place(&identity.key, key));
        unusable(match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("{key} does not belong to {cert} (whose first certificate has to be one's own)")
            }
            rustls::Error::General(_) => format!(
                "{key} is malformed, or of a kind or size that is not supported (ECDSA P-256, P-384, P-521, Ed25519, and RSA of \
                 2048 bits and more are)"
            ),
            other => format!("{cert} cannot be used: {}", lower(&other.to_string())),
        })
    })
}

thread_local! {
    /// The name that a client has just asked for on this thread: rustls tells nobody else.
    static ASKED_FOR: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes the name that a client has just asked for.
pub fn take_asked_for() -> Option<String> {
    ASKED_FOR.take()
}

/// A server's identities, by the names that clients ask for.
#[derive(Debug)]
pub struct Identities {
    own: Option<Arc<CertifiedKey>>,
    named: HashMap<String, Arc<CertifiedKey>>,
}

impl Identities {
    pub fn of(options: &TlsServerOptions, provider: &CryptoProvider) -> Result<Self, Error> {
        let read = |identity: &Identity| certified(identity, provider).map(Arc::new);
        let own = options.identity.as_ref().map(read).transpose()?;
        let named = options.names.iter().map(|(name, identity)| Ok((name.clone(), read(identity)?)));
        Ok(Self { own, named: named.collect::<Result<_, Error>>()? })
    }

    /// A name itself comes before one that covers it by `*.`.
    fn of_name(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let wild = || self.named.get(&format!("*.{}", name.split_once('.')?.1));
        self.named.get(name).or_else(wild)
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_lowercase);
        let named = name.as_ref().and_then(|name| self.of_name(name));
        let chosen = named.or(self.own.as_ref()).cloned();
        ASKED_FOR.set(name);
        chosen
    }
}
