//! One entry of a list: what it looks like, and what it covers.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::path::Path;

use ipnet::IpNet;
use ipnet::Ipv4Net;

use crate::policy::paths::Pattern;
use crate::policy::public::is_public;

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// `*`: every name and address.
    Everything(Port),
    /// `host`, or with `is_below` `*.host`: every name below it. In lower case, without a dot at the end.
    Name {
        name: String,
        is_below: bool,
        port: Port,
    },
    /// An address is a range of one. IPv4-mapped ones are IPv4's (RFC 4291, section 2.5.5.2).
    Range(IpNet, Port),
    /// `:port`: every address.
    AnyAddress(Port),
    /// `private`: every address that is not public.
    Private,
    Unix(Pattern),
}

/// `None` is every port.
pub type Port = Option<u16>;

/// What is to be reached: the port that is asked for, or any, for what has none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    Port(u16),
    Any,
}

const SHAPES: &str = "a name, an address, a range, ':port', 'unix:/path' or '*' expected";

impl Entry {
    /// An entry of what is allowed. `Err` says what is wrong with it.
    pub fn of_allowed(text: &str) -> Result<Self, String> {
        if text == "private" {
            return Err("'private' is for 'deny'".into());
        }
        Self::parse(text)
    }

    /// An entry of what is denied.
    pub fn of_denied(text: &str) -> Result<Self, String> {
        if text == "private" {
            return Ok(Self::Private);
        }
        match Self::parse(text)? {
            Self::Name { .. } | Self::Everything(_) => {
                Err("addresses, ranges, ':port', 'private' and unix paths can be denied, names cannot".into())
            }
            entry => Ok(entry),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Pattern::parse(path).map(Self::Unix);
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) || text.is_empty() {
            return Err(SHAPES.into());
        }
        let (place, port) = split_port(text);
        let port = port.map(parse_port).transpose()?;
        match place {
            "" => Ok(Self::AnyAddress(port)),
            "*" => Ok(Self::Everything(port)),
            place if place.contains(['[', ']', '/', ':']) || place.parse::<Ipv4Addr>().is_ok() => {
                range(place).map(|range| Self::Range(range, port))
            }
            place => Self::name(place, port),
        }
    }

    fn name(place: &str, port: Port) -> Result<Self, String> {
        let (name, is_below) = match place.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (place, false),
        };
        let name = bare(name);
        if name.contains('*') {
            return Err("'*' may stand alone or in front, as in '*.example.com'".into());
        }
        let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        let is_number = name.chars().all(|c| c.is_ascii_digit() || c == '.');
        if is_number || !name.chars().all(is_plain) || name.split('.').any(str::is_empty) {
            return Err(SHAPES.into());
        }
        Ok(Self::Name { name, is_below, port })
    }

    /// Whether a name, as the script spells it, is covered.
    pub fn covers_name(&self, name: &str, wanted: Wanted) -> bool {
        match self {
            Self::Everything(port) => covers_port(*port, wanted),
            Self::Name { name: own, is_below, port } => {
                // Some resolvers stop at a blank.
                if name.contains(|c: char| c.is_whitespace() || c.is_control()) {
                    return false;
                }
                let name = bare(name);
                let matches = match is_below {
                    false => name == *own,
                    true => name
                        .strip_suffix(own.as_str())
                        .is_some_and(|front| front.len() > 1 && front.ends_with('.')),
                };
                matches && covers_port(*port, wanted)
            }
            _ => false,
        }
    }

    pub fn covers_ip(&self, ip: IpAddr, wanted: Wanted) -> bool {
        let ip = ip.to_canonical();
        match self {
            Self::Everything(port) | Self::AnyAddress(port) => covers_port(*port, wanted),
            Self::Range(range, port) => range.contains(&ip) && covers_port(*port, wanted),
            Self::Private => !is_public(ip),
            Self::Name { .. } | Self::Unix(_) => false,
        }
    }

    /// `path` is absolute and without links.
    pub fn covers_path(&self, path: &Path) -> bool {
        matches!(self, Self::Unix(pattern) if pattern.covers(path))
    }

    /// Whether it is about one port only.
    pub fn has_port(&self) -> bool {
        match self {
            Self::Everything(port) | Self::AnyAddress(port) | Self::Range(_, port) => port.is_some(),
            Self::Name { port, .. } => port.is_some(),
            Self::Private | Self::Unix(_) => false,
        }
    }
}

fn covers_port(port: Port, wanted: Wanted) -> bool {
    match (port, wanted) {
        (None, _) | (_, Wanted::Any) => true,
        (Some(port), Wanted::Port(wanted)) => port == wanted,
    }
}

/// As names are compared: without ASCII's case (RFC 4343), and without the dot at the end (RFC 1034, section 3.1).
fn bare(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// An IPv6 address has colons of its own: a port comes behind brackets or a range only.
fn split_port(text: &str) -> (&str, Option<&str>) {
    let address_ends = match text.strip_prefix('[') {
        Some(_) => text.find(']').unwrap_or(0),
        None => text.find('/').unwrap_or(0),
    };
    if text.parse::<Ipv6Addr>().is_ok() {
        return (text, None);
    }
    match text[address_ends..].rfind(':') {
        Some(colon) => (&text[..address_ends + colon], Some(&text[address_ends + colon + 1..])),
        None => (text, None),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| is_number && *port > 0);
    port.ok_or_else(|| format!("port 1-65535 expected, got '{text}'"))
}

/// `10.0.0.0/8`, `[fd00::]/8`, `fd00::/8`, or one address.
fn range(text: &str) -> Result<IpNet, String> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let bare = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|it| it.contains(':')),
        None => Some(address),
    };
    let ip: IpAddr =
        bare.and_then(|it| it.parse().ok()).ok_or_else(|| format!("'{address}' is no address"))?;
    let most: u8 = if ip.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => most,
        Some(bits) => {
            let is_number = bits.bytes().all(|byte| byte.is_ascii_digit());
            let number = bits.parse().ok().filter(|bits| is_number && *bits <= most);
            number.ok_or_else(|| format!("'/{bits}': 0 to {most} bits expected"))?
        }
    };
    let range = IpNet::new(ip, bits).map_err(|error| error.to_string())?;
    Ok(match (ip.to_canonical(), bits.checked_sub(96)) {
        (IpAddr::V4(ip4), Some(bits)) if ip.is_ipv6() => Ipv4Net::new(ip4, bits).map_or(range, IpNet::V4),
        _ => range.trunc(),
    })
}
