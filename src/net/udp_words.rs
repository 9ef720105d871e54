//! What is said of UDP's failures, where the system's own words lead nowhere.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;

use crate::error::Error;
use crate::error::Kind;
use crate::options::DatagramSetting;
use crate::options::Interface;
use crate::sys::datagram::Datagram;
use crate::sys::datagram::is_forbidden;
use crate::sys::datagram::is_no_device;

pub fn closed() -> Error {
    Error::new(Kind::Closed, "the socket is closed")
}

pub fn ipv4_only() -> Error {
    Error::new(Kind::Unreachable, "the socket is of IPv4 only")
}

/// A datagram may come from there; the system gives no socket this port (RFC 6335, section 6).
pub fn check_port(to: SocketAddr) -> Result<(), Error> {
    match to.port() {
        0 => Err(Error::new(Kind::Refused, "nobody can listen on port 0")),
        _ => Ok(()),
    }
}

pub fn of_connect(error: &io::Error, to: SocketAddr) -> Error {
    let failure = Error::from_connect(error);
    match way_out(error, to) {
        Some(hint) => failure.hinting(format!("{hint} on a socket without a peer")),
        None => failure,
    }
}

pub fn of_send(error: &io::Error, to: SocketAddr, socket: &Datagram) -> Error {
    let is_set = match to.ip().is_multicast() {
        true => socket.multicast_interface().is_some(),
        false => socket.broadcast().unwrap_or_default(),
    };
    let failure = Error::from_system(error);
    match way_out(error, to) {
        Some(hint) if !is_set => failure.hinting(hint),
        _ => failure,
    }
}

/// The option that may help where nothing can be sent.
fn way_out(error: &io::Error, to: SocketAddr) -> Option<&'static str> {
    use io::ErrorKind;
    match error.kind() {
        _ if to.is_ipv4() && is_forbidden(error) => {
            Some("a broadcast address needs set_option(\"broadcast\", true)")
        }
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable
            if to.ip().is_multicast() =>
        {
            Some("a group without a route needs set_option(\"multicast_interface\", …)")
        }
        _ => None,
    }
}

pub fn of_join(error: &io::Error, group: IpAddr, interface: &Interface) -> Error {
    if error.kind() == io::ErrorKind::AddrInUse {
        told(error, format!("already a member of {group}"))
    } else if is_no_device(error) && *interface == Interface::Index(0) {
        told(error, "no route leads to the group: name an interface".into())
    } else {
        of_interface(error, interface)
    }
}

pub fn of_leave(error: &io::Error, group: IpAddr, interface: &Interface) -> Error {
    let is_anywhere = *interface == Interface::Index(0);
    if is_anywhere && is_no_device(error) || error.kind() == io::ErrorKind::AddrNotAvailable {
        let there = if is_anywhere { "" } else { " on that interface" };
        told(error, format!("not a member of {group}{there}"))
    } else {
        of_interface(error, interface)
    }
}

pub fn of_setting(error: &io::Error, setting: &DatagramSetting) -> Error {
    match setting {
        DatagramSetting::MulticastInterface(interface) => of_interface(error, interface),
        _ => Error::from_system(error),
    }
}

fn of_interface(error: &io::Error, interface: &Interface) -> Error {
    let has_no_address = error.kind() == io::ErrorKind::AddrNotAvailable;
    let message = match interface {
        Interface::Address(_) if has_no_address || is_no_device(error) => {
            format!("no interface has the address {interface}")
        }
        _ if has_no_address => format!("interface {interface} has no address of IPv4"),
        _ if is_no_device(error) => format!("there is no interface {interface}"),
        _ => return Error::from_system(error),
    };
    told(error, message)
}

fn told(error: &io::Error, message: String) -> Error {
    Error::of_system(Kind::System, error).saying(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn an_option_is_named_only_where_it_may_help() {
        let message = |errno, to: &str| {
            let error = of_connect(&io::Error::from_raw_os_error(errno), to.parse().unwrap());
            error.message().to_owned()
        };
        let (no_permission, forbidden, not_here, no_route) = (1, 13, 99, 101);
        assert!(message(forbidden, "10.255.255.255:9").contains("broadcast"));
        assert_eq!(message(no_permission, "10.255.255.255:9"), "operation not permitted");
        assert!(message(no_route, "239.1.2.3:9").contains("multicast_interface"));
        assert!(message(not_here, "[ff02::1]:9").contains("multicast_interface"));
        assert_eq!(message(no_route, "10.1.2.3:9"), "network is unreachable");
    }
}
