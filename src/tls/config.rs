//! From options to what rustls works with.
//!
//! rustls resumes sessions within one configuration only, and reading a system's authorities takes milliseconds: so
//! configurations are kept, for as long as the options and the files they name stay the same.

use std::env;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls_native_certs::ErrorKind;

use crate::error::Error;
use crate::error::Kind;
use crate::options::Authorities;
use crate::options::Pem;
use crate::options::TlsClientOptions;
use crate::options::TlsServerOptions;
use crate::tls::certificate;
use crate::tls::certificate::lower;
use crate::tls::certificate::unusable;
use crate::tls::verifier::Verifier;

/// How to ask a server for TLS.
#[derive(Clone)]
pub struct ClientConfig(Arc<rustls::ClientConfig>);

/// How to answer clients that ask for TLS.
#[derive(Clone)]
pub struct ServerConfig(Arc<rustls::ServerConfig>);

impl ClientConfig {
    /// The same one for the same options, as long as the files that they name do not change.
    pub fn of(options: &TlsClientOptions) -> Result<Self, Error> {
        let key = Key::of(options);
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(known, _)| *known == key) {
            // The last one is the one that was used last.
            kept[at..].rotate_left(1);
        } else {
            let config = Self::make(options)?;
            if kept.len() == MOST_KEPT {
                kept.remove(0);
            }
            kept.push((key, config));
        }
        kept.last().map(|(_, config)| config.clone()).ok_or_else(Error::out_of_memory)
    }

    fn make(options: &TlsClientOptions) -> Result<Self, Error> {
        let verifier = match (options.verify, &options.ca_bundle) {
            (false, _) => Verifier::of_anybody(provider()),
            (true, Authorities::Listed(pem)) => {
                let listed = certificate::certificates(pem, "ca_bundle")?;
                Verifier::of(provider(), listed)
                    .map_err(|problem| unusable(format!("ca_bundle: {}", lower(&problem))))?
            }
            (true, Authorities::Mozilla) => mozilla()?,
            (true, Authorities::System) => system()?,
        };
        let builder = rustls::ClientConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(impossible)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        Ok(Self(Arc::new(builder.with_no_client_auth())))
    }

    pub(super) fn shared(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.0)
    }
}

impl ServerConfig {
    pub fn of(options: &TlsServerOptions) -> Result<Self, Error> {
        let chain = certificate::certificates(&options.cert, "cert")?;
        let key = certificate::key(&options.key, "key")?;
        let builder = rustls::ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().map_err(impossible)?;
        let config = builder.with_no_client_auth().with_single_cert(chain, key);
        config.map(|config| Self(Arc::new(config))).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => unusable("key and cert do not belong together".into()),
            other => unusable(format!("cert and key cannot be used: {}", lower(&other.to_string()))),
        })
    }

    pub(super) fn shared(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.0)
    }
}

/// How many configurations are kept.
const MOST_KEPT: usize = 64;

/// The client configurations, the one that was used last at the end. Shared by every Lua state of the process.
static KEPT: Mutex<Vec<(Key, ClientConfig)>> = Mutex::new(Vec::new());

/// What makes two configurations different. The server's name does not: rustls keeps its sessions apart.
#[derive(Eq, PartialEq)]
struct Key {
    verify: bool,
    authorities: Authorities,
    stamp: Option<Stamp>,
}

impl Key {
    fn of(options: &TlsClientOptions) -> Self {
        let stamp = match &options.ca_bundle {
            Authorities::Listed(Pem::File(path)) => Stamp::of(path),
            _ => None,
        };
        Self { verify: options.verify, authorities: options.ca_bundle.clone(), stamp }
    }
}

/// Which state of a file was read.
#[derive(Eq, PartialEq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
    /// Which file it is, and when anything of it changed last: a modification time can be put back.
    #[cfg(unix)]
    file: [i64; 4],
}

impl Stamp {
    /// `None` if there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let it = fs::metadata(path).ok()?;
        Some(Self {
            size: it.len(),
            modified: it.modified().ok(),
            #[cfg(unix)]
            file: {
                use std::os::unix::fs::MetadataExt;
                [it.dev().cast_signed(), it.ino().cast_signed(), it.ctime(), it.ctime_nsec()]
            },
        })
    }
}

/// The system's authorities, read once a process.
fn system() -> Result<Verifier, Error> {
    static FOUND: OnceLock<Result<Vec<CertificateDer<'static>>, Error>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let names = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter(|name| env::var_os(name).is_some());
        let named: Vec<_> = names.collect();
        let found = rustls_native_certs::load_native_certs();
        // Whoever names them means these and no others.
        if found.certs.is_empty() && !named.is_empty() {
            let place = format!("no authorities by {}", named.join(" and "));
            return Err(match found.errors.into_iter().next().map(|problem| problem.kind) {
                Some(ErrorKind::Io { inner, path }) => {
                    Error::from_file(&format!("{place}: cannot read '{}'", path.display()), &inner)
                }
                _ => Error::new(Kind::System, place),
            });
        }
        Ok(found.certs)
    });
    let found = found.clone()?;
    if found.is_empty() { mozilla() } else { Verifier::of(provider(), found).map_err(unusable) }
}

fn mozilla() -> Result<Verifier, Error> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    Verifier::of_roots(provider(), roots, Vec::new()).map_err(unusable)
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider())))
}

/// The provider's versions are rustls's own.
fn impossible(error: rustls::Error) -> Error {
    unusable(lower(&error.to_string()))
}
