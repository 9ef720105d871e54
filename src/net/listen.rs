//! Listening: from a host to a listener, and from a listener to connections.
//!
//! ```text
//! Start ── name ──> Resolving ──> a listener
//!   └──── literal, every address, unix path ──> a listener
//! ```

use std::io;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::address::Address;
use crate::address::Host;
use crate::address::peer_name;
use crate::error::Error;
use crate::error::Kind;
use crate::net::connection::Connection;
use crate::net::connection::Ends;
use crate::net::connection::Origin;
use crate::net::reactor::Reactor;
use crate::net::resolve::Resolve;
use crate::net::resolve::no_address;
use crate::net::watched::Watched;
use crate::options::ConnectionOptions;
use crate::options::Family;
use crate::options::ListenOptions;
use crate::options::RESOLVE_TIMEOUT;
use crate::options::TlsServerOptions;
use crate::policy::Policy;
use crate::policy::Purpose;
use crate::policy::entry::Wanted;
use crate::step::Step;
use crate::sys::listener;
use crate::sys::socket::Socket;
use crate::tls::config::ServerConfig;
use crate::tls::session::Session;

/// Where to listen.
#[derive(Clone, Debug)]
pub enum Place {
    /// `"*"`: every address of this machine.
    Everywhere,
    At(Host),
}

/// As `Place::Everywhere` is checked.
pub const EVERYWHERE: Host = Host::Ip(IpAddr::V6(Ipv6Addr::UNSPECIFIED));

/// A listener in the making.
pub struct Listen {
    /// The host as the script wrote it.
    name: String,
    port: Option<u16>,
    options: ListenOptions,
    policy: Policy,
    /// Set from the first step on, if TLS is wanted.
    tls: Option<Tls>,
    state: State,
}

enum State {
    Start(Place),
    Resolving(Resolve),
    Over,
}

impl Listen {
    pub fn new(name: &str, place: Place, port: u16, options: ListenOptions, policy: Policy) -> Self {
        let port = (!matches!(place, Place::At(Host::Unix(_)))).then_some(port);
        Self { name: name.into(), port, options, policy, tls: None, state: State::Start(place) }
    }

    /// `None`: the look-up is under way, and `descriptor` says when it is done.
    pub fn step(&mut self) -> Result<Option<Listener>, Error> {
        if let (State::Start(_), Some(options)) = (&self.state, &self.options.tls) {
            let options = options.clone();
            options.files().try_for_each(|_| self.policy.check_files())?;
            self.tls = Some(Tls { config: ServerConfig::of(&options)?, options });
        }
        let port = self.port.unwrap_or_default();
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start(Place::Everywhere) => {
                self.policy.check(self.purpose(), &EVERYWHERE, Wanted::Port(port))?;
                self.finish(listener::Listener::bind_all(port, &self.options), None)
            }
            State::Start(Place::At(Host::Unix(path))) => {
                let real = self.policy.path(self.purpose(), &path)?;
                self.finish(listener::Listener::bind_unix(&real, &self.options), Some(path))
            }
            State::Start(Place::At(host)) => {
                let resolve = Resolve::new(&self.name, host, self.port, self.policy.clone());
                self.go_on(resolve.for_listening(self.options.ipv6_only).within(Some(RESOLVE_TIMEOUT)))
            }
            State::Resolving(resolve) => self.go_on(resolve),
            State::Over => Err(Error::closed_here()),
        }
    }

    fn go_on(&mut self, mut resolve: Resolve) -> Result<Option<Listener>, Error> {
        match resolve.step()? {
            Some(addresses) => self.bind_first(addresses),
            None => {
                self.state = State::Resolving(resolve);
                Ok(None)
            }
        }
    }

    /// The first that this machine has, IPv4 first. A taken one is an error: the next would be another place.
    fn bind_first(&self, mut addresses: Vec<SocketAddr>) -> Result<Option<Listener>, Error> {
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let mut first = None;
        for address in &addresses {
            match listener::Listener::bind(address, &self.options) {
                Err(error) if listener::is_not_here(&error) => first = first.or(Some(error)),
                other => return self.finish(other, None),
            }
        }
        match first {
            Some(error) => Err(Error::from_system(&error)),
            None => Err(no_address(Family::Any)),
        }
    }

    fn finish(
        &self,
        socket: io::Result<listener::Listener>,
        path: Option<PathBuf>,
    ) -> Result<Option<Listener>, Error> {
        let socket = socket.map_err(|error| Error::from_system(&error))?;
        let address = socket.local_address().map_err(|error| Error::from_system(&error))?;
        if let Address::Ip(it) = address {
            // The system may have picked the port.
            self.policy.check_denied(self.purpose(), it.ip(), Wanted::Port(it.port()))?;
        }
        let address = path.map_or(address, |path| Address::Unix(Some(path)));
        let options = self.options.connection.clone();
        let (tls, handshake_timeout) = (self.tls.clone(), self.options.handshake_timeout);
        let open = Some(Watched::new(socket));
        Ok(Some(Listener { open, address, options, tls, handshake_timeout }))
    }

    fn purpose(&self) -> Purpose {
        Purpose::Listen { ipv6_only: self.options.ipv6_only }
    }

    /// Gives the look-up up.
    pub fn abandon(&mut self) {
        self.state = State::Over;
    }

    /// The look-up under way.
    pub fn resolve(&mut self) -> Option<&mut Resolve> {
        match &mut self.state {
            State::Resolving(resolve) => Some(resolve),
            _ => None,
        }
    }

    /// How error messages name the place.
    pub fn peer(&self) -> String {
        peer_name(&self.name, self.port)
    }
}

pub struct Listener {
    /// `None` once closed.
    open: Option<Watched<listener::Listener>>,
    address: Address,
    options: ConnectionOptions,
    tls: Option<Tls>,
    handshake_timeout: Option<Duration>,
}

/// How clients are answered, as long as the files of it do not change.
#[derive(Clone)]
struct Tls {
    config: ServerConfig,
    options: TlsServerOptions,
}

impl Listener {
    /// One that is closed.
    pub fn closed() -> Self {
        let options = ConnectionOptions::default();
        Self { open: None, address: Address::Stdin, options, tls: None, handshake_timeout: None }
    }

    /// The next connection.
    ///
    /// `policy`: whether TLS's files may be read again.
    pub fn accept(&mut self, policy: &Policy) -> Result<Step<Connection>, Error> {
        let socket = self.open.as_deref().ok_or_else(closed)?;
        let failed = |error: io::Error| Error::from_io(&error);
        loop {
            let (socket, remote) = match socket.accept().map_err(failed)? {
                Step::Ready(both) => both,
                Step::Wait(interest) => return Ok(Step::Wait(interest)),
            };
            let mut connection = match self.connection(socket, remote) {
                // What macOS says of the options of a client that has left already.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => continue,
                other => other.map_err(failed)?,
            };
            if let Some(tls) = &mut self.tls {
                if policy.allows_files() {
                    tls.config.renew(&tls.options);
                }
                connection.secure(Session::server(&tls.config)?, self.handshake_timeout);
            }
            return Ok(Step::Ready(connection));
        }
    }

    fn connection(&self, socket: Socket, remote: Address) -> io::Result<Connection> {
        let local = match &self.address {
            Address::Unix(_) => self.address.clone(),
            _ => socket.local_address()?,
        };
        let ends = Ends::accepted(local, remote);
        Connection::new(socket, ends, Origin::Accepted, &self.options)
    }

    /// Idempotent. Connections that nobody has accepted are reset.
    pub fn close(&mut self) {
        self.open = None;
    }

    pub fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// `None` once closed.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.open.as_deref().map(listener::Listener::as_fd)
    }

    /// The descriptor, for loops of others. `None` once closed.
    pub fn raw(&self) -> Option<RawFd> {
        self.open.as_deref().map(listener::Listener::raw)
    }

    /// Has the loop watch it; the slot is where it is told. `None` once closed.
    pub fn watch(&mut self, reactor: &Rc<Reactor>) -> Option<io::Result<usize>> {
        self.open.as_mut().map(|open| open.watch(reactor))
    }
}

fn closed() -> Error {
    Error::new(Kind::Closed, "the listener is closed")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpStream;
    use std::os::unix::net::UnixListener;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::step::Interest;

    fn listen(name: &str, options: ListenOptions) -> Result<Listener, Error> {
        let place = if name == "*" { Place::Everywhere } else { Place::At(Host::parse(name).unwrap()) };
        Listen::new(name, place, 0, options, Policy::default()).step().map(Option::unwrap)
    }

    #[test]
    fn a_connection_is_accepted_and_knows_its_ends() {
        let mut listener = listen("127.0.0.1", ListenOptions::default()).unwrap();
        assert!(matches!(listener.accept(&Policy::default()).unwrap(), Step::Wait(Interest::Read)));
        let port = listener.address().port().unwrap();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let Step::Ready(connection) = listener.accept(&Policy::default()).unwrap() else {
            panic!("nothing came")
        };
        assert_eq!(connection.ends().remote, Address::Ip(client.local_addr().unwrap()));
        assert_eq!(connection.ends().local.port(), Some(port));
        listener.close();
        assert_eq!(listener.accept(&Policy::default()).err().unwrap().kind(), Kind::Closed);
    }

    #[test]
    fn every_address_is_both_families() {
        let listener = listen("*", ListenOptions::default()).unwrap();
        let port = listener.address().port().unwrap();
        for address in ["127.0.0.1", "::1"] {
            TcpStream::connect((address, port)).unwrap();
        }
    }

    #[test]
    fn a_taken_address_is_told() {
        let taken = listen("127.0.0.1", ListenOptions::default()).unwrap();
        let Address::Ip(address) = *taken.address() else { panic!("no address") };
        let host = Place::At(Host::Ip(address.ip()));
        let options = ListenOptions::default();
        let mut again = Listen::new("127.0.0.1", host, address.port(), options, Policy::default());
        assert_eq!(again.step().err().unwrap().kind(), Kind::AddressInUse);
    }

    #[test]
    fn a_deserted_unix_path_is_replaced_and_others_are_not() {
        let path = std::env::temp_dir().join(format!("tcp-test-{}", std::process::id()));
        let name = format!("unix:{}", path.display());
        drop(UnixListener::bind(&path).unwrap());
        let listener = listen(&name, ListenOptions::default()).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(listen(&name, ListenOptions::default()).err().unwrap().kind(), Kind::AddressInUse);
        drop(listener);
        assert!(!path.exists());

        std::fs::write(&path, "a file").unwrap();
        assert_eq!(listen(&name, ListenOptions::default()).err().unwrap().kind(), Kind::AddressInUse);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn closing_with_unread_input_resets_nothing_until_the_peer_has_ended() {
        let mut listener = listen("127.0.0.1", ListenOptions::default()).unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", listener.address().port().unwrap())).unwrap();
        client.write_all(b"more than is read").unwrap();
        let Step::Ready(mut connection) = listener.accept(&Policy::default()).unwrap() else {
            panic!("nothing came")
        };
        let written = connection.write(
            &[io::IoSlice::new(b"answer")],
            crate::net::connection::Cut::MayContinue,
            Vec::new,
        );
        assert!(written.is_ok());
        let mut remains = connection.close().unwrap();
        assert_eq!(remains.step(), Step::Wait(Interest::Read));
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        drop(client);
        while remains.step() != Step::Ready(()) {}
    }
}
