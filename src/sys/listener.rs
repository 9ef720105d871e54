//! A non-blocking socket that accepts connections.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use nix::errno::Errno;
use socket2::Domain;
use socket2::SockAddr;
use socket2::Type;

use crate::address::Address;
use crate::options::ListenOptions;
use crate::step::Interest;
use crate::step::Step;
use crate::sys::socket::Socket;
use crate::sys::socket::above_standard;
use crate::sys::socket::address;
use crate::sys::socket::unix_address;

pub struct Listener {
    socket: socket2::Socket,
    /// What to unlink in the end.
    path: Option<SocketFile>,
}

/// A unix socket's file: the path names it as long as it is the same one.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listener {
    pub fn bind(address: &SocketAddr, options: &ListenOptions) -> io::Result<Self> {
        let socket = new(Domain::for_address(*address), options)?;
        if address.is_ipv6() {
            socket.set_only_v6(options.ipv6_only)?;
        }
        listen(socket, &(*address).into(), options)
    }

    /// Every address, of both families where the system has both.
    pub fn bind_all(port: u16, options: &ListenOptions) -> io::Result<Self> {
        let ipv6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        match Self::bind(&ipv6, options) {
            Err(error) if is_not_here(&error) && !options.ipv6_only => {
                Self::bind(&(Ipv4Addr::UNSPECIFIED, port).into(), options)
            }
            other => other,
        }
    }

    /// A path that nobody answers on is replaced.
    pub fn bind_unix(path: &Path, options: &ListenOptions) -> io::Result<Self> {
        let address = unix_address(path)?;
        let bound = listen(new(Domain::UNIX, options)?, &address, options);
        let mut listener = match bound {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let Some(left) = SocketFile::deserted(path) else { return Err(error) };
                left.remove();
                listen(new(Domain::UNIX, options)?, &address, options)?
            }
            other => other?,
        };
        listener.path = SocketFile::at(path);
        Ok(listener)
    }

    /// The next connection. A client that left before it was accepted is passed over.
    pub fn accept(&self) -> io::Result<Step<(Socket, Address)>> {
        loop {
            match self.socket.accept() {
                Ok((socket, peer)) => {
                    let socket = Socket::accepted(socket, !peer.is_unix())?;
                    return Ok(Step::Ready((socket, address(peer))));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Step::Wait(Interest::Read));
                }
                Err(error) if has_left(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub fn local_address(&self) -> io::Result<Address> {
        self.socket.local_addr().map(address)
    }

    /// The descriptor, for loops of others.
    pub fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(own) = self.path.take() {
            own.remove();
        }
    }
}

impl SocketFile {
    fn at(path: &Path) -> Option<Self> {
        let file = fs::symlink_metadata(path).ok().filter(|file| file.file_type().is_socket())?;
        Some(Self { path: path.into(), device: file.dev(), inode: file.ino() })
    }

    /// A socket that nobody has any more. It is asked with a datagram, which a listener refuses for its type
    /// (EPROTOTYPE): it is not bothered with a connection.
    fn deserted(path: &Path) -> Option<Self> {
        let file = Self::at(path)?;
        let asked = || socket2::Socket::new(Domain::UNIX, Type::DGRAM, None)?.connect(&unix_address(path)?);
        asked().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused).then_some(file)
    }

    /// Unless somebody has put another file there in the meantime, or removed it.
    fn remove(self) {
        if Self::at(&self.path).is_some_and(|it| (it.device, it.inode) == (self.device, self.inode)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn new(domain: Domain, options: &ListenOptions) -> io::Result<socket2::Socket> {
    let socket = above_standard(socket2::Socket::new(domain, Type::STREAM, None)?)?;
    socket.set_nonblocking(true)?;
    if domain != Domain::UNIX {
        // On Unix this lets a port be taken that only old connections linger on; a listener there still refuses.
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
    }
    Ok(socket)
}

fn listen(socket: socket2::Socket, address: &SockAddr, options: &ListenOptions) -> io::Result<Listener> {
    socket.bind(address)?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(Listener { socket, path: None })
}

/// Whether the machine lacks the address, or its family.
pub fn is_not_here(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// Errors of the connection, not of the listener (accept(2), "Error handling").
fn has_left(error: &io::Error) -> bool {
    let passing = [
        Errno::EINTR,
        Errno::ECONNABORTED,
        Errno::ENETDOWN,
        Errno::EPROTO,
        Errno::ENOPROTOOPT,
        Errno::EHOSTDOWN,
        Errno::EHOSTUNREACH,
        Errno::EOPNOTSUPP,
        Errno::ENETUNREACH,
    ];
    error.raw_os_error().is_some_and(|errno| passing.contains(&Errno::from_raw(errno)))
}
