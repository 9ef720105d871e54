//! What rustls says, in the words of this project.

use std::fmt::Debug;

use rustls::AlertDescription;
use rustls::CertificateError;
use rustls::Error as Rustls;
use rustls::HandshakeType;
use rustls::InvalidMessage;
use rustls::PeerIncompatible;

use crate::error::Error;
use crate::error::Kind;
use crate::tls::refusal;

/// `peer` is `"server"` or `"client"`.
pub fn error(error: &Rustls, peer: &str) -> Error {
    let refusal = refusal::take();
    match error {
        Rustls::AlertReceived(AlertDescription::CloseNotify) => {
            Error::new(Kind::Closed, format!("the {peer} broke off the TLS handshake"))
                .with_alert("close_notify".into())
        }
        Rustls::AlertReceived(alert) => {
            let name = alert_name(*alert);
            Error::new(Kind::Tls, format!("the {peer} broke off with TLS alert {name}")).with_alert(name)
        }
        Rustls::InvalidCertificate(why) => {
            Error::new(Kind::Certificate, refusal.unwrap_or_else(|| unexplained(why, peer)))
        }
        Rustls::InvalidCertRevocationList(_) => {
            Error::new(Kind::Certificate, refusal.unwrap_or_else(|| lower(&error.to_string())))
        }
        Rustls::NoCertificatesPresented => {
            Error::new(Kind::Certificate, format!("the {peer} has no certificate"))
        }
        other => Error::new(Kind::Tls, text(other, peer)),
    }
}

/// What the verifier is told nothing of.
fn unexplained(why: &CertificateError, peer: &str) -> String {
    match why {
        CertificateError::BadEncoding => format!("the {peer}'s certificate is malformed"),
        CertificateError::BadSignature => {
            format!("the {peer} has not signed the handshake with its certificate's key")
        }
        other => format!("the {peer}'s certificate is not acceptable ({})", named(other)),
    }
}

fn text(error: &Rustls, peer: &str) -> String {
    match error {
        Rustls::PeerIncompatible(why) => incompatible(why, peer),
        Rustls::NoApplicationProtocol => format!("the {peer} speaks none of the protocols of alpn here"),
        Rustls::General(text) if text.contains("no server certificate") => {
            format!(
                "there is no certificate for the name that the {peer} asks for, or it asks for none (sni)"
            )
        }
        Rustls::PeerMisbehaved(why) => format!("the {peer} does not keep to TLS ({})", named(why)),
        Rustls::InappropriateHandshakeMessage { got_type: HandshakeType::ClientHello, .. } => format!(
            "the {peer} has begun TLS as a client, too, or sends back what it gets (of start_tls, one side is the \
             server)"
        ),
        Rustls::InappropriateHandshakeMessage { got_type, .. } => {
            format!("the {peer} does not keep to TLS (unexpected {})", named(got_type))
        }
        Rustls::InappropriateMessage { got_type, .. } => {
            format!("the {peer} does not keep to TLS (unexpected {})", named(got_type))
        }
        Rustls::InvalidMessage(why) => format!("the {peer} sent malformed TLS ({})", named(why)),
        Rustls::DecryptError => format!("what the {peer} sent was changed on its way"),
        other => lower(&other.to_string()),
    }
}

fn incompatible(why: &PeerIncompatible, peer: &str) -> String {
    match why {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            format!("the {peer} speaks nothing newer than TLS 1.1")
        }
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            format!("this side and the {peer} have no version of TLS in common")
        }
        why => format!("this side and the {peer} have no TLS in common ({})", named(why)),
    }
}

/// What rustls calls it, in words.
fn named(it: &impl Debug) -> String {
    words(&format!("{it:?}"), ' ')
}

/// What a peer that does not speak TLS has sent, if it was that.
pub fn foreign(error: &Rustls, input: &[u8], peer: &str) -> Option<Error> {
    let is_malformed = matches!(
        error,
        Rustls::InvalidMessage(
            InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload
        )
    );
    // The content types of TLS (RFC 8446, section 5.1, and RFC 6520).
    if !is_malformed || matches!(input.first(), None | Some(20..=24)) {
        return None;
    }
    let line = input.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let line = &line[..line.len().min(SHOWN)];
    let sent = match line.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        true => format!(": it sent \"{}\"", String::from_utf8_lossy(line)),
        false => String::new(),
    };
    Some(Error::new(Kind::Tls, format!("the {peer} does not speak TLS here{sent}")))
}

/// Bytes of an answer that are shown.
const SHOWN: usize = 60;

/// As the RFCs write it: `handshake_failure`, `unknown_ca`.
fn alert_name(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::Unknown(number) => format!("alert_{number}"),
        known => words(&format!("{known:?}"), '_').replace("recognised", "recognized"),
    }
}

/// What is wrong with options, and with the files that they name.
pub fn unusable(message: String) -> Error {
    Error::new(Kind::Tls, message)
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
    fn alerts_are_called_as_in_the_rfcs() {
        let cases = [
            (AlertDescription::HandshakeFailure, "handshake_failure"),
            (AlertDescription::UnknownCA, "unknown_ca"),
            (AlertDescription::UnknownPSKIdentity, "unknown_psk_identity"),
            (AlertDescription::UnrecognisedName, "unrecognized_name"),
            (AlertDescription::BadRecordMac, "bad_record_mac"),
        ];
        for (alert, name) in cases {
            assert_eq!(alert_name(alert), name);
        }
    }

    #[test]
    fn a_greeting_is_no_tls() {
        let malformed = Rustls::InvalidMessage(InvalidMessage::InvalidContentType);
        let text =
            |input: &[u8]| foreign(&malformed, input, "server").map(|error| error.message().to_owned());
        let shown = text(b"220 mail.example ready\r\nmore");
        assert_eq!(
            shown.as_deref(),
            Some("the server does not speak TLS here: it sent \"220 mail.example ready\"")
        );
        assert_eq!(text(b"\0\x01").as_deref(), Some("the server does not speak TLS here"));
        assert_eq!(text(&[22, 3, 1]), None);
    }
}
