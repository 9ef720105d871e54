//! Plain options with their defaults and units. Parsing them out of Lua is the Lua floor's work.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// For all of resolving, connecting and TLS's handshake; `None` is no limit. Default 5 s.
    pub timeout: Option<Duration>,
    /// Local address to connect from; port 0 lets the system pick. Default: the system's choice.
    pub bind: Option<SocketAddr>,
    pub family: Family,
    /// Default: no TLS.
    pub tls: Option<TlsClientOptions>,
    pub connection: ConnectionOptions,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(5)),
            bind: None,
            family: Family::Any,
            tls: None,
            connection: ConnectionOptions::default(),
        }
    }
}

/// How a connection behaves, however it came about.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// Send small writes at once (TCP_NODELAY) instead of collecting them (RFC 896). Default true.
    pub nodelay: bool,
    pub keepalive: Keepalive,
    /// Per operation, from its call to its result; `None` (default) is no limit.
    pub read_timeout: Option<Duration>,
    /// As `read_timeout`.
    pub write_timeout: Option<Duration>,
    /// Shared by all connections of a listener.
    pub format: Rc<Format>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Keepalive::On,
            read_timeout: None,
            write_timeout: None,
            format: Rc::default(),
        }
    }
}

/// How to listen, and how accepted connections behave.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted; the system has a limit of its own. Default 1024.
    pub backlog: usize,
    /// Let several listeners share the port (SO_REUSEPORT): the system spreads connections over them. Default false.
    pub reuse_port: bool,
    /// An IPv6 address takes no IPv4 connections. Default false.
    pub ipv6_only: bool,
    /// Default: no TLS.
    pub tls: Option<TlsServerOptions>,
    /// For TLS's handshake with a client, from the first use of its connection; `None` is no limit. Default 10 s.
    pub handshake_timeout: Option<Duration>,
    pub connection: ConnectionOptions,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 1024,
            reuse_port: false,
            ipv6_only: false,
            tls: None,
            handshake_timeout: Some(HANDSHAKE_TIMEOUT),
            connection: ConnectionOptions::default(),
        }
    }
}

/// What a handshake may take that is not part of a connect.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the look-up of a name may take where nothing else is said.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How to ask a server for TLS, and whom to believe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsClientOptions {
    /// Whether the server's certificate is checked. Default true.
    pub verify: bool,
    /// Whose certificates are believed. Default: the system's authorities.
    pub ca_bundle: Authorities,
    /// Revocation lists (RFC 5280, section 5): a certificate on one is refused. Default: none.
    pub crl: Option<Pem>,
    /// What is shown to a server that asks who its client is. Default: nothing.
    pub identity: Option<Identity>,
    /// The name or address that is asked for and that the certificate has to cover. Default: the host.
    pub sni: Option<String>,
    pub protocols: Protocols,
    /// The protocols that are spoken inside, the preferred ones first (RFC 7301). Default: none are named.
    pub alpn: Vec<Vec<u8>>,
}

impl Default for TlsClientOptions {
    fn default() -> Self {
        Self {
            verify: true,
            ca_bundle: Authorities::System,
            crl: None,
            identity: None,
            sni: None,
            protocols: Protocols::default(),
            alpn: Vec::new(),
        }
    }
}

impl TlsClientOptions {
    /// The files that they name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let authorities = match &self.ca_bundle {
            Authorities::Listed(pem) => Some(pem),
            _ => None,
        };
        let identity = self.identity.iter().flat_map(Identity::pems);
        authorities.into_iter().chain(&self.crl).chain(identity).filter_map(Pem::path)
    }
}

/// Which versions of TLS may be spoken: at least one. Default: both.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Protocols {
    pub tls12: bool,
    pub tls13: bool,
}

impl Default for Protocols {
    fn default() -> Self {
        Self { tls12: true, tls13: true }
    }
}

/// Who one is: a certificate, and behind it those of the authorities between it and the ones that the peer trusts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    pub cert: Pem,
    /// The certificate's private key.
    pub key: Pem,
    /// How errors call the two options.
    pub called: (String, String),
}

impl Identity {
    fn pems(&self) -> [&Pem; 2] {
        [&self.cert, &self.key]
    }
}

/// Whose certificates are believed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Authorities {
    /// Those of this system; where it has none, Mozilla's.
    System,
    /// Mozilla's, as they were when the module was built.
    Mozilla,
    /// Those of a list.
    Listed(Pem),
}

/// How to answer clients that ask for TLS.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsServerOptions {
    /// For clients that ask for none of `names`; without it they are refused.
    pub identity: Option<Identity>,
    /// By the name that a client asks for (RFC 6066, section 3): in lower case, or `*.` and what follows one label.
    pub names: Vec<(String, Identity)>,
    /// The authorities of clients' certificates.
    pub client_ca: Option<Pem>,
    /// Default: none.
    pub client_auth: ClientAuth,
    pub protocols: Protocols,
    /// The protocols that are spoken inside, the preferred ones first (RFC 7301). Default: none are named.
    pub alpn: Vec<Vec<u8>>,
}

impl TlsServerOptions {
    /// The files that they name.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let named = self.names.iter().map(|(_, identity)| identity);
        let identities = self.identity.iter().chain(named).flat_map(Identity::pems);
        identities.chain(&self.client_ca).filter_map(Pem::path)
    }
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    None,
    /// They may do without; a bad one is refused.
    Optional,
    Required,
}

/// How a connection in the clear goes over to TLS.
#[derive(Clone, Debug)]
pub struct UpgradeOptions {
    pub tls: UpgradeSide,
    /// For the handshake, from the upgrade on; `None` is no limit. Default 10 s.
    pub handshake_timeout: Option<Duration>,
}

impl UpgradeOptions {
    /// The files that they name.
    pub fn files(&self) -> Box<dyn Iterator<Item = &Path> + '_> {
        match &self.tls {
            UpgradeSide::Client(tls) => Box::new(tls.files()),
            UpgradeSide::Server(tls) => Box::new(tls.files()),
        }
    }
}

/// Who speaks first.
#[derive(Clone, Debug)]
pub enum UpgradeSide {
    Client(TlsClientOptions),
    Server(TlsServerOptions),
}

/// PEM (RFC 7468): where it is, or what it says.
#[derive(Clone, Eq, PartialEq)]
pub enum Pem {
    File(PathBuf),
    Text(Vec<u8>),
}

impl fmt::Debug for Pem {
    /// It may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => path.fmt(f),
            Pem::Text(_) => f.write_str("PEM"),
        }
    }
}

impl Pem {
    fn path(&self) -> Option<&Path> {
        match self {
            Pem::File(path) => Some(path),
            Pem::Text(_) => None,
        }
    }
}

/// How a socket for datagrams listens.
#[derive(Clone, Debug, Default)]
pub struct DatagramOptions {
    /// Several sockets share the port (SO_REUSEPORT). Default false.
    pub reuse_port: bool,
    /// An IPv6 address takes no IPv4 datagrams. Default false.
    pub ipv6_only: bool,
    /// Set once it is bound. Default: as the system has them.
    pub settings: Vec<DatagramSetting>,
}

/// An option of a socket for datagrams, with its value.
#[derive(Clone, Debug)]
pub enum DatagramSetting {
    /// Whether it may send to broadcast addresses (RFC 919).
    Broadcast(bool),
    /// Where multicast goes out.
    MulticastInterface(Interface),
    /// Whether this machine hears the multicast that it sends.
    MulticastLoop(bool),
    /// How many networks multicast crosses, 0 to 255.
    MulticastTtl(u32),
    /// Bytes.
    RecvBuffer(usize),
    /// Bytes.
    SendBuffer(usize),
    /// How many networks datagrams cross, 1 to 255.
    Ttl(u32),
}

/// A network interface, by its number, its name, or an IPv4 address that it has. Number 0 leaves it to the system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Interface {
    Index(u32),
    Name(String),
    Address(std::net::Ipv4Addr),
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interface::Index(index) => write!(f, "number {index}"),
            Interface::Name(name) => write!(f, "'{name}'"),
            Interface::Address(address) => address.fmt(f),
        }
    }
}

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    Any,
    Ipv4,
    Ipv6,
}

impl Family {
    pub fn admits(self, address: &SocketAddr) -> bool {
        match self {
            Family::Any => true,
            Family::Ipv4 => address.is_ipv4(),
            Family::Ipv6 => address.is_ipv6(),
        }
    }
}

/// Whether the system probes an idle connection (SO_KEEPALIVE), so that a dead peer is noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keepalive {
    Off,
    /// At the system's own pace (Linux: the first probe after two hours).
    On,
    /// The first probe after this idle time; at least one second.
    After(Duration),
}

/// Limits and formats of what is read and written.
#[derive(Clone, Debug)]
pub struct Format {
    /// What `write_line` appends. Default CR LF.
    pub newline: Vec<u8>,
    /// Bytes of a line without its newline; also the default limit of `read_until`. Default 1 MiB.
    pub max_line: usize,
    /// Bytes of a packet's payload, both directions. Default 512,000.
    pub max_packet: usize,
    /// Bytes of one JSON document in a stream. Default 64 MiB.
    pub max_json: usize,
    pub packet_endian: Endian,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            newline: b"\r\n".to_vec(),
            max_line: 1 << 20,
            max_packet: 512_000,
            max_json: 64 << 20,
            packet_endian: Endian::Big,
        }
    }
}

/// Byte order of a packet's length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Endian {
    Big,
    Little,
}
