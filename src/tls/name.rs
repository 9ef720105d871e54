//! Names of certificates' subjects and issuers, as RFC 4514 writes them: `CN=db.example,O=Example\\, Inc.,C=DE`.

use x509_parser::asn1_rs::Any;
use x509_parser::asn1_rs::Oid;
use x509_parser::asn1_rs::Tag;
use x509_parser::x509::AttributeTypeAndValue;
use x509_parser::x509::X509Name;

/// The attributes that have a short name (RFC 4514, section 3).
const SHORT: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// The last part comes first (section 2.1).
pub fn rfc4514(name: &X509Name<'_>) -> String {
    let joined = |mut texts: Vec<String>, between| {
        texts.reverse();
        texts.join(between)
    };
    let parts = name.iter_rdn().map(|part| joined(part.iter().map(attribute).collect(), "+"));
    joined(parts.collect(), ",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let value = attribute.attr_value();
    match (short(attribute.attr_type()), text(value)) {
        (Some(name), Some(text)) => format!("{name}={}", escaped(&text)),
        (Some(name), None) => format!("{name}=#{}", encoded(value)),
        // Whoever reads it may not know what text it is (section 2.4).
        (None, _) => format!("{}=#{}", attribute.attr_type().to_id_string(), encoded(value)),
    }
}

fn short(kind: &Oid<'_>) -> Option<&'static str> {
    let number = kind.to_id_string();
    SHORT.iter().find(|(it, _)| *it == number).map(|(_, name)| *name)
}

/// `None` if it is no string.
fn text(value: &Any<'_>) -> Option<String> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            String::from_utf8(value.data.to_vec()).ok()
        }
        Tag::BmpString => {
            let units = value.data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            String::from_utf16(&units.collect::<Vec<_>>()).ok()
        }
        Tag::UniversalString => {
            let letters = value
                .data
                .chunks_exact(4)
                .map(|it| char::from_u32(u32::from_be_bytes([it[0], it[1], it[2], it[3]])));
            letters.collect()
        }
        // In practice it is Latin-1.
        Tag::TeletexString => Some(value.data.iter().map(|byte| char::from(*byte)).collect()),
        _ => None,
    }
}

/// The DER of a value in hexadecimal digits.
fn encoded(value: &Any<'_>) -> String {
    let length = value.data.len();
    let mut bytes = vec![value.header.raw_tag().map_or(value.tag().0 as u8, |tag| tag[0])];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => bytes.push(short),
        _ => {
            let digits = length.to_be_bytes();
            let digits: Vec<u8> = digits.into_iter().skip_while(|digit| *digit == 0).collect();
            bytes.push(0x80 | digits.len() as u8);
            bytes.extend(digits);
        }
    }
    bytes.extend(value.data);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Section 2.4; what a terminal would obey is escaped, too.
fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut escaped = String::new();
    for (at, letter) in text.chars().enumerate() {
        match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => escaped.extend(['\\', letter]),
            ' ' if at == 0 || at == last => escaped.push_str("\\ "),
            '#' if at == 0 => escaped.push_str("\\#"),
            '\0'..='\x1f' | '\x7f' => escaped.push_str(&format!("\\{:02x}", letter as u32)),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_is_escaped() {
        let cases = [
            ("plain", "plain"),
            ("James \"Jim\" Smith, III", "James \\\"Jim\\\" Smith\\, III"),
            (" # ", "\\ #\\ "),
            ("#1", "\\#1"),
            ("Before\rAfter\0", "Before\\0dAfter\\00"),
            (" ", "\\ "),
            ("Lu\u{10d}i\u{107}", "Lu\u{10d}i\u{107}"),
        ];
        for (text, written) in cases {
            assert_eq!(escaped(text), written);
        }
    }
}
