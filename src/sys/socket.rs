//! A non-blocking stream socket that never raises SIGPIPE and is closed on exec.

use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use socket2::Domain;
use socket2::SockAddr;
use socket2::SockRef;
use socket2::TcpKeepalive;
use socket2::Type;

use crate::address::Address;
use crate::options::Keepalive;
use crate::step::Interest;
use crate::step::Step;

pub struct Socket {
    inner: socket2::Socket,
    is_tcp: bool,
}

/// How an attempt to connect stands.
#[derive(Debug)]
pub enum Attempt {
    Connected,
    Pending,
    Failed(io::Error),
}

/// What one write hands to the system at most (IOV_MAX on Linux).
pub const MAX_SLICES: usize = 1024;

#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: i32 = nix::sys::socket::MsgFlags::MSG_NOSIGNAL.bits();

/// Apple's systems have no such flag; there socket2 sets SO_NOSIGPIPE on the socket.
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: i32 = 0;

impl Socket {
    /// Begins to connect; `attempt` tells how it goes.
    pub fn connect(address: &SocketAddr, bind: Option<&SocketAddr>) -> io::Result<Self> {
        let socket = Self::unconnected(Domain::for_address(*address))?;
        if let Some(bind) = bind {
            socket.inner.bind(&(*bind).into())?;
        }
        match socket.inner.connect(&(*address).into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
            _ => Ok(socket),
        }
    }

    /// Connects to a unix socket, which happens at once or not at all: `WouldBlock` means that the
    /// listener's backlog is full (connect(2), EAGAIN), for which no descriptor can be waited.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        let address = unix_address(path)?;
        let socket = Self::unconnected(Domain::UNIX)?;
        socket.inner.connect(&address)?;
        Ok(socket)
    }

    /// What a listener's accept has brought: close-on-exec is set already.
    pub fn accepted(socket: socket2::Socket, is_tcp: bool) -> io::Result<Self> {
        Self::of(socket, is_tcp)
    }

    pub fn is_tcp(&self) -> bool {
        self.is_tcp
    }

    fn unconnected(domain: Domain) -> io::Result<Self> {
        // socket2 sets close-on-exec, and on Apple's systems SO_NOSIGPIPE.
        let socket = socket2::Socket::new(domain, Type::STREAM, None)?;
        Self::of(socket, domain != Domain::UNIX)
    }

    fn of(inner: socket2::Socket, is_tcp: bool) -> io::Result<Self> {
        let inner = above_standard(inner)?;
        inner.set_nonblocking(true)?;
        Ok(Self { inner, is_tcp })
    }

    /// The error first, then the peer's address: without an error and without a peer it is still pending.
    pub fn attempt(&self) -> Attempt {
        match self.inner.take_error() {
            Ok(Some(error)) | Err(error) => return Attempt::Failed(error),
            Ok(None) => {}
        }
        match self.inner.peer_addr() {
            Ok(_) => Attempt::Connected,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Attempt::Pending,
            Err(error) => Attempt::Failed(error),
        }
    }

    /// One read. `Ready(0)` is the end of the stream.
    pub fn recv(&self, room: &mut [u8]) -> io::Result<Step<usize>> {
        would_block(retry(|| (&self.inner).read(room)), Interest::Read)
    }

    /// One write of at most `MAX_SLICES` slices. MSG_NOSIGNAL, because SIGPIPE would end the host interpreter.
    pub fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<Step<usize>> {
        let slices = &slices[..slices.len().min(MAX_SLICES)];
        let sent = match slices {
            [one] => retry(|| self.inner.send_with_flags(one, NO_SIGNAL)),
            several => retry(|| self.inner.send_vectored_with_flags(several, NO_SIGNAL)),
        };
        would_block(sent, Interest::Write)
    }

    /// Whether bytes have arrived that nobody has read.
    pub fn has_unread(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        retry(|| self.inner.peek(&mut byte)).is_ok_and(|count| count > 0)
    }

    pub fn shutdown(&self, direction: Shutdown) -> io::Result<()> {
        self.inner.shutdown(direction)
    }

    /// The descriptor, for loops of others.
    pub fn raw(&self) -> RawFd {
        self.inner.as_raw_fd()
    }

    pub fn local_address(&self) -> io::Result<Address> {
        self.inner.local_addr().map(address)
    }

    pub fn nodelay(&self) -> io::Result<bool> {
        self.inner.tcp_nodelay()
    }

    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.inner.set_tcp_nodelay(on)
    }

    /// The idle time before the first probe; `None` while probes are off.
    pub fn keepalive(&self) -> io::Result<Option<Duration>> {
        if self.inner.keepalive()? { self.inner.tcp_keepalive_time().map(Some) } else { Ok(None) }
    }

    pub fn set_keepalive(&self, keepalive: Keepalive) -> io::Result<()> {
        match keepalive {
            Keepalive::Off => self.inner.set_keepalive(false),
            Keepalive::On => self.inner.set_keepalive(true),
            Keepalive::After(idle) => self.inner.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle)),
        }
    }

    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(&self.inner).linger()
    }

    pub fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
        self.inner.set_linger(time)
    }

    pub fn recv_buffer(&self) -> io::Result<usize> {
        self.inner.recv_buffer_size()
    }

    pub fn set_recv_buffer(&self, bytes: usize) -> io::Result<()> {
        self.inner.set_recv_buffer_size(bytes)
    }

    pub fn send_buffer(&self) -> io::Result<usize> {
        self.inner.send_buffer_size()
    }

    pub fn set_send_buffer(&self, bytes: usize) -> io::Result<()> {
        self.inner.set_send_buffer_size(bytes)
    }

    /// How long sent data may stay unacknowledged (TCP_USER_TIMEOUT, RFC 5482); Linux only.
    pub fn user_timeout(&self) -> io::Result<Option<Duration>> {
        #[cfg(target_os = "linux")]
        return self.inner.tcp_user_timeout();
        #[cfg(not(target_os = "linux"))]
        return Err(io::ErrorKind::Unsupported.into());
    }

    pub fn set_user_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return self.inner.set_tcp_user_timeout(time);
        #[cfg(not(target_os = "linux"))]
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("no user timeout of {time:?} here")));
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// Whether this error says that the process or the system has run out of something that comes back: descriptors, or
/// memory for sockets.
pub fn is_shortage(errno: i32) -> bool {
    matches!(Errno::from_raw(errno), Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
}

/// In a process that was started without standard streams a socket would become one of them, and what the program
/// prints would go to the peer.
pub fn above_standard(socket: socket2::Socket) -> io::Result<socket2::Socket> {
    if socket.as_raw_fd() > 2 {
        return Ok(socket);
    }
    // The standard library duplicates to 3 or above.
    socket.as_fd().try_clone_to_owned().map(socket2::Socket::from)
}

pub fn unix_address(path: &Path) -> io::Result<SockAddr> {
    SockAddr::unix(path)
        .map_err(|_| io::Error::other("the path is too long for a unix socket (107 bytes on Linux)"))
}

/// An IPv4 client of a listener for both families is called by its IPv4 address (RFC 4291, section 2.5.5.2).
pub fn address(found: SockAddr) -> Address {
    match found.as_socket() {
        Some(ip) => Address::Ip(SocketAddr::new(ip.ip().to_canonical(), ip.port())),
        None => Address::Unix(found.as_pathname().map(Path::to_path_buf)),
    }
}

/// A call on a non-blocking descriptor has nothing to wait for: a signal is no reason to stop.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn would_block(result: io::Result<usize>, interest: Interest) -> io::Result<Step<usize>> {
    match result {
        Ok(count) => Ok(Step::Ready(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Wait(interest)),
        Err(error) => Err(error),
    }
}
