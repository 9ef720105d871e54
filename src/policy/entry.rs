//! One entry of a list: what it looks like, and what it covers.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::path::Path;

use ipnet::IpNet;
use ipnet::Ipv4Net;

use crate::policy::paths::Pattern;
use crate::policy::public::is_public;

/// As it was written, and what that covers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub text: String,
    shape: Shape,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Shape {
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
type Port = Option<u16>;

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
        match Shape::parse(text)? {
            Shape::Private => Err("'private' is for 'deny'".into()),
            shape => Ok(Self { text: text.into(), shape }),
        }
    }

    /// An entry of what is denied.
    pub fn of_denied(text: &str) -> Result<Self, String> {
        match Shape::parse(text)? {
            Shape::Name { .. } | Shape::Everything(_) => {
                Err("addresses, ranges, ':port', 'private' and unix paths can be denied, names cannot".into())
            }
            Shape::Private if text != "private" => Err("'private' stands alone, in lower case".into()),
            shape => Ok(Self { text: text.into(), shape }),
        }
    }

    /// Whether a name, as the script spells it, is covered.
    pub fn covers_name(&self, name: &str, wanted: Wanted) -> bool {
        match &self.shape {
            Shape::Everything(port) => covers_port(*port, wanted),
            Shape::Name { name: own, is_below, port } => {
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
        match &self.shape {
            Shape::Everything(port) | Shape::AnyAddress(port) => covers_port(*port, wanted),
            Shape::Range(range, port) => range.contains(&ip) && covers_port(*port, wanted),
            Shape::Private => !is_public(ip),
            Shape::Name { .. } | Shape::Unix(_) => false,
        }
    }

    /// Whether it covers any address of the family of `ip`.
    pub fn covers_some_of(&self, ip: IpAddr, wanted: Wanted) -> bool {
        match &self.shape {
            Shape::Range(range, port) => range.addr().is_ipv4() == ip.is_ipv4() && covers_port(*port, wanted),
            _ => self.covers_ip(ip, wanted),
        }
    }

    /// `path` is absolute and without links.
    pub fn covers_path(&self, path: &Path) -> bool {
        matches!(&self.shape, Shape::Unix(pattern) if pattern.covers(path))
    }

    /// Whether it is about names, and this port.
    pub fn is_for_names(&self, wanted: Wanted) -> bool {
        matches!(self.shape, Shape::Name { port, .. } if covers_port(port, wanted))
    }

    /// Whether it is about addresses, and this port.
    pub fn is_for_addresses(&self, wanted: Wanted) -> bool {
        matches!(self.shape, Shape::Range(_, port) | Shape::AnyAddress(port) if covers_port(port, wanted))
    }

    /// Whether it is about one port only.
    pub fn has_port(&self) -> bool {
        match self.shape {
            Shape::Everything(port) | Shape::AnyAddress(port) | Shape::Range(_, port) => port.is_some(),
            Shape::Name { port, .. } => port.is_some(),
            Shape::Private | Shape::Unix(_) => false,
        }
    }
}

impl Shape {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Pattern::parse(path).map(Self::Unix);
        }
        if text.starts_with('/') && Pattern::parse(text).is_ok() {
            return Err(format!("write 'unix:{text}' for a unix socket"));
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) || text.is_empty() {
            return Err(SHAPES.into());
        }
        let (place, port) = split_port(text)?;
        let port = port.map(parse_port).transpose()?;
        match place {
            "" => Ok(Self::AnyAddress(port)),
            "*" => Ok(Self::Everything(port)),
            place if bare(place) == "private" => Ok(Self::Private),
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
        if parse_port(place).is_ok() {
            return Err(format!("write ':{place}' for a port"));
        }
        if is_number || !name.chars().all(is_plain) || name.split('.').any(str::is_empty) {
            return Err(SHAPES.into());
        }
        Ok(Self::Name { name, is_below, port })
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
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    let address_ends = match text.strip_prefix('[') {
        Some(_) => text.find(']').unwrap_or(0),
        None => text.find('/').unwrap_or(0),
    };
    let Some((place, port)) = text[address_ends..].rfind(':').map(|at| text.split_at(address_ends + at))
    else {
        return Ok((text, None));
    };
    let port = &port[1..];
    match (text.parse::<Ipv6Addr>(), place.parse::<Ipv6Addr>()) {
        // Which one was meant?
        (Ok(_), Ok(_)) if parse_port(port).is_ok() => {
            Err(format!("write '[{place}]:{port}' for the port, or '[{text}]' for the address"))
        }
        (Ok(_), _) => Ok((text, None)),
        (Err(_), Ok(_)) => {
            parse_port(port).and_then(|_| Err(format!("write '[{place}]:{port}' for the port")))
        }
        _ => Ok((place, Some(port))),
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
        Some(bits) => match bits.parse::<u8>() {
            Ok(number) if number <= most && number.to_string() == bits => number,
            Ok(number) if number <= most => return Err(format!("write '/{number}' for '/{bits}'")),
            _ => return Err(format!("'/{bits}': 0 to {most} bits expected")),
        },
    };
    let range = IpNet::new(ip, bits).map_err(|error| error.to_string())?;
    if range.trunc() != range {
        let first = range.network();
        let first = if ip.is_ipv4() { first.to_string() } else { format!("[{first}]") };
        return Err(format!("the range is written '{first}/{bits}', the address without '/{bits}'"));
    }
    Ok(match (ip.to_canonical(), bits.checked_sub(96)) {
        (IpAddr::V4(ip4), Some(bits)) if ip.is_ipv6() => Ipv4Net::new(ip4, bits).map_or(range, IpNet::V4),
        _ => range,
    })
}
