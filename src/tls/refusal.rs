//! Why a certificate was refused, in words.

use std::cell::Cell;

use rustls::CertRevocationListError;
use rustls::CertificateError;
use rustls::Error;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::UnixTime;

use crate::tls::certificate::Facts;
use crate::tls::certificate::date;
use crate::tls::failure::lower;
use crate::tls::failure::words;

thread_local! {
    /// Why the last certificate was refused: the verifier's caller hands on only of which kind the error is.
    static REFUSAL: Cell<Option<String>> = const { Cell::new(None) };
}

/// Takes the words for the refusal that has just happened on this thread.
pub fn take() -> Option<String> {
    REFUSAL.take()
}

/// Whose certificate it is.
pub enum Peer<'a> {
    /// The one that was asked for by this name.
    Server(&'a str),
    Client,
}

/// Notes the words for `error`.
pub fn note(
    error: &Error,
    peer: &Peer<'_>,
    certificate: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    now: UnixTime,
) {
    let whose = if let Peer::Client = peer { "the client's certificate" } else { "the certificate" };
    let chain = Chain { certificate, others, whose };
    REFUSAL.set(Some(match error {
        Error::InvalidCertificate(error) => chain.explain(error, peer, now),
        Error::InvalidCertRevocationList(error) => {
            format!("{whose} cannot be checked: the revocation list's {}", fault(error))
        }
        other => lower(&other.to_string()),
    }));
}

fn fault(error: &CertRevocationListError) -> &'static str {
    match error {
        CertRevocationListError::BadSignature => "signature is not its issuer's",
        CertRevocationListError::IssuerInvalidForCrl => "issuer may not sign such lists",
        _ => "signature is of an unsupported kind",
    }
}

/// What the peer has shown: its own certificate, and those of authorities.
struct Chain<'a> {
    certificate: &'a CertificateDer<'a>,
    others: &'a [CertificateDer<'a>],
    /// How its own is called.
    whose: &'static str,
}

impl Chain<'_> {
    fn explain(&self, error: &CertificateError, peer: &Peer<'_>, now: UnixTime) -> String {
        let (it, clock) = (self.whose, moment(now));
        match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                let whose = self.name_of(|facts| facts.validity().1 == seconds(*not_after));
                format!("{whose} expired on {} (the clock here says {clock})", moment(*not_after))
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                let whose = self.name_of(|facts| facts.validity().0 == seconds(*not_before));
                format!("{whose} is not valid before {} (the clock here says {clock})", moment(*not_before))
            }
            CertificateError::NotValidForNameContext { .. } => self.wrong_name(peer),
            CertificateError::Revoked => format!("{it}, or its issuer's, is on a revocation list"),
            CertificateError::ExpiredRevocationListContext { next_update, .. } => {
                let due = moment(*next_update);
                format!("{it} cannot be checked: the revocation list was to be renewed by {due}")
            }
            CertificateError::InvalidPurposeContext { .. } => {
                let is_server = matches!(peer, Peer::Server(_));
                let purpose = if is_server { "servers" } else { "clients" };
                match self.facts().is_some_and(|facts| facts.is_meant_for(is_server)) {
                    true => format!("{it}'s issuer is not meant for {purpose} (extended key usage)"),
                    false => format!("{it} is not meant for {purpose} (extended key usage)"),
                }
            }
            error if self.is_self_signed() && is_untrusted(error) => {
                format!("{it} is self-signed and not trusted here ({} may name it)", option(peer))
            }
            CertificateError::UnknownIssuer => {
                let top = self.others.last().unwrap_or(self.certificate);
                let issuer = Facts::of(top).map_or(String::new(), |facts| facts.issuer());
                let (option, peer) = (option(peer), peer.noun());
                format!(
                    "{it}'s issuer is not trusted here: {issuer} ({option} may name it, or the {peer} \
                     should send its certificate)"
                )
            }
            other => self.flaw(other),
        }
    }

    /// What is wrong with the certificates themselves.
    fn flaw(&self, error: &CertificateError) -> String {
        let it = self.whose;
        let mut facts = self.all().filter_map(Facts::of);
        if facts.any(|facts| facts.has_weak_key()) {
            let whose = self.name_of(|facts| facts.has_weak_key());
            return format!("{whose} has an RSA key that is too small (2048 bits are the least)");
        }
        if let Some(hash) = self.all().filter_map(Facts::of).find_map(|facts| facts.weak_hash()) {
            let whose = self.name_of(|facts| facts.weak_hash().is_some());
            return format!("{whose} is signed by way of {hash}, which is not safe");
        }
        let CertificateError::Other(why) = error else {
            return match error {
                CertificateError::BadSignature => format!("{it}'s signature is not its issuer's"),
                CertificateError::BadEncoding => format!("{it} is malformed"),
                other => format!("{it} is not acceptable ({})", words(&format!("{other:?}"), ' ')),
            };
        };
        match why.to_string().as_str() {
            "CaUsedAsEndEntity" => format!("{it} is an authority's own (CA:TRUE)"),
            "EndEntityUsedAsCa" => format!("{it}'s issuer is no authority (CA:FALSE)"),
            "NameConstraintViolation" => {
                format!("{it} covers a name that its issuer must not issue for (name constraints)")
            }
            "PathLenConstraintViolated" => format!("{it}'s chain is longer than an issuer allows"),
            "UnsupportedCertVersion" => format!("{it} is of an X.509 version other than 3"),
            why => format!("{it} is not acceptable ({})", words(why, ' ')),
        }
    }

    fn wrong_name(&self, peer: &Peer<'_>) -> String {
        let it = self.whose;
        let (Peer::Server(expected), Some(facts)) = (peer, self.facts()) else {
            return format!("{it} is of another name");
        };
        let names = facts.shown_names();
        if facts.names().iter().any(|name| name == expected) {
            // `DNS:127.0.0.1` where `IP:127.0.0.1` was meant.
            return format!("{it} is not for {expected}: it covers that as a name, not as an address");
        }
        match (names.is_empty(), facts.has_names()) {
            (false, _) => format!("{it} is not for {expected}, but for {names}"),
            (true, true) => format!("{it} is not for {expected}: it covers no name and no address"),
            // RFC 9525, section 2: the common name is not looked at.
            (true, false) => format!("{it} is not for {expected}: it covers no name (no subjectAltName)"),
        }
    }

    /// How to call the first certificate that is so; the peer's own if none is.
    fn name_of(&self, is_so: impl Fn(&Facts<'_>) -> bool) -> String {
        let found = self.others.iter().filter_map(Facts::of).find(|facts| is_so(facts));
        match found {
            Some(facts) if !self.facts().is_some_and(|own| is_so(&own)) => {
                format!("the authority's certificate ({})", facts.subject())
            }
            _ => self.whose.into(),
        }
    }

    fn is_self_signed(&self) -> bool {
        self.others.is_empty() && self.facts().is_some_and(|facts| facts.is_self_issued())
    }

    fn facts(&self) -> Option<Facts<'_>> {
        Facts::of(self.certificate)
    }

    fn all(&self) -> impl Iterator<Item = &CertificateDer<'_>> {
        std::iter::once(self.certificate).chain(self.others)
    }
}

impl Peer<'_> {
    fn noun(&self) -> &'static str {
        match self {
            Peer::Server(_) => "server",
            Peer::Client => "client",
        }
    }
}

/// Whether nobody who is believed has issued it: an authority may have been its own.
fn is_untrusted(error: &CertificateError) -> bool {
    match error {
        CertificateError::UnknownIssuer => true,
        CertificateError::Other(why) => why.to_string() == "CaUsedAsEndEntity",
        _ => false,
    }
}

/// Where the script says whom it believes.
fn option(peer: &Peer<'_>) -> &'static str {
    match peer {
        Peer::Server(_) => "ca_bundle",
        Peer::Client => "client_ca",
    }
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn moment(time: UnixTime) -> String {
    date(seconds(time))
}
