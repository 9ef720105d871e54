//! From a host to a connection: resolve, then race the addresses in the manner of RFC 8305.
//!
//! ```text
//! Start ── name ──> Resolving ──> Racing ──> a connection ── with TLS ──> Handshaking ──> a connection
//!   ├──── literal ──────────────────^               ^
//!   └──── unix path ──> Unix ───────────────────────┘
//! ```
//!
//! One deadline holds over all of it. Addresses of both families alternate; each attempt has a head start
//! before the next one begins beside it, and a failed attempt lets the next begin at once.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;

use crate::address::Address;
use crate::address::Host;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::error::Stage;
use crate::net::connection::Connection;
use crate::net::connection::Ends;
use crate::net::connection::Origin;
use crate::net::race::Race;
use crate::net::race::Watched;
use crate::net::reactor::Reactor;
use crate::net::reactor::Registration;
use crate::net::resolve::no_address;
use crate::net::resolve::unresolved;
use crate::options::ConnectOptions;
use crate::options::Family;
use crate::policy::Policy;
use crate::policy::Purpose;
use crate::policy::entry::Wanted;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::poller::Source;
use crate::sys::resolver::Lookup;
use crate::sys::socket::Socket;
use crate::tls::config::ClientConfig;
use crate::tls::session;
use crate::tls::session::Session;

pub struct Dial {
    host: String,
    port: Option<u16>,
    options: ConnectOptions,
    policy: Policy,
    /// Set from the first step on, if TLS is wanted.
    tls: Option<ClientConfig>,
    state: State,
    deadline: Deadline,
    /// The failure to report if no address answers.
    failure: Option<Error>,
    /// Set once the loop watches it.
    registration: Option<Registration>,
}

enum State {
    Start(Host),
    Resolving(Watched<Lookup>),
    Racing(Race),
    Unix(PathBuf),
    Handshaking(Box<Handshake>),
    Over,
}

/// A connection that is to be given once its handshake is complete.
struct Handshake {
    connection: Connection,
    /// Its descriptor belongs to the dial's registration.
    is_watched: bool,
    interest: Interest,
}

/// How often a unix socket whose backlog is full is tried again: the system offers nothing to wait for.
const UNIX_RETRY: Duration = Duration::from_millis(10);

impl Dial {
    /// `name` is the host as the script wrote it.
    pub fn new(
        name: &str,
        host: Host,
        port: u16,
        options: ConnectOptions,
        policy: Policy,
        now: Instant,
    ) -> Self {
        Self {
            policy,
            host: name.into(),
            port: (!matches!(host, Host::Unix(_))).then_some(port),
            deadline: Deadline::after(now, options.timeout),
            options,
            tls: None,
            state: State::Start(host),
            failure: None,
            registration: None,
        }
    }

    /// `None` means that `sources` and `wake` say what to wait for.
    pub fn step(&mut self, now: Instant) -> Result<Option<Connection>, Error> {
        self.advance(now).inspect_err(|_| self.registration = None)
    }

    fn advance(&mut self, now: Instant) -> Result<Option<Connection>, Error> {
        if let State::Start(host) = &self.state {
            // What is wrong with the options is told before anything is sent.
            self.policy.check(Purpose::Reach, host, Wanted::Port(self.port()))?;
            if let Some(tls) = &self.options.tls {
                session::check_name(&self.server_name())?;
                tls.files().try_for_each(|_| self.policy.check_files())?;
                self.tls = Some(ClientConfig::of(tls)?);
            }
        }
        loop {
            self.state = match std::mem::replace(&mut self.state, State::Over) {
                State::Start(Host::Ip(ip)) => self.race(vec![SocketAddr::new(ip, self.port())], now)?,
                State::Start(Host::Name(name)) => {
                    let lookup = Lookup::start(name, self.port());
                    let lookup = lookup.map_err(|e| Error::from_io(&e).with_stage(Stage::Resolve))?;
                    State::Resolving(Watched::not_yet(lookup))
                }
                State::Start(Host::Unix(path)) => State::Unix(path),
                State::Resolving(lookup) => match lookup.it.poll() {
                    Some(answer) => self.race(answer.map_err(|e| unresolved(&e))?, now)?,
                    None => {
                        self.state = State::Resolving(lookup);
                        return Ok(None);
                    }
                },
                State::Racing(mut race) => {
                    if let Some((socket, address)) = race.step(&self.options, now, &mut self.failure) {
                        self.connected(socket, Address::Ip(address))?
                    } else if race.is_over() {
                        return Err(self.expire());
                    } else {
                        self.state = State::Racing(race);
                        return Ok(None);
                    }
                }
                State::Unix(path) => {
                    // Each time: what lies at the path may have changed.
                    let real = self.policy.path(Purpose::Reach, &path)?;
                    match Socket::connect_unix(&real) {
                        Ok(socket) => self.connected(Watched::not_yet(socket), Address::Unix(Some(real)))?,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            self.state = State::Unix(path);
                            return Ok(None);
                        }
                        Err(error) => return Err(Error::from_connect(&error)),
                    }
                }
                State::Handshaking(mut it) => match it.connection.handshake().map_err(of_handshake)? {
                    Step::Ready(()) => return Ok(Some(self.finish(*it))),
                    Step::Wait(interest) => {
                        it.interest = interest;
                        self.state = State::Handshaking(it);
                        return Ok(None);
                    }
                },
                State::Over => return Err(Error::closed_here().with_stage(Stage::Connect)),
            };
        }
    }

    /// The error of a connect that has no more time, or no more addresses: what an address answered says
    /// more than that the time ran out.
    pub fn expire(&mut self) -> Error {
        let stage = self.stop();
        let failure = self.failure.take().filter(|_| stage != Stage::Handshake);
        failure.unwrap_or_else(|| {
            let message = match stage {
                Stage::Resolve => "timed out while resolving the name",
                Stage::Connect => "timed out while connecting",
                Stage::Handshake => "timed out during the TLS handshake",
            };
            Error::new(Kind::Timeout, message).with_stage(stage)
        })
    }

    /// The error of a connect that nobody wants any more.
    pub fn give_up(&mut self, cause: Error) -> Error {
        cause.with_stage(self.stop())
    }

    /// What is under way is given up here, not when the script's garbage is collected.
    fn stop(&mut self) -> Stage {
        self.registration = None;
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start(_) | State::Resolving(_) => Stage::Resolve,
            State::Handshaking(_) => Stage::Handshake,
            _ => Stage::Connect,
        }
    }

    /// The descriptors whose readiness makes the next step worth while.
    pub fn sources(&self) -> Vec<Source<'_>> {
        match &self.state {
            State::Resolving(lookup) => vec![Source { fd: lookup.it.as_fd(), interest: Interest::Read }],
            State::Racing(race) => {
                let fds = race.running.iter().map(|(socket, _)| socket.it.as_fd());
                fds.map(|fd| Source { fd, interest: Interest::Write }).collect()
            }
            State::Handshaking(it) => {
                let fd = it.connection.descriptor();
                fd.map(|fd| Source { fd, interest: it.interest }).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Has the loop watch what there is to wait for; the slot is where it is told.
    pub fn watch(&mut self, reactor: &Rc<Reactor>) -> io::Result<usize> {
        let registration = self.registration.get_or_insert_with(|| Registration::of_any(reactor));
        match &mut self.state {
            State::Resolving(lookup) => lookup.watch(registration)?,
            State::Racing(race) => {
                race.running.iter_mut().try_for_each(|(socket, _)| socket.watch(registration))?;
            }
            State::Handshaking(it) => {
                if let Some(fd) = it.connection.descriptor().filter(|_| !it.is_watched) {
                    registration.add(fd)?;
                    it.is_watched = true;
                }
            }
            _ => {}
        }
        Ok(registration.slot())
    }

    /// When the next step is worth while even if no descriptor is ready.
    pub fn wake(&self, now: Instant) -> Deadline {
        match &self.state {
            State::Racing(race) if !race.waiting.is_empty() => Deadline::at(race.next),
            State::Unix(_) => Deadline::after(now, Some(UNIX_RETRY)),
            _ => Deadline::NEVER,
        }
    }

    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// How error messages name the other side.
    pub fn peer(&self) -> String {
        crate::address::peer_name(&self.host, self.port)
    }

    fn port(&self) -> u16 {
        self.port.unwrap_or_default()
    }

    fn race(&self, addresses: Vec<SocketAddr>, now: Instant) -> Result<State, Error> {
        let bound = self.options.bind;
        let usable = addresses.into_iter().filter(|address| {
            self.options.family.admits(address) && bound.is_none_or(|it| it.is_ipv4() == address.is_ipv4())
        });
        let wanted = Wanted::Port(self.port());
        let usable = self.policy.filter(Purpose::Reach, &self.host, usable.collect(), wanted)?;
        let race = Race::of(usable.into_iter(), now);
        if race.is_over() {
            return Err(match (self.options.family, bound) {
                (Family::Any, Some(_)) => {
                    let message = "the host has no address of the family of 'bind'";
                    Error::new(Kind::Resolve, message).with_stage(Stage::Resolve)
                }
                (family, _) => no_address(family),
            });
        }
        Ok(State::Racing(race))
    }

    /// A socket is connected: that is all, or TLS begins.
    fn connected(&self, socket: Watched<Socket>, remote: Address) -> Result<State, Error> {
        let failed = |error| Error::from_connect(&error);
        let local = socket.it.local_address().map_err(failed)?;
        let ends = Ends::dialled(&self.host, self.port, local, remote);
        let (is_watched, options) = (socket.is_watched, &self.options.connection);
        let mut connection = Connection::new(socket.it, ends, Origin::Dialled, options).map_err(failed)?;
        if let Some(config) = &self.tls {
            let session = Session::client(config, &self.server_name(), &connection.ends().remote.to_string());
            connection.secure(session.map_err(|error| error.with_stage(Stage::Handshake))?, None);
        }
        // Without TLS nothing is left to be done.
        Ok(State::Handshaking(Box::new(Handshake { connection, is_watched, interest: Interest::Write })))
    }

    fn finish(&mut self, it: Handshake) -> Connection {
        let mut connection = it.connection;
        if let Some(registration) = self.registration.take().filter(|_| it.is_watched) {
            connection.set_registration(registration);
        }
        connection
    }

    /// Whom TLS asks for.
    fn server_name(&self) -> String {
        let options = self.options.tls.as_ref();
        session::covered_name(options.and_then(|tls| tls.sni.as_ref()).unwrap_or(&self.host))
    }
}

/// The last words of a handshake may fail to leave when it is complete for this side.
fn of_handshake(error: Error) -> Error {
    if error.stage().is_some() { error } else { error.with_stage(Stage::Handshake) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::Domain;
    use socket2::Type;

    use super::*;
    use crate::net::race::HEAD_START;
    use crate::sys::poller;

    fn dial(name: &str, port: u16, options: ConnectOptions) -> Result<Connection, Error> {
        let host = Host::parse(name).unwrap();
        finish(Dial::new(name, host, port, options, Policy::default(), Instant::now()))
    }

    fn race(addresses: &[SocketAddr], timeout: u64) -> Result<Connection, Error> {
        let options = ConnectOptions { timeout: Some(Duration::from_millis(timeout)), ..Default::default() };
        let now = Instant::now();
        let host = Host::Name("test".into());
        let mut dial = Dial::new("test", host, 1, options, Policy::default(), now);
        dial.state = dial.race(addresses.to_vec(), now).unwrap();
        finish(dial)
    }

    fn finish(mut dial: Dial) -> Result<Connection, Error> {
        loop {
            if let Some(connection) = dial.step(Instant::now())? {
                return Ok(connection);
            }
            let until = dial.deadline().earliest(dial.wake(Instant::now()));
            poller::wait(&dial.sources(), until).unwrap();
            if dial.deadline().passed(Instant::now()) {
                return Err(dial.expire());
            }
        }
    }

    /// A listener whose backlog is full: further attempts are neither accepted nor refused.
    struct Silent {
        listener: socket2::Socket,
        _crowd: Vec<socket2::Socket>,
    }

    impl Silent {
        fn new() -> Self {
            let socket = || socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let listener = socket();
            listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            let fill = |_| {
                let client = socket();
                client.set_nonblocking(true).unwrap();
                let _ = client.connect(&address);
                client
            };
            Self { listener, _crowd: (0..4).map(fill).collect() }
        }

        fn address(&self) -> SocketAddr {
            self.listener.local_addr().unwrap().as_socket().unwrap()
        }
    }

    fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_literal_is_connected_without_a_look_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connection = dial("127.0.0.1", port, ConnectOptions::default()).unwrap();
        assert_eq!(connection.ends().remote.port(), Some(port));
    }

    #[test]
    fn a_refusal_lets_the_next_address_begin_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let began = Instant::now();
        let connection = race(&[refusing(), listener.local_addr().unwrap()], 5000).unwrap();
        assert_eq!(connection.ends().remote, Address::Ip(listener.local_addr().unwrap()));
        assert!(began.elapsed() < HEAD_START);
    }

    #[test]
    fn a_silent_address_costs_its_head_start_only() {
        let (silent, listener) = (Silent::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let began = Instant::now();
        let connection = race(&[silent.address(), listener.local_addr().unwrap()], 5000).unwrap();
        assert_eq!(connection.ends().remote, Address::Ip(listener.local_addr().unwrap()));
        let taken = began.elapsed();
        assert!(taken >= HEAD_START && taken < HEAD_START * 4, "{taken:?}");
    }

    #[test]
    fn a_refusal_is_reported_before_a_timeout() {
        let silent = Silent::new();
        let error = race(&[silent.address(), refusing()], 600).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused);
        let error = race(&[silent.address()], 100).err().unwrap();
        assert_eq!((error.kind(), error.stage()), (Kind::Timeout, Some(Stage::Connect)));
    }

    #[test]
    fn a_family_that_the_host_lacks_is_not_tried() {
        let options = ConnectOptions { family: Family::Ipv6, ..Default::default() };
        let error = dial("127.0.0.1", 1, options).err().unwrap();
        assert_eq!((error.kind(), error.message()), (Kind::Resolve, "the host has no IPv6 address"));
    }

    #[test]
    fn an_unknown_name_does_not_resolve() {
        // A label of more than 63 bytes (RFC 1035, section 2.3.4): no question leaves the machine.
        let error = dial(&"x".repeat(64), 1, ConnectOptions::default()).err().unwrap();
        assert_eq!((error.kind(), error.stage()), (Kind::Resolve, Some(Stage::Resolve)));
    }
}
