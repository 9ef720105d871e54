//! The authorities that are believed without being named: this system's, or Mozilla's.

use std::env;
use std::fs;
use std::io;
use std::sync::OnceLock;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls_native_certs::ErrorKind;

use crate::error::Error;
use crate::error::Kind;
use crate::tls::verifier::Authorities;

/// The system's authorities, read once a process. A failure to read them is not kept.
pub fn system() -> Result<Authorities, Error> {
    static FOUND: OnceLock<Authorities> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let found = find()?;
    let authorities = if found.is_empty() { mozilla() } else { Authorities::of(found) };
    Ok(FOUND.get_or_init(|| authorities).clone())
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

/// Mozilla's, as they were when the module was built.
pub fn mozilla() -> Authorities {
    Authorities::of_roots(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}
