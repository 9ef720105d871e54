//! Certificates, keys and revocation lists, read from PEM (RFC 7468).

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::error::Error;
use crate::options::Pem;
use crate::tls::failure::unusable;

/// Files of PEM are read up to this many bytes; every authority there is needs about 250 KiB.
const LARGEST: u64 = 16 << 20;

/// The certificates of `pem`, at least one. `option` is what the script calls it.
pub fn certificates(pem: &Pem, option: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let is_whole = |it: &CertificateDer<'_>| X509Certificate::from_der(it).is_ok();
    sections(pem, option, "certificate", is_whole)
}

/// The revocation lists of `pem`, at least one.
pub fn revocation_lists(
    pem: &Pem,
    option: &str,
) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
    let is_whole = |it: &CertificateRevocationListDer<'_>| CertificateRevocationList::from_der(it).is_ok();
    sections(pem, option, "revocation list", is_whole)
}

fn sections<T: PemObject>(
    pem: &Pem,
    option: &str,
    what: &str,
    is_whole: impl Fn(&T) -> bool,
) -> Result<Vec<T>, Error> {
    let (text, place) = read(pem, option)?;
    let found: Result<Vec<_>, _> = T::pem_slice_iter(&text).collect();
    let problem = match found {
        Ok(_) if text.is_empty() => "is empty".into(),
        Ok(found) if found.is_empty() && text.starts_with(&[0x30]) => {
            "is DER, not PEM: openssl x509 (or crl) -inform der, or for a .p12 openssl pkcs12 -nodes, turns it into that".into()
        }
        Ok(found) if found.is_empty() => format!("holds no {what} in PEM"),
        Ok(found) => match found.iter().position(|it| !is_whole(it)) {
            None => return Ok(found),
            Some(at) => return Err(unusable(format!("{what} {} of {place} is malformed", at + 1))),
        },
        Err(error) => format!("is malformed PEM ({})", fault(&error)),
    };
    Err(unusable(format!("{place} {problem}")))
}

/// The private key of `pem`, the first if there are several.
pub fn key(pem: &Pem, option: &str) -> Result<PrivateKeyDer<'static>, Error> {
    let (text, place) = read(pem, option)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let problem = match error {
            _ if has(&text, b"ENCRYPTED") => "is encrypted: decrypt it first, as with openssl pkey".into(),
            pem::Error::NoItemsFound if text.is_empty() => "is empty".into(),
            pem::Error::NoItemsFound if text.starts_with(&[0x30]) => {
                "is DER, not PEM: openssl pkey -inform der, or for a .p12 openssl pkcs12 -nodes, turns it into that".into()
            }
            pem::Error::NoItemsFound => "holds no key in PEM".into(),
            other => format!("is malformed PEM ({})", fault(&other)),
        };
        unusable(format!("{place} {problem}"))
    })
}

/// How errors call the place where `pem` comes from.
pub fn place(pem: &Pem, option: &str) -> String {
    match pem {
        Pem::Text(_) => option.into(),
        Pem::File(path) => format!("{option} '{}'", path.display()),
    }
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
        Pem::Text(text) => Ok((text.clone(), place(pem, option))),
        Pem::File(path) => match read_file(path) {
            Ok(text) if text.len() as u64 > LARGEST => {
                Err(unusable(format!("{} is over {} MiB", place(pem, option), LARGEST >> 20)))
            }
            Ok(text) => Ok((text, place(pem, option))),
            // It may be the secret itself.
            Err(error) if is_absent(&error) && is_like_base64(path) => {
                Err(unusable(format!("{option} is neither the path of a file nor PEM text (no BEGIN line)")))
            }
            Err(error) => Err(Error::from_file(&format!("cannot read {}", place(pem, option)), &error)),
        },
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename)
}

/// As a key is that has lost its BEGIN line.
fn is_like_base64(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    text.len() >= 40
        && text.iter().all(|it| it.is_ascii_alphanumeric() || it.is_ascii_whitespace() || b"+/=".contains(it))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

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
