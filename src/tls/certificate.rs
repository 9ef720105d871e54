//! Certificates and keys: read from PEM (RFC 7468), and described to people.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;
use x509_parser::prelude::X509Version;
use x509_parser::time::ASN1Time;

use crate::error::Error;
use crate::error::Kind;
use crate::options::Pem;

/// Files of PEM are read up to this many bytes; every authority there is needs about 250 KiB.
const LARGEST: u64 = 16 << 20;

/// The certificates of `pem`, at least one. `option` is what the script calls it.
pub fn certificates(pem: &Pem, option: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let (text, place) = read(pem, option)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() && text.starts_with(&[0x30]) => Err(unusable(format!(
            "{place} is DER, not PEM: openssl x509 -inform der turns the one into the other"
        ))),
        Ok(found) if found.is_empty() => Err(unusable(format!("{place} holds no certificate in PEM"))),
        Ok(found) => match found.iter().position(|it| X509Certificate::from_der(it).is_err()) {
            None => Ok(found),
            Some(at) => Err(unusable(format!("certificate {} of {place} is malformed", at + 1))),
        },
        Err(error) => Err(unusable(format!("{place} is malformed PEM ({})", fault(&error)))),
    }
}

/// The private key of `pem`, the first if there are several.
pub fn key(pem: &Pem, option: &str) -> Result<PrivateKeyDer<'static>, Error> {
    let (text, place) = read(pem, option)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        _ if has(&text, b"ENCRYPTED") => {
            unusable(format!("{place} is encrypted: decrypt it first, as with openssl pkey"))
        }
        pem::Error::NoItemsFound => unusable(format!("{place} holds no key in PEM")),
        other => unusable(format!("{place} is malformed PEM ({})", fault(&other))),
    })
}

/// Not the library's words: they would show a key.
fn fault(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line; are its line breaks lost?",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "its base64 is malformed",
        _ => "it cannot be read",
    }
}

/// The text, and how errors call the place where it comes from.
fn read(pem: &Pem, option: &str) -> Result<(Vec<u8>, String), Error> {
    let (mut text, place) = read_whole(pem, option)?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    Ok((text, place))
}

/// What some editors put in front; the reader of PEM would miss the first BEGIN line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

fn read_whole(pem: &Pem, option: &str) -> Result<(Vec<u8>, String), Error> {
    match pem {
        Pem::Text(text) => Ok((text.clone(), option.into())),
        Pem::File(path) => match read_file(path) {
            Ok(text) if text.len() as u64 > LARGEST => {
                Err(unusable(format!("{option} '{}' is over {} MiB", path.display(), LARGEST >> 20)))
            }
            Ok(text) => Ok((text, format!("{option} '{}'", path.display()))),
            // It may be the secret itself.
            Err(_) if !is_like_a_path(path) => {
                Err(unusable(format!("{option} is neither the path of a file nor PEM text (no BEGIN line)")))
            }
            Err(error) => {
                let place = format!("cannot read {option} '{}'", path.display());
                Err(Error::from_file(&place, &error))
            }
        },
    }
}

/// Base64 has no dot in it, and a key is long.
fn is_like_a_path(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    !text.contains(&b'\n') && (text.contains(&b'.') || text.len() < 40)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() && !metadata.is_dir() {
        // Opening a pipe waits for its writer, and no task would run in the meantime.
        return Err(io::Error::other("not a regular file"));
    }
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut text)?;
    Ok(text)
}

fn has(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(text, word).is_some()
}

pub fn unusable(message: String) -> Error {
    Error::new(Kind::Tls, message)
}

/// What a certificate says of itself, for error texts.
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
        shown(&self.certificate.issuer().to_string())
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

    /// The bare names and addresses that it covers (RFC 5280, section 4.2.1.6), as far as there is room to show them.
    pub fn names(&self) -> String {
        let names = self.certificate.subject_alternative_name().ok().flatten();
        let names: Vec<_> =
            names.map_or_else(Vec::new, |it| it.value.general_names.iter().filter_map(bare).collect());
        let mut text = names.iter().take(NAMES).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
        if names.len() > NAMES {
            text.push_str(&format!(" and {} more", names.len() - NAMES));
        }
        text
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
            Some(std::net::Ipv6Addr::from(bytes).to_string())
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

/// Texts of libraries, as all texts here are.
pub fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

/// The words of a name of rustls's: `UnknownCA` is `unknown_ca`. What it holds is left out.
pub fn words(name: &str, between: char) -> String {
    let letters: Vec<char> = name.chars().take_while(|letter| letter.is_alphanumeric()).collect();
    let mut words = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let after_lower = at > 0 && letters[at - 1].is_lowercase();
        let before_lower = at > 0 && letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if letter.is_uppercase() && (after_lower || before_lower) {
            words.push(between);
        }
        words.extend(letter.to_lowercase());
    }
    words
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

    #[test]
    fn what_is_no_pem_is_said_to_be_none() {
        let text = Pem::Text(b"no PEM".to_vec());
        assert_eq!(
            certificates(&text, "ca_bundle").unwrap_err().message(),
            "ca_bundle holds no certificate in PEM"
        );
        assert_eq!(key(&text, "key").unwrap_err().message(), "key holds no key in PEM");
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let error = key(&Pem::Text(locked.into()), "key").unwrap_err();
        assert!(error.message().starts_with("key is encrypted"), "{error}");
        let broken = Pem::Text(b"-----BEGIN PRIVATE KEY----- AAAA -----END PRIVATE KEY-----".to_vec());
        assert!(!key(&broken, "key").unwrap_err().message().contains("[45"), "no byte of it is shown");
        let error = certificates(&Pem::File("/nowhere/ca.pem".into()), "ca_bundle").unwrap_err();
        assert_eq!((error.kind(), error.errno()), (Kind::System, Some(2)));
        assert_eq!(error.message(), "cannot read ca_bundle '/nowhere/ca.pem': no such file or directory");
    }
}
