//! Hosts, ports, literals and unix paths: what a script writes, parsed, and what it reads, printed.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a script names as the other side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Host {
    Ip(IpAddr),
    /// Anything else is for the system's resolver, hosts file included.
    Name(String),
    Unix(PathBuf),
}

impl Host {
    /// `Err` says what a host has to look like.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("path expected after 'unix:'"),
                path if path.contains('\0') => Err("path contains a zero byte"),
                path => Ok(Host::Unix(path.into())),
            };
        }
        if text.is_empty() {
            return Err("host is empty");
        }
        if text.contains('\0') {
            return Err("host contains a zero byte");
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').unwrap_or_default();
            return match inner.split_once('%') {
                // With a zone (RFC 4007, section 11) it is for the system to read.
                Some((ip, _)) if ip.parse::<Ipv6Addr>().is_ok() => Ok(Host::Name(inner.into())),
                _ => inner.parse::<Ipv6Addr>().map(|ip| Host::Ip(ip.into())),
            }
            .or(Err(if text.contains("]:") {
                PORT
            } else {
                "IPv6 address expected in brackets"
            }));
        }
        if text.contains(['[', ']']) {
            return Err("stray bracket in the host");
        }
        match text.split_once(':') {
            Some((_, port)) if port.parse::<u32>().is_ok() => return Err(PORT),
            _ => {}
        }
        Ok(text.parse().map_or_else(|_| Host::Name(text.into()), Host::Ip))
    }
}

/// No name has a colon (RFC 1123, section 2.1).
const PORT: &str = "host without ':port' expected: a port is an argument of its own";

/// An end of a connection, as the system names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    Ip(SocketAddr),
    /// `None`: the end has no name, as the client's end of a unix socket.
    Unix(Option<PathBuf>),
    /// The process's standard input.
    Stdin,
}

impl Address {
    /// The address alone: `127.0.0.1`, `::1`, `unix:/path`.
    pub fn host(&self) -> String {
        match self {
            Address::Ip(it) => it.ip().to_string(),
            Address::Unix(_) | Address::Stdin => self.to_string(),
        }
    }

    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Ip(it) => Some(it.port()),
            Address::Unix(_) | Address::Stdin => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(it) => it.fmt(f),
            Address::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Address::Unix(None) => f.write_str("unix:"),
            Address::Stdin => f.write_str("stdin"),
        }
    }
}

/// Parses the `bind` option, `"ip"` or `"ip:port"` (IPv6 with a port in brackets); port 0 lets the system pick.
pub fn parse_bind(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).ok()
}

/// How error messages name the other side: `db.local:5432`, `[::1]:80`, `unix:/path`.
pub fn peer_name(host: &str, port: Option<u16>) -> String {
    match port {
        None => host.into(),
        Some(port) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart() {
        assert_eq!(Host::parse("127.0.0.1"), Ok(Host::Ip([127, 0, 0, 1].into())));
        assert_eq!(Host::parse("::1"), Ok(Host::Ip(Ipv6Addr::LOCALHOST.into())));
        assert_eq!(Host::parse("[::1]"), Ok(Host::Ip(Ipv6Addr::LOCALHOST.into())));
        assert_eq!(Host::parse("[fe80::1%lo]"), Ok(Host::Name("fe80::1%lo".into())));
        assert_eq!(Host::parse("db.local"), Ok(Host::Name("db.local".into())));
        assert_eq!(Host::parse("unix:/run/x"), Ok(Host::Unix("/run/x".into())));
    }

    #[test]
    fn what_cannot_be_a_host_is_refused() {
        for text in ["", "unix:", "[::1", "[db]", "[127.0.0.1]", "::1]", "a\0b", "unix:/a\0b"] {
            assert!(Host::parse(text).is_err(), "{text:?}");
        }
        for text in ["127.0.0.1:80", "db.local:5432", "[::1]:80"] {
            assert_eq!(Host::parse(text), Err(PORT));
        }
        for text in ["::1:80", "fe80::1%lo:80", "db:", "http://db", "a:b"] {
            assert_ne!(Host::parse(text), Err(PORT));
        }
    }

    #[test]
    fn peers_are_printed_so_that_they_can_be_read_back() {
        assert_eq!(peer_name("db.local", Some(5432)), "db.local:5432");
        assert_eq!(peer_name("::1", Some(80)), "[::1]:80");
        assert_eq!(peer_name("[::1]", Some(80)), "[::1]:80");
        assert_eq!(peer_name("unix:/run/x", None), "unix:/run/x");
    }

    #[test]
    fn bind_takes_an_address_with_or_without_a_port() {
        assert_eq!(parse_bind("127.0.0.1"), Some(([127, 0, 0, 1], 0).into()));
        assert_eq!(parse_bind("127.0.0.1:99"), Some(([127, 0, 0, 1], 99).into()));
        assert_eq!(parse_bind("[::1]:99"), Some(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 99)));
        assert_eq!(parse_bind("::1"), Some(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0)));
        assert_eq!(parse_bind("localhost"), None);
    }
}
