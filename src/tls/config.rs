//! From options to what rustls works with.
//!
//! rustls resumes sessions within one configuration only, and reading a system's authorities takes milliseconds: so
//! configurations are kept. A server's are, too: the keys of its tickets are part of them (RFC 8446, section 4.6.1).

use std::sync::Arc;
use std::sync::OnceLock;

use rustls::SupportedProtocolVersion;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS12;
use rustls::version::TLS13;

use crate::error::Error;
use crate::options::Authorities as Believed;
use crate::options::ClientAuth;
use crate::options::Protocols;
use crate::options::TlsClientOptions;
use crate::options::TlsServerOptions;
use crate::tls::expiry::Tickets;
use crate::tls::failure::lower;
use crate::tls::failure::unusable;
use crate::tls::identity;
use crate::tls::identity::Identities;
use crate::tls::kept::Kept;
use crate::tls::kept::Stamps;
use crate::tls::pem;
use crate::tls::sessions::Server;
use crate::tls::sessions::Sessions;
use crate::tls::store;
use crate::tls::verifier::Anybody;
use crate::tls::verifier::Authorities;
use crate::tls::verifier::Clients;
use crate::tls::verifier::Servers;

/// How to ask a server for TLS.
#[derive(Clone)]
pub struct ClientConfig(Sessions);

/// How to answer clients that ask for TLS.
#[derive(Clone)]
pub struct ServerConfig {
    shared: Arc<rustls::ServerConfig>,
    /// The files it was made of.
    stamps: Stamps,
}

static CLIENTS: Kept<TlsClientOptions, ClientConfig> = Kept::new();
static SERVERS: Kept<TlsServerOptions, ServerConfig> = Kept::new();

impl ClientConfig {
    /// The same one for the same options, as long as the files that they name do not change.
    pub fn of(options: &TlsClientOptions) -> Result<Self, Error> {
        let stamps = Stamps::of(options.files());
        match options.sni {
            None => CLIENTS.get(options, &stamps, Self::make),
            Some(_) => CLIENTS.get(&TlsClientOptions { sni: None, ..options.clone() }, &stamps, Self::make),
        }
    }

    fn make(options: &TlsClientOptions) -> Result<Self, Error> {
        let builder = rustls::ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&versions(options.protocols)).map_err(impossible)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier(options)?);
        let mut config = match &options.identity {
            None => builder.with_no_client_auth(),
            Some(it) => {
                let certified = identity::certified(it, &provider())?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols.clone_from(&options.alpn);
        Ok(Self(Sessions::of(config, options.verify)))
    }

    /// What is known of the server of this name at this address.
    pub(super) fn server(&self, address: &str, name: ServerName<'static>) -> Arc<Server> {
        self.0.with(address, name)
    }
}

fn verifier(options: &TlsClientOptions) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if !options.verify {
        return Ok(Arc::new(Anybody(provider().signature_verification_algorithms)));
    }
    let authorities = match &options.ca_bundle {
        Believed::Listed(pem) => Authorities::of(pem::certificates(pem, "ca_bundle")?),
        Believed::Mozilla => store::mozilla(),
        Believed::System => store::system()?,
    };
    let lists = options.crl.as_ref().map(|pem| pem::revocation_lists(pem, "crl")).transpose()?;
    let verifier = Servers::of(&provider(), authorities, lists.unwrap_or_default());
    let unusable = |problem: String| match &options.crl {
        Some(pem) => unusable(format!("{} cannot be used: {}", pem::place(pem, "crl"), lower(&problem))),
        None => unusable(lower(&problem)),
    };
    Ok(Arc::new(verifier.map_err(unusable)?))
}

impl ServerConfig {
    /// The same one for the same options, as long as the files that they name do not change.
    pub fn of(options: &TlsServerOptions) -> Result<Self, Error> {
        let stamps = Stamps::of(options.files());
        SERVERS.get(options, &stamps, |options| Self::make(options, stamps.clone()))
    }

    /// After a file of its options has changed it becomes another, unless that cannot be used: then it stays as it is until
    /// the next change.
    pub fn renew(&mut self, options: &TlsServerOptions) {
        let stamps = Stamps::of(options.files());
        if stamps.are_settled() && stamps == self.stamps {
            return;
        }
        match Self::of(options) {
            Ok(renewed) => *self = renewed,
            Err(_) => self.stamps = stamps,
        }
    }

    fn make(options: &TlsServerOptions, stamps: Stamps) -> Result<Self, Error> {
        let builder = rustls::ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&versions(options.protocols)).map_err(impossible)?;
        let builder = builder.with_client_cert_verifier(client_verifier(options)?);
        let identities = Identities::of(options, &provider())?;
        let mut config = builder.with_cert_resolver(Arc::new(identities));
        config.alpn_protocols.clone_from(&options.alpn);
        // Most clients offer AES-256 first for no reason of theirs.
        config.ignore_client_order = true;
        config.ticketer = Arc::new(Tickets(aws_lc_rs::Ticketer::new().map_err(impossible)?));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { shared: Arc::new(config), stamps })
    }

    pub(super) fn shared(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.shared)
    }
}

fn client_verifier(options: &TlsServerOptions) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let authorities =
        options.client_ca.as_ref().map(|pem| pem::certificates(pem, "client_ca")).transpose()?;
    match (options.client_auth, authorities) {
        (ClientAuth::None, _) | (_, None) => Ok(WebPkiClientVerifier::no_client_auth()),
        (auth, Some(listed)) => {
            let verifier = Clients::of(&provider(), Authorities::of(listed), auth == ClientAuth::Required);
            Ok(Arc::new(verifier.map_err(unusable)?))
        }
    }
}

fn versions(protocols: Protocols) -> Vec<&'static SupportedProtocolVersion> {
    [(protocols.tls13, &TLS13), (protocols.tls12, &TLS12)]
        .into_iter()
        .filter_map(|(is_wanted, version)| is_wanted.then_some(version))
        .collect()
}

/// AES-128 comes first: it is as safe here, its hash is several times cheaper in a handshake, and it is what browsers
/// offer first.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let mut provider = aws_lc_rs::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|it| !it.suite().as_str().is_some_and(|name| name.contains("AES_128")));
        Arc::new(provider)
    };
    Arc::clone(PROVIDER.get_or_init(make))
}

/// The provider's versions are rustls's own.
fn impossible(error: rustls::Error) -> Error {
    unusable(lower(&error.to_string()))
}
