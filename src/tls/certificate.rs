//! Certificates, read and described to people and scripts.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::CertificateRevocationListDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;
use x509_parser::prelude::X509Version;
use x509_parser::public_key::PublicKey;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use crate::tls::name;

/// A certificate, for scripts.
#[derive(Debug)]
pub struct Description {
    /// As RFC 4514 writes names.
    pub subject: String,
    pub issuer: String,
    /// In lower-case hexadecimal digits.
    pub serial: String,
    /// Unix seconds.
    pub valid_from: i64,
    pub valid_until: i64,
    /// The bare names and addresses that it covers (RFC 5280, section 4.2.1.6).
    pub names: Vec<String>,
    /// SHA-256 of `der`, in lower-case hexadecimal digits.
    pub fingerprint: String,
    pub der: Vec<u8>,
}

impl Description {
    /// `None` if it is malformed.
    pub fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let facts = Facts::of(der)?;
        let (valid_from, valid_until) = facts.validity();
        // A positive number may need a zero byte in front (X.690, section 8.3).
        let serial = facts.certificate.raw_serial();
        let serial = serial.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(serial);
        Some(Self {
            subject: facts.subject_name(),
            issuer: name::rfc4514(facts.certificate.issuer()),
            serial: hex(serial),
            valid_from,
            valid_until,
            names: facts.names(),
            fingerprint: hex(&sha256(der)),
            der: der.to_vec(),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    // rustls has it for its own use, and shows it nowhere else.
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256.tls13();
    suite.map_or_else(Vec::new, |it| it.common.hash_provider.hash(bytes).as_ref().to_vec())
}

/// What a certificate says of itself.
pub struct Facts<'a> {
    certificate: X509Certificate<'a>,
}

impl<'a> Facts<'a> {
    /// `None` if it is malformed.
    pub fn of(der: &'a CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self { certificate })
    }

    /// It names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        self.certificate.issuer() == self.certificate.subject()
    }

    pub fn issuer(&self) -> String {
        shown(&name::rfc4514(self.certificate.issuer()))
    }

    pub fn subject(&self) -> String {
        shown(&self.subject_name())
    }

    fn subject_name(&self) -> String {
        name::rfc4514(self.certificate.subject())
    }

    /// Whether it may be used by servers, or by clients (RFC 5280, section 4.2.1.12).
    pub fn is_meant_for(&self, servers: bool) -> bool {
        let usage = self.certificate.extended_key_usage().ok().flatten();
        usage.is_none_or(|it| if servers { it.value.server_auth } else { it.value.client_auth })
    }

    /// Whether it says at all what it covers.
    pub fn has_names(&self) -> bool {
        self.certificate.subject_alternative_name().ok().flatten().is_some()
    }

    /// The bits of its public key (RFC 5280, section 4.1.2.7).
    pub fn key(&self) -> &[u8] {
        &self.certificate.public_key().subject_public_key.data
    }

    /// Whether it is for an RSA key of fewer than 2048 bits.
    pub fn has_weak_key(&self) -> bool {
        match self.certificate.public_key().parsed() {
            Ok(PublicKey::RSA(key)) => key.key_size() < 2048,
            _ => false,
        }
    }

    /// The hash that its signature rests on, if others can be found that have the same.
    pub fn weak_hash(&self) -> Option<&'static str> {
        match self.certificate.signature_algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" => Some("SHA-1"),
            "1.2.840.113549.1.1.4" => Some("MD5"),
            _ => None,
        }
    }

    /// Whether it may issue others (RFC 5280, section 4.2.1.9). Version 1 had no way to say so.
    pub fn is_authority(&self) -> bool {
        let constraints = self.certificate.basic_constraints().ok().flatten();
        self.certificate.version() == X509Version::V1 || constraints.is_some_and(|it| it.value.ca)
    }

    /// The moments between which it holds, in Unix seconds.
    pub fn validity(&self) -> (i64, i64) {
        let validity = self.certificate.validity();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    }

    /// The bare names and addresses that it covers (RFC 5280, section 4.2.1.6).
    pub fn names(&self) -> Vec<String> {
        let names = self.certificate.subject_alternative_name().ok().flatten();
        names.map_or_else(Vec::new, |it| it.value.general_names.iter().filter_map(bare).collect())
    }

    /// The same for a line of text, as far as there is room.
    pub fn shown_names(&self) -> String {
        let names = self.names();
        let mut text = names.iter().take(NAMES).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
        if names.len() > NAMES {
            text.push_str(&format!(" and {} more", names.len() - NAMES));
        }
        text
    }
}

/// A revocation list (RFC 5280, section 5), read once. Who signed it is not asked here: the script has given it.
#[derive(Debug)]
pub struct RevocationList {
    issuer: Vec<u8>,
    pub has_version_2: bool,
    /// When the next one was due, in Unix seconds.
    pub next_update: Option<i64>,
    serials: HashSet<Vec<u8>>,
}

impl RevocationList {
    pub fn of(der: &CertificateRevocationListDer<'_>) -> Option<Self> {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        Some(Self {
            issuer: list.issuer().as_raw().to_vec(),
            has_version_2: list.version() == Some(X509Version::V2),
            next_update: list.next_update().map(|time| time.timestamp()),
            serials: list.iter_revoked_certificates().map(|it| it.raw_serial().to_vec()).collect(),
        })
    }

    /// Whether it is of the certificate's issuer.
    pub fn covers(&self, facts: &Facts<'_>) -> bool {
        self.issuer == facts.certificate.issuer().as_raw()
    }

    /// Whether a certificate that it covers is on it.
    pub fn names(&self, facts: &Facts<'_>) -> bool {
        self.serials.contains(facts.certificate.raw_serial())
    }
}

/// Names of a certificate that are shown.
const NAMES: usize = 10;

/// What somebody else wrote, for a line of text: short, and nothing in it that a terminal would obey.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let printable = |letter: char| match letter {
        ' '..='~' => letter.to_string(),
        other => other.escape_default().to_string(),
    };
    let mut letters = text.chars();
    let mut shown: String = letters.by_ref().take(LONGEST).map(printable).collect();
    if letters.next().is_some() {
        shown.push_str("...");
    }
    shown
}

fn bare(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).into()),
        GeneralName::IPAddress([a, b, c, d]) => Some(format!("{a}.{b}.{c}.{d}")),
        GeneralName::IPAddress(bytes) => {
            let bytes: [u8; 16] = (*bytes).try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_string())
        }
        _ => None,
    }
}

/// A moment as people write it: `2026-11-20 10:42:00 UTC`.
pub fn date(unix: i64) -> String {
    let Ok(time) = ASN1Time::from_timestamp(unix) else { return format!("second {unix}") };
    let at = time.to_datetime();
    let (hour, minute, second) = at.to_hms();
    format!(
        "{:04}-{:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC",
        at.year(),
        u8::from(at.month()),
        at.day()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(1_795_171_320), "2026-11-20 10:42:00 UTC");
    }

    #[test]
    fn what_others_wrote_is_one_short_printable_line() {
        assert_eq!(shown("CN=a\n\x1b[31m\u{202e}b"), "CN=a\\n\\u{1b}[31m\\u{202e}b");
        assert_eq!(shown(&"x".repeat(5000)).len(), 203);
    }
}
