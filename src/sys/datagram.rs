//! A non-blocking UDP socket that is closed on exec.

use std::io;
use std::io::IoSliceMut;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockaddrStorage;
use nix::sys::socket::recvmsg;
use socket2::Domain;
use socket2::InterfaceIndexOrAddress;
use socket2::Type;

use crate::options::DatagramOptions;
use crate::options::DatagramSetting;
use crate::options::Interface;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::socket::above_standard;

pub struct Datagram {
    socket: socket2::Socket,
    is_ipv6: bool,
    /// Where datagrams to groups go out, if it has been set.
    multicast_interface: Option<Interface>,
}

/// What one receive brought.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub length: usize,
    /// The rest of the datagram is lost.
    pub is_cut: bool,
    /// `None`: the system does not say.
    pub from: Option<SocketAddr>,
}

fn index(interface: &Interface) -> io::Result<u32> {
    match interface {
        Interface::Index(index) => Ok(*index),
        Interface::Name(name) => Ok(if_nametoindex(name.as_str())?),
        Interface::Address(_) => Err(Errno::ENODEV.into()),
    }
}

/// The first IPv4 address that an interface has.
fn address(interface: &Interface) -> io::Result<Ipv4Addr> {
    let index = match interface {
        Interface::Address(address) => return Ok(*address),
        Interface::Index(0) => return Ok(Ipv4Addr::UNSPECIFIED),
        other => index(other)?,
    };
    let mut failure = Errno::ENODEV;
    for it in getifaddrs()?.filter(|it| if_nametoindex(it.interface_name.as_str()) == Ok(index)) {
        match it.address.as_ref().and_then(SockaddrStorage::as_sockaddr_in) {
            Some(ipv4) => return Ok(ipv4.ip()),
            None => failure = Errno::EADDRNOTAVAIL,
        }
    }
    Err(failure.into())
}

impl Datagram {
    /// Of both families where the system has IPv6.
    pub fn anywhere(port: u16, options: &DatagramOptions) -> io::Result<Self> {
        match Self::bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), options) {
            Err(error) if super::listener::is_not_here(&error) && !options.ipv6_only => {
                Self::bind(&(Ipv4Addr::UNSPECIFIED, port).into(), options)
            }
            other => other,
        }
    }

    pub fn bind(address: &SocketAddr, options: &DatagramOptions) -> io::Result<Self> {
        let it = Self::new(address.is_ipv6())?;
        if options.reuse_port {
            it.socket.set_reuse_port(true)?;
        }
        if address.is_ipv6() {
            it.socket.set_only_v6(options.ipv6_only)?;
        }
        it.socket.bind(&(*address).into())?;
        Ok(it)
    }

    /// With a peer: it sends there, and receives from there only.
    pub fn connect(address: &SocketAddr) -> io::Result<Self> {
        let it = Self::new(address.is_ipv6())?;
        it.socket.connect(&(*address).into())?;
        Ok(it)
    }

    fn new(is_ipv6: bool) -> io::Result<Self> {
        let domain = if is_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = above_standard(socket2::Socket::new(domain, Type::DGRAM, None)?)?;
        socket.set_nonblocking(true)?;
        // Otherwise it also hears groups that only other sockets have joined (ip(7)).
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let _ = socket.set_multicast_all_v4(false);
            let _ = if is_ipv6 { socket.set_multicast_all_v6(false) } else { Ok(()) };
        }
        Ok(Self { socket, is_ipv6, multicast_interface: None })
    }

    pub fn send(&self, data: &[u8]) -> io::Result<Step<()>> {
        sent(|| self.socket.send(data))
    }

    pub fn send_to(&self, data: &[u8], address: SocketAddr) -> io::Result<Step<()>> {
        let address = match address {
            // A socket of both families knows IPv4 addresses as mapped ones (RFC 3493, section 3.7).
            SocketAddr::V4(it) if self.is_ipv6 => {
                SocketAddr::from((it.ip().to_ipv6_mapped(), it.port())).into()
            }
            other => other.into(),
        };
        sent(|| self.socket.send_to(data, &address))
    }

    /// One datagram, as much of it as there is room for.
    pub fn receive(&self, room: &mut [u8]) -> io::Result<Step<Received>> {
        let mut slices = [IoSliceMut::new(room)];
        loop {
            let fd = self.socket.as_raw_fd();
            match recvmsg::<SockaddrStorage>(fd, &mut slices, None, MsgFlags::empty()) {
                Ok(message) => {
                    return Ok(Step::Ready(Received {
                        length: message.bytes,
                        is_cut: message.flags.contains(MsgFlags::MSG_TRUNC),
                        from: message.address.as_ref().and_then(ip_address),
                    }));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(Step::Wait(Interest::Read)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?.as_socket();
        address.map(canonical).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    pub fn join(&self, group: IpAddr, interface: &Interface) -> io::Result<()> {
        match group {
            IpAddr::V4(group) => self.socket.join_multicast_v4_n(&group, &of_ipv4(interface)?),
            IpAddr::V6(group) => self.socket.join_multicast_v6(&group, index(interface)?),
        }
    }

    pub fn leave(&self, group: IpAddr, interface: &Interface) -> io::Result<()> {
        match group {
            IpAddr::V4(group) => self.socket.leave_multicast_v4_n(&group, &of_ipv4(interface)?),
            IpAddr::V6(group) => self.socket.leave_multicast_v6(&group, index(interface)?),
        }
    }

    pub fn set(&mut self, setting: &DatagramSetting) -> io::Result<()> {
        match *setting {
            DatagramSetting::Broadcast(on) => self.socket.set_broadcast(on),
            DatagramSetting::MulticastInterface(ref interface) => self.set_multicast_interface(interface),
            DatagramSetting::MulticastLoop(on) => {
                self.each(|it| it.set_multicast_loop_v4(on), |it| it.set_multicast_loop_v6(on))
            }
            DatagramSetting::MulticastTtl(hops) => {
                self.each(|it| it.set_multicast_ttl_v4(hops), |it| it.set_multicast_hops_v6(hops))
            }
            DatagramSetting::RecvBuffer(bytes) => self.socket.set_recv_buffer_size(bytes),
            DatagramSetting::SendBuffer(bytes) => self.socket.set_send_buffer_size(bytes),
            DatagramSetting::Ttl(hops) => {
                self.each(|it| it.set_ttl_v4(hops), |it| it.set_unicast_hops_v6(hops))
            }
        }
    }

    fn set_multicast_interface(&mut self, interface: &Interface) -> io::Result<()> {
        let ipv4 = || self.socket.set_multicast_if_v4(&address(interface)?);
        if let Interface::Address(_) = interface {
            // It concerns IPv4 only.
            ipv4()?;
        } else {
            self.each(|_| ipv4(), |it| it.set_multicast_if_v6(index(interface)?))?;
        }
        self.multicast_interface = Some(interface.clone());
        Ok(())
    }

    pub fn broadcast(&self) -> io::Result<bool> {
        self.socket.broadcast()
    }

    /// As it was set. `None`: the system chooses.
    pub fn multicast_interface(&self) -> Option<&Interface> {
        self.multicast_interface.as_ref()
    }

    pub fn multicast_loop(&self) -> io::Result<bool> {
        if self.is_ipv6 { self.socket.multicast_loop_v6() } else { self.socket.multicast_loop_v4() }
    }

    pub fn multicast_ttl(&self) -> io::Result<u32> {
        if self.is_ipv6 { self.socket.multicast_hops_v6() } else { self.socket.multicast_ttl_v4() }
    }

    pub fn ttl(&self) -> io::Result<u32> {
        if self.is_ipv6 { self.socket.unicast_hops_v6() } else { self.socket.ttl_v4() }
    }

    pub fn recv_buffer(&self) -> io::Result<usize> {
        self.socket.recv_buffer_size()
    }

    pub fn send_buffer(&self) -> io::Result<usize> {
        self.socket.send_buffer_size()
    }

    /// Sets what both families have. A socket for both keeps one for each.
    fn each(
        &self,
        ipv4: impl Fn(&socket2::Socket) -> io::Result<()>,
        ipv6: impl Fn(&socket2::Socket) -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.is_ipv6 {
            return ipv4(&self.socket);
        }
        // Not every system lets a socket of IPv6 have IPv4's.
        let _ = ipv4(&self.socket);
        ipv6(&self.socket)
    }

    /// The descriptor, for loops of others.
    pub fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Datagram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a datagram was longer than the network takes.
pub fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EMSGSIZE as i32)
}

/// Whether it is what a broadcast without permission gets, and not what a firewall says (ip(7)).
pub fn is_forbidden(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EACCES as i32)
}

/// Whether it is for want of an interface.
pub fn is_no_device(error: &io::Error) -> bool {
    [Errno::ENODEV, Errno::ENXIO].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// Without IPv4 mapped into IPv6 (RFC 4291, section 2.5.5.2).
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

fn ip_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(ip) = address.as_sockaddr_in() {
        return Some(SocketAddr::from((ip.ip(), ip.port())));
    }
    address.as_sockaddr_in6().map(|ip| canonical(std::net::SocketAddrV6::from(*ip).into()))
}

fn of_ipv4(interface: &Interface) -> io::Result<InterfaceIndexOrAddress> {
    Ok(match interface {
        Interface::Address(address) => InterfaceIndexOrAddress::Address(*address),
        other => InterfaceIndexOrAddress::Index(index(other)?),
    })
}

fn sent(mut send: impl FnMut() -> io::Result<usize>) -> io::Result<Step<()>> {
    loop {
        match send() {
            // A datagram goes whole or not at all.
            Ok(_) => return Ok(Step::Ready(())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Step::Wait(Interest::Write));
            }
            Err(error) => return Err(error),
        }
    }
}
