//! Whether a server's certificate is believed, and in words why not.

use std::cell::Cell;
use std::sync::Arc;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::server::ParsedCertificate;

use crate::tls::certificate::Facts;
use crate::tls::certificate::date;
use crate::tls::certificate::lower;
use crate::tls::certificate::words;

thread_local! {
    /// Why the last certificate was refused: the verifier's caller hands on only of which kind the error is.
    static REFUSAL: Cell<Option<String>> = const { Cell::new(None) };
}

/// Takes the words for the refusal that has just happened on this thread.
pub fn take_refusal() -> Option<String> {
    REFUSAL.take()
}

#[derive(Debug)]
pub struct Verifier {
    provider: Arc<CryptoProvider>,
    trust: Trust,
}

#[derive(Debug)]
enum Trust {
    /// Whoever holds the key of the certificate that it shows.
    Anybody,
    /// Whoever has a certificate of these authorities, or one of these certificates.
    Some { authorities: Option<Arc<WebPkiServerVerifier>>, listed: Vec<CertificateDer<'static>> },
}

impl Verifier {
    /// For tests only: it takes every certificate.
    pub fn of_anybody(provider: Arc<CryptoProvider>) -> Self {
        Self { provider, trust: Trust::Anybody }
    }

    /// Trusts what `listed` authorities issued, and what is `listed` itself.
    pub fn of(provider: Arc<CryptoProvider>, listed: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        // webpki takes whatever it is given for an authority: a server could vouch for others.
        let is_authority = |it: &&CertificateDer<'_>| Facts::of(it).is_some_and(|facts| facts.is_authority());
        roots.add_parsable_certificates(listed.iter().filter(is_authority).cloned());
        Self::of_roots(provider, roots, listed)
    }

    pub fn of_roots(
        provider: Arc<CryptoProvider>,
        roots: RootCertStore,
        listed: Vec<CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let authorities = match roots.is_empty() {
            true => None,
            false => {
                let builder =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
                Some(builder.build().map_err(|error| error.to_string())?)
            }
        };
        Ok(Self { provider, trust: Trust::Some { authorities, listed } })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = match &self.trust {
            Trust::Anybody => return Ok(ServerCertVerified::assertion()),
            Trust::Some { listed, .. } if listed.contains(end_entity) => {
                verify_listed(end_entity, server_name, now)
            }
            Trust::Some { authorities: Some(authorities), .. } => {
                authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            Trust::Some { authorities: None, .. } => Err(CertificateError::UnknownIssuer.into()),
        };
        verified.inspect_err(|error| {
            let top = intermediates.last().unwrap_or(end_entity);
            REFUSAL.set(Some(explain(error, end_entity, top, server_name, now)));
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A certificate that is trusted as it is still has to be for this server, and for today.
fn verify_listed(
    certificate: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let facts = Facts::of(certificate).ok_or(CertificateError::BadEncoding)?;
    let (from, until) = facts.validity();
    let time =
        |seconds: i64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.max(0) as u64));
    if now < time(from) {
        return Err(CertificateError::NotValidYetContext { time: now, not_before: time(from) }.into());
    }
    if now > time(until) {
        return Err(CertificateError::ExpiredContext { time: now, not_after: time(until) }.into());
    }
    verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
    Ok(ServerCertVerified::assertion())
}

/// `top` is the last certificate that the server sent.
fn explain(
    error: &Error,
    certificate: &CertificateDer<'_>,
    top: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> String {
    let moment = |time: &UnixTime| date(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    let clock = moment(&now);
    match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            format!("the certificate expired on {} (the clock here says {clock})", moment(not_after))
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            format!(
                "the certificate is not valid before {} (the clock here says {clock})",
                moment(not_before)
            )
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }) => {
            wrong_name(certificate, &name.to_str())
        }
        Error::InvalidCertificate(_) if certificate == top && is_self_issued(certificate) => {
            "the certificate is self-signed and not trusted here (tls.ca_bundle may name it)".into()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            let issuer = Facts::of(top).map_or(String::new(), |facts| facts.issuer());
            format!(
                "the certificate's issuer is not trusted here: {issuer} \
                 (tls.ca_bundle may name it, or the server should send its certificate)"
            )
        }
        Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. }) => {
            "the certificate is not meant for servers".into()
        }
        Error::InvalidCertificate(CertificateError::Other(why)) => {
            format!("the certificate is not acceptable ({})", words(&why.to_string(), ' '))
        }
        Error::InvalidCertificate(why) => {
            format!("the certificate is not acceptable ({})", words(&format!("{why:?}"), ' '))
        }
        other => lower(&other.to_string()),
    }
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    Facts::of(certificate).is_some_and(|facts| facts.is_self_issued())
}

fn wrong_name(certificate: &CertificateDer<'_>, expected: &str) -> String {
    let names = Facts::of(certificate).map_or(String::new(), |facts| facts.names());
    match names.is_empty() {
        // RFC 9525, section 2: the common name is not looked at.
        true => format!("the certificate is not for {expected}: it covers no name (no subjectAltName)"),
        false => format!("the certificate is not for {expected}, but for {names}"),
    }
}
