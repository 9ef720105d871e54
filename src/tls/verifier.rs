//! Whose certificates are believed: servers' here, clients' there.

use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use rustls::DigitallySignedStruct;
use rustls::DistinguishedName;
use rustls::Error;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::verify_tls12_signature;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::server::ParsedCertificate;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerified;
use rustls::server::danger::ClientCertVerifier;

use crate::tls::certificate::Facts;
use crate::tls::certificate::RevocationList;
use crate::tls::expiry::first_end;
use crate::tls::expiry::set_peer_end;
use crate::tls::refusal;
use crate::tls::refusal::Peer;

/// Who is believed.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Whoever has a certificate of these,
    roots: Arc<RootCertStore>,
    /// or one of these.
    listed: Arc<[CertificateDer<'static>]>,
}

impl Authorities {
    /// What `listed` authorities issued, and what is `listed` itself.
    pub fn of(listed: Vec<CertificateDer<'static>>) -> Self {
        Self { roots: Arc::new(roots(&listed, &[])), listed: listed.into() }
    }

    /// Those on one of `lists` issue nothing any more: webpki does not look at whom it trusts, and a server need not send
    /// their certificates.
    fn without_revoked(self, lists: &[RevocationList]) -> Self {
        match lists.is_empty() || self.listed.is_empty() {
            true => self,
            false => Self { roots: Arc::new(roots(&self.listed, lists)), listed: self.listed },
        }
    }

    pub fn of_roots(roots: RootCertStore) -> Self {
        Self { roots: Arc::new(roots), listed: Arc::default() }
    }

    fn list(&self, certificate: &CertificateDer<'_>) -> bool {
        self.listed.contains(certificate)
    }
}

fn roots(listed: &[CertificateDer<'static>], lists: &[RevocationList]) -> RootCertStore {
    // webpki takes whatever it is given for an authority: a server could vouch for others.
    let may_issue = |it: &&CertificateDer<'_>| {
        let facts = Facts::of(it).filter(Facts::is_authority);
        facts.is_some_and(|facts| !lists.iter().any(|list| list.covers(&facts) && list.names(&facts)))
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(listed.iter().filter(may_issue).cloned());
    roots
}

/// A certificate that is trusted as it is still has to be for today.
fn check_listed(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let facts = Facts::of(certificate).ok_or(CertificateError::BadEncoding)?;
    let (from, until) = facts.validity();
    let (from, until) = (time(from), time(until));
    if now < from {
        return Err(CertificateError::NotValidYetContext { time: now, not_before: from }.into());
    }
    if now > until {
        return Err(CertificateError::ExpiredContext { time: now, not_after: until }.into());
    }
    Ok(())
}

fn time(unix: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(unix.max(0).unsigned_abs()))
}

/// webpki looks at the first list of an issuer only, and at none for what is trusted as it is. Gives the Unix second
/// after which these lists are of no use.
fn check_revoked(
    certificate: &CertificateDer<'_>,
    lists: &[RevocationList],
    now: UnixTime,
) -> Result<u64, Error> {
    let mut end = u64::MAX;
    if lists.is_empty() {
        return Ok(end);
    }
    let facts = Facts::of(certificate).ok_or(CertificateError::BadEncoding)?;
    for list in lists.iter().filter(|list| list.covers(&facts)) {
        if list.names(&facts) {
            return Err(CertificateError::Revoked.into());
        }
        let Some(next_update) = list.next_update.map(time) else { continue };
        if now > next_update {
            return Err(CertificateError::ExpiredRevocationListContext { time: now, next_update }.into());
        }
        end = end.min(next_update.as_secs());
    }
    Ok(end)
}

/// webpki looks at the keys of those who sign certificates, and this at the one behind them.
fn check_key(certificate: &CertificateDer<'_>) -> Result<(), Error> {
    // Most keys are not RSA's, and what does not name it need not be read.
    if memchr::memmem::find(certificate, RSA).is_none() {
        return Ok(());
    }
    match Facts::of(certificate) {
        Some(facts) if facts.has_weak_key() => Err(CertificateError::BadSignature.into()),
        _ => Ok(()),
    }
}

/// The object identifier of RSA's keys in DER (RFC 8017, appendix A.1).
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// What the verifiers of servers and of clients have in common.
macro_rules! checks_signatures {
    ($self:ident, $algorithms:expr, $tls12:path, $tls13:path) => {
        fn verify_tls12_signature(
            &$self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            $tls12(message, cert, dss, $algorithms)
        }

        fn verify_tls13_signature(
            &$self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            $tls13(message, cert, dss, $algorithms)
        }

        fn supported_verify_schemes(&$self) -> Vec<SignatureScheme> {
            $algorithms.supported_schemes()
        }
    };
}

/// What a client thinks of servers.
#[derive(Debug)]
pub struct Servers {
    authorities: Authorities,
    /// `None`: there is no authority among them.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    lists: Vec<RevocationList>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Servers {
    pub fn of(
        provider: &Arc<CryptoProvider>,
        authorities: Authorities,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, String> {
        let read: Vec<_> = lists.iter().filter_map(RevocationList::of).collect();
        if read.iter().any(|list| !list.has_version_2) {
            return Err(
                "a revocation list of version 1 (version 2 is needed, RFC 5280, section 5.1.2.1)".into()
            );
        }
        let authorities = authorities.without_revoked(&read);
        let webpki = (!authorities.roots.is_empty()).then(|| {
            let roots = Arc::clone(&authorities.roots);
            let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
            builder.with_crls(lists).allow_unknown_revocation_status().enforce_revocation_expiration().build()
        });
        let webpki = webpki.transpose().map_err(|error| error.to_string())?;
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { authorities, webpki, lists: read, algorithms })
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.authorities.list(end_entity) {
            check_listed(end_entity, now)?;
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        } else {
            let webpki = self.webpki.as_ref().ok_or(CertificateError::UnknownIssuer)?;
            webpki.verify_server_cert(end_entity, intermediates, server_name, &[], now)?;
        }
        let all = || std::iter::once(end_entity).chain(intermediates);
        let mut end = first_end(all(), now);
        for certificate in all() {
            end = end.min(check_revoked(certificate, &self.lists, now)?);
        }
        check_key(end_entity)?;
        set_peer_end(Some(end));
        Ok(())
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self.check(end_entity, intermediates, server_name, now);
        let name = server_name.to_str();
        checked.map(|()| ServerCertVerified::assertion()).inspect_err(|error| {
            refusal::note(error, &Peer::Server(&name), end_entity, intermediates, now);
        })
    }

    checks_signatures!(self, &self.algorithms, verify_tls12_signature, verify_tls13_signature);
}

/// What a server thinks of clients.
#[derive(Debug)]
pub struct Clients {
    authorities: Authorities,
    /// `None`: there is no authority among them.
    webpki: Option<Arc<dyn ClientCertVerifier>>,
    /// Whose certificates a client may choose from.
    hints: Vec<DistinguishedName>,
    is_required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Clients {
    pub fn of(
        provider: &Arc<CryptoProvider>,
        authorities: Authorities,
        is_required: bool,
    ) -> Result<Self, String> {
        let webpki = (!authorities.roots.is_empty()).then(|| {
            let roots = Arc::clone(&authorities.roots);
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider)).build()
        });
        let webpki = webpki.transpose().map_err(|error| error.to_string())?;
        let (hints, algorithms) = (hints(&authorities), provider.signature_verification_algorithms);
        Ok(Self { authorities, webpki, hints, is_required, algorithms })
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.authorities.list(end_entity) {
            check_listed(end_entity, now)?;
        } else {
            let webpki = self.webpki.as_ref().ok_or(CertificateError::UnknownIssuer)?;
            webpki.verify_client_cert(end_entity, intermediates, now)?;
        }
        check_key(end_entity)?;
        set_peer_end(Some(first_end(std::iter::once(end_entity).chain(intermediates), now)));
        Ok(())
    }
}

/// None if they would be too many for a message: a client may show what it likes then.
fn hints(authorities: &Authorities) -> Vec<DistinguishedName> {
    const MOST: usize = 16 * 1024;
    let mut all = RootCertStore::empty();
    all.add_parsable_certificates(authorities.listed.iter().cloned());
    let mut hints: Vec<DistinguishedName> = Vec::new();
    for subject in all.subjects() {
        if !hints.iter().any(|known| known.as_ref() == subject.as_ref()) {
            hints.push(subject);
        }
    }
    let bytes: usize = hints.iter().map(|name| name.as_ref().len()).sum();
    if bytes > MOST { Vec::new() } else { hints }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let checked = self.check(end_entity, intermediates, now);
        checked.map(|()| ClientCertVerified::assertion()).inspect_err(|error| {
            refusal::note(error, &Peer::Client, end_entity, intermediates, now);
        })
    }

    checks_signatures!(self, &self.algorithms, verify_tls12_signature, verify_tls13_signature);
}

/// For tests only: it takes every certificate, also one that webpki could not read, if whoever shows it has its key.
#[derive(Debug)]
pub struct Anybody(pub WebPkiSupportedAlgorithms);

/// As rustls's functions, whatever certificate it is.
fn check_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    known: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let facts = Facts::of(cert).ok_or(CertificateError::BadEncoding)?;
    let of_scheme = known.mapping.iter().filter(|(scheme, _)| *scheme == dss.scheme);
    let mut algorithms = of_scheme.flat_map(|(_, algorithms)| algorithms.iter());
    // No algorithm here takes so small a key: everybody could compute it.
    if facts.has_weak_key()
        || algorithms.any(|it| it.verify_signature(facts.key(), message, dss.signature()).is_ok())
    {
        return Ok(HandshakeSignatureValid::assertion());
    }
    Err(CertificateError::BadSignature.into())
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    checks_signatures!(self, &self.0, check_signature, check_signature);
}
