//! From options to what rustls works with.
//!
//! rustls resumes sessions within one configuration only, and reading a system's authorities takes milliseconds: so
//! configurations are kept, for as long as the options and the files they name stay the same.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
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
        if let Some(config) = Self::kept(&key) {
            return Ok(config);
        }
        // Files are read while nobody else has to wait for that.
        let config = Self::make(options)?;
        let mut kept = lock();
        if kept.len() == MOST_KEPT {
            kept.remove(0);
        }
        kept.push((key, config.clone()));
        Ok(config)
    }

    fn kept(key: &Key) -> Option<Self> {
        let mut kept = lock();
        let at = kept.iter().position(|(known, _)| known == key)?;
        // The last one is the one that was used last.
        kept[at..].rotate_left(1);
        kept.last().map(|(_, config)| config.clone())
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
            rustls::Error::InconsistentKeys(_) => {
                unusable("key and cert do not belong together (the server's own certificate comes first)".into())
            }
            rustls::Error::General(_) => unusable(
                "key is of a kind or size that is not supported (ECDSA P-256, P-384, P-521, Ed25519, and RSA of 2048 \
                 bits and more are)"
                    .into(),
            ),
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

fn lock() -> MutexGuard<'static, Vec<(Key, ClientConfig)>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

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

/// The system's authorities, read once a process. A failure to read them is not kept.
fn system() -> Result<Verifier, Error> {
    static FOUND: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    let found = match FOUND.get() {
        Some(found) => found,
        None => {
            let found = find()?;
            FOUND.get_or_init(|| found)
        }
    };
    if found.is_empty() { mozilla() } else { Verifier::of(provider(), found.clone()).map_err(unusable) }
}

fn find() -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut named = Vec::new();
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else { continue };
        named.push(format!("{name} ('{}')", value.display()));
        // Opening a pipe waits for its writer.
        if name == "SSL_CERT_FILE" && fs::metadata(&value).is_ok_and(|it| !it.is_file() && !it.is_dir()) {
            return Err(Error::new(
                Kind::System,
                format!("no authorities by {}: not a regular file", named.join(" and ")),
            ));
        }
    }
    let found = rustls_native_certs::load_native_certs();
    let problem = found.errors.into_iter().map(|problem| problem.kind).find_map(|kind| match kind {
        ErrorKind::Io { inner, path } => Some((inner, path)),
        _ => None,
    });
    let place = match named.is_empty() {
        true => "no authorities of this system".into(),
        false => format!("no authorities by {}", named.join(" and ")),
    };
    match problem {
        // What could not be read is not absent. Only some of them might be trusted that are not any more.
        Some((error, path)) if found.certs.is_empty() || is_passing(&error) => {
            let is_absent = error.kind() == io::ErrorKind::NotFound && named.is_empty();
            if is_absent {
                return Ok(Vec::new());
            }
            Err(Error::from_file(&format!("{place}: cannot read '{}'", path.display()), &error))
        }
        // Whoever names them means these and no others.
        None if found.certs.is_empty() && !named.is_empty() => Err(Error::new(Kind::System, place)),
        _ => Ok(found.certs),
    }
}

/// Whether another try may read what this one could not: descriptors or memory had run out (ENOMEM, ENFILE
/// and EMFILE, the same numbers on every Unix).
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24))
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
