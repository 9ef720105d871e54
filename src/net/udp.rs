//! UDP: datagrams to and from a socket, with or without a peer.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use crate::address::Host;
use crate::address::peer_name;
use crate::error::Error;
use crate::error::Kind;
use crate::net::listen::EVERYWHERE;
use crate::net::listen::Place;
use crate::net::reactor::Reactor;
use crate::net::resolve::Resolve;
use crate::net::udp_words;
use crate::net::watched::Watched;
use crate::options::DatagramOptions;
use crate::options::DatagramSetting;
use crate::options::Interface;
use crate::options::RESOLVE_TIMEOUT;
use crate::policy::Policy;
use crate::policy::Purpose;
use crate::policy::entry::Wanted;
use crate::step::Step;
use crate::sys::datagram;
use crate::sys::datagram::Datagram;
use crate::sys::datagram::Received;

/// A socket in the making.
pub struct Opening {
    name: String,
    port: u16,
    role: Role,
    resolve: Option<Resolve>,
}

enum Role {
    /// Sends to a peer and hears only that one.
    Peer,
    Listener(DatagramOptions, Policy),
}

pub struct UdpSocket {
    /// `None` once closed.
    open: Option<Watched<Datagram>>,
    local: SocketAddr,
    peer: Option<SocketAddr>,
    /// Of receiving, and of sending where that has to wait; `None` is no limit.
    pub timeout: Option<Duration>,
}

impl Opening {
    /// Of a socket with a peer.
    pub fn to_peer(name: &str, host: Host, port: u16, policy: Policy) -> Self {
        let resolve = Resolve::new(name, host, Some(port), policy).within(Some(RESOLVE_TIMEOUT));
        Self { name: name.into(), port, role: Role::Peer, resolve: Some(resolve) }
    }

    /// Of a socket that listens.
    pub fn to_listen(
        name: &str,
        place: Place,
        port: u16,
        options: DatagramOptions,
        policy: Policy,
    ) -> Result<Self, Error> {
        let purpose = Purpose::Listen { ipv6_only: options.ipv6_only };
        let resolve = match place {
            Place::Everywhere => {
                policy.check(purpose, &EVERYWHERE, Wanted::Port(port))?;
                None
            }
            Place::At(host) => {
                let resolve = Resolve::new(name, host, Some(port), policy.clone());
                Some(resolve.for_listening(options.ipv6_only).within(Some(RESOLVE_TIMEOUT)))
            }
        };
        Ok(Self { name: name.into(), port, role: Role::Listener(options, policy), resolve })
    }

    /// `None`: a look-up is under way.
    pub fn step(&mut self) -> Result<Option<UdpSocket>, Error> {
        let opened = self.advance()?;
        if let (Some(socket), Role::Listener(options, policy)) = (&opened, &self.role) {
            // The system may have picked the port.
            let purpose = Purpose::Listen { ipv6_only: options.ipv6_only };
            policy.check_denied(purpose, socket.local.ip(), Wanted::Port(socket.local.port()))?;
        }
        Ok(opened)
    }

    fn advance(&mut self) -> Result<Option<UdpSocket>, Error> {
        let Some(resolve) = &mut self.resolve else {
            let Role::Listener(options, _) = &self.role else { return Err(Error::closed_here()) };
            return UdpSocket::anywhere(self.port, options).map(Some);
        };
        let Some(mut addresses) = resolve.step()? else { return Ok(None) };
        match &self.role {
            Role::Peer => first(&addresses, |address| {
                udp_words::check_port(*address)?;
                let socket =
                    Datagram::connect(address).map_err(|error| udp_words::of_connect(&error, *address))?;
                UdpSocket::new(socket, Some(*address))
            }),
            Role::Listener(options, _) => {
                // As listeners do.
                addresses.sort_by_key(SocketAddr::is_ipv6);
                first(&addresses, |address| {
                    let socket = Datagram::bind(address, options);
                    UdpSocket::with(socket.map_err(|error| Error::from_system(&error))?, options)
                })
            }
        }
    }

    pub fn resolve(&mut self) -> Option<&mut Resolve> {
        self.resolve.as_mut()
    }

    /// How error messages name the place.
    pub fn peer(&self) -> String {
        peer_name(&self.name, Some(self.port))
    }
}

/// What the first address gives that works, or the first failure.
fn first(
    addresses: &[SocketAddr],
    open: impl Fn(&SocketAddr) -> Result<UdpSocket, Error>,
) -> Result<Option<UdpSocket>, Error> {
    let mut failure = None;
    for address in addresses {
        match open(address) {
            Ok(socket) => return Ok(Some(socket)),
            // A taken one is an error: the next would be another place.
            Err(error) if error.kind() == Kind::AddressInUse => return Err(error),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(Error::closed_here))
}

impl UdpSocket {
    /// One that is closed.
    pub fn closed() -> Self {
        Self { open: None, local: SocketAddr::from(([0; 4], 0)), peer: None, timeout: None }
    }

    /// Without a peer, on every address.
    pub fn anywhere(port: u16, options: &DatagramOptions) -> Result<Self, Error> {
        let socket = Datagram::anywhere(port, options).map_err(|error| Error::from_system(&error))?;
        Self::with(socket, options)
    }

    fn with(mut socket: Datagram, options: &DatagramOptions) -> Result<Self, Error> {
        options.settings.iter().try_for_each(|setting| {
            socket.set(setting).map_err(|error| udp_words::of_setting(&error, setting))
        })?;
        Self::new(socket, None)
    }

    fn new(socket: Datagram, peer: Option<SocketAddr>) -> Result<Self, Error> {
        let local = socket.local_address().map_err(|error| Error::from_system(&error))?;
        Ok(Self { open: Some(Watched::new(socket)), local, peer, timeout: None })
    }

    /// To the peer.
    pub fn send(&self, data: &[u8]) -> Result<Step<usize>, Error> {
        let to = self.peer.unwrap_or(self.local);
        self.sent(data, to, |socket| socket.send(data))
    }

    pub fn send_to(&self, data: &[u8], address: SocketAddr) -> Result<Step<usize>, Error> {
        udp_words::check_port(address)?;
        self.sent(data, address, |socket| socket.send_to(data, address))
    }

    fn sent(
        &self,
        data: &[u8],
        to: SocketAddr,
        send: impl FnOnce(&Datagram) -> io::Result<Step<()>>,
    ) -> Result<Step<usize>, Error> {
        let socket = self.socket()?;
        match send(socket) {
            Ok(step) => Ok(step.map(|()| data.len())),
            Err(error) if datagram::is_too_long(&error) => {
                let message = format!("a datagram of {} bytes is longer than the network takes", data.len());
                Err(Error::new(Kind::TooLarge, message))
            }
            Err(error) => Err(udp_words::of_send(&error, to, socket)),
        }
    }

    /// One datagram into `room`. One that is longer is consumed, and an error with what there was room for.
    pub fn receive(&self, room: &mut [u8]) -> Result<Step<Received>, Error> {
        match self.socket()?.receive(room) {
            Ok(Step::Ready(got)) if got.is_cut => {
                let most = room.len();
                let message =
                    format!("a datagram of more than {most} bytes, which is max; what is over is lost");
                Err(Error::new(Kind::TooLarge, message).with_data(&room[..got.length.min(most)]))
            }
            Ok(step) => Ok(step),
            Err(error) => Err(Error::from_system(&error)),
        }
    }

    pub fn join(&self, group: IpAddr, interface: &Interface) -> Result<(), Error> {
        let socket = self.socket_for(group)?;
        socket.join(group, interface).map_err(|error| udp_words::of_join(&error, group, interface))
    }

    pub fn leave(&self, group: IpAddr, interface: &Interface) -> Result<(), Error> {
        let socket = self.socket_for(group)?;
        socket.leave(group, interface).map_err(|error| udp_words::of_leave(&error, group, interface))
    }

    pub fn set(&mut self, setting: &DatagramSetting) -> Result<(), Error> {
        let socket = self.open.as_mut().ok_or_else(udp_words::closed)?;
        socket.set(setting).map_err(|error| udp_words::of_setting(&error, setting))
    }

    /// Idempotent.
    pub fn close(&mut self) {
        self.open = None;
    }

    pub fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    /// An error once closed.
    pub fn socket(&self) -> Result<&Datagram, Error> {
        self.open.as_deref().ok_or_else(udp_words::closed)
    }

    fn socket_for(&self, group: IpAddr) -> Result<&Datagram, Error> {
        let socket = self.socket()?;
        if self.speaks(group) { Ok(socket) } else { Err(udp_words::ipv4_only()) }
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// How error messages name it: by its peer, or else by its own address.
    pub fn name(&self) -> String {
        self.peer.unwrap_or(self.local).to_string()
    }

    /// Where `send` sends.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whether it can send to addresses of a family at all.
    pub fn speaks(&self, ip: IpAddr) -> bool {
        self.local.is_ipv6() || ip.is_ipv4()
    }

    /// `None` once closed.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.open.as_deref().map(Datagram::as_fd)
    }

    /// The descriptor, for loops of others. `None` once closed.
    pub fn raw(&self) -> Option<RawFd> {
        self.open.as_deref().map(Datagram::raw)
    }

    /// Has the loop watch it; the slot is where it is told. `None` once closed.
    pub fn watch(&mut self, reactor: &Rc<Reactor>) -> Option<io::Result<usize>> {
        self.open.as_mut().map(|open| open.watch(reactor))
    }
}
