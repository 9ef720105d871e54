//! The allow-list: what may be reached, what may be listened on, and whether files may be opened.
//!
//! Every layer has to agree. Layers are added and never taken away.

pub mod entry;
mod paths;
mod public;

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::address::Host;
use crate::error::Error;
use crate::error::Kind;
use crate::error::Stage;
use crate::policy::entry::Entry;
use crate::policy::entry::Wanted;

/// The layers of a state. Whoever holds it sees those that are added later, too.
#[derive(Clone, Debug, Default)]
pub struct Policy(Arc<Mutex<Vec<Layer>>>);

/// What one call, or the environment, asks for. What is absent adds nothing; what is empty forbids all.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// What may be reached.
    pub net: Option<Vec<Entry>>,
    /// What may be listened on.
    pub listen: Option<Vec<Entry>>,
    /// Addresses that are neither reached nor listened on, whatever the others say.
    pub deny: Option<Vec<Entry>>,
    /// No file is opened by its path.
    pub no_files: bool,
}

/// What an address is wanted for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    Reach,
    Listen,
}

impl Policy {
    /// Forbids all.
    pub fn closed() -> Self {
        let none = || Some(Vec::new());
        let layer = Layer { net: none(), listen: none(), deny: none(), no_files: true };
        Self(Arc::new(Mutex::new(vec![layer])))
    }

    pub fn add(&self, layer: Layer) {
        self.layers().push(layer);
    }

    fn layers(&self) -> MutexGuard<'_, Vec<Layer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a host may be used, before it is looked up: of a name, what it resolves to is still to be checked.
    pub fn check(&self, purpose: Purpose, host: &Host, wanted: Wanted) -> Result<(), Error> {
        match host {
            Host::Ip(ip) => self.check_ip(purpose, *ip, wanted),
            Host::Name(name) => match zoned(name) {
                Some(ip) => self.check_ip(purpose, ip, wanted),
                None => self.check_name(purpose, name, wanted),
            },
            Host::Unix(path) => self.path(purpose, path).map(drop),
        }
    }

    /// The same for every address of this machine.
    pub fn check_everywhere(&self, wanted: Wanted) -> Result<(), Error> {
        self.check_ip(Purpose::Listen, Ipv4Addr::UNSPECIFIED.into(), wanted)?;
        self.check_ip(Purpose::Listen, Ipv6Addr::UNSPECIFIED.into(), wanted)
    }

    fn check_name(&self, purpose: Purpose, name: &str, wanted: Wanted) -> Result<(), Error> {
        if self.layers().iter().any(|layer| layer.deny.as_ref().is_some_and(Vec::is_empty)) {
            return Err(denied("all is denied (tcp.allow, deny is empty)").with_stage(Stage::Resolve));
        }
        self.allows(purpose, |entry| entry.covers_name(name, wanted))
            .map_err(|error| error.with_stage(Stage::Resolve))
    }

    fn check_ip(&self, purpose: Purpose, ip: IpAddr, wanted: Wanted) -> Result<(), Error> {
        self.allows(purpose, |entry| entry.covers_ip(ip, wanted))?;
        if self.denies(purpose, ip, wanted) { Err(denied_address(ip)) } else { Ok(()) }
    }

    fn denies(&self, purpose: Purpose, ip: IpAddr, wanted: Wanted) -> bool {
        // Who connects to no address in particular reaches this machine.
        let loopback = match ip.to_canonical() {
            IpAddr::V4(it) if it.is_unspecified() => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            IpAddr::V6(it) if it.is_unspecified() => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            _ => None,
        };
        let meant = loopback.filter(|_| purpose == Purpose::Reach);
        self.layers().iter().filter_map(|layer| layer.deny.as_ref()).any(|list| {
            let denies = |entry: &Entry, ip| {
                // Who has no port in mind is not stopped by what is about one.
                !(wanted == Wanted::Any && entry.has_port()) && entry.covers_ip(ip, wanted)
            };
            list.is_empty() || list.iter().any(|it| denies(it, ip) || meant.is_some_and(|ip| denies(it, ip)))
        })
    }

    /// Keeps the addresses of a host that are not denied. An error if there were some and none is left, or if the host
    /// has been forbidden since it was checked.
    pub fn filter(
        &self,
        purpose: Purpose,
        host: &str,
        mut addresses: Vec<SocketAddr>,
        wanted: Wanted,
    ) -> Result<Vec<SocketAddr>, Error> {
        if let Ok(host) = Host::parse(host) {
            self.check(purpose, &host, wanted)?;
        }
        let first = addresses.first().map(SocketAddr::ip);
        addresses.retain(|it| !self.denies(purpose, it.ip(), wanted));
        match first {
            Some(ip) if addresses.is_empty() => Err(denied_address(ip).with_stage(Stage::Resolve)),
            _ => Ok(addresses),
        }
    }

    /// The path of a unix socket that is checked, and that is to be used: without links, if there are any rules.
    pub fn path(&self, purpose: Purpose, path: &Path) -> Result<PathBuf, Error> {
        let is_ruled =
            self.layers().iter().any(|layer| layer.list(purpose).is_some() || layer.deny.is_some());
        if !is_ruled {
            return Ok(path.into());
        }
        if paths::climbs(path) {
            return Err(denied("a path with '..' is not allowed"));
        }
        let Ok(resolved) = paths::resolved(path) else {
            return Err(denied("the path cannot be resolved, so it is not allowed"));
        };
        self.allows(purpose, |entry| entry.covers_path(&resolved))?;
        let is_denied =
            |list: &Vec<Entry>| list.is_empty() || list.iter().any(|it| it.covers_path(&resolved));
        if self.layers().iter().filter_map(|layer| layer.deny.as_ref()).any(is_denied) {
            return Err(denied(format!("{} is denied (tcp.allow, deny)", resolved.display())));
        }
        Ok(resolved)
    }

    /// Whether files may be opened by their paths.
    pub fn check_files(&self) -> Result<(), Error> {
        match self.allows_files() {
            true => Ok(()),
            // Not the path: it may be a key that was meant to be text.
            false => Err(denied("no file may be opened by its path (tcp.allow, files = false)")),
        }
    }

    pub fn allows_files(&self) -> bool {
        !self.layers().iter().any(|layer| layer.no_files)
    }

    fn allows(&self, purpose: Purpose, covers: impl Fn(&Entry) -> bool) -> Result<(), Error> {
        let layers = self.layers();
        let mut lists = layers.iter().filter_map(|layer| layer.list(purpose));
        match lists.all(|list| list.iter().any(&covers)) {
            true => Ok(()),
            false if purpose == Purpose::Listen => Err(denied("it is not on the list of tcp.allow, listen")),
            false => Err(denied("it is not on the list of tcp.allow, net")),
        }
    }
}

impl Layer {
    fn list(&self, purpose: Purpose) -> Option<&Vec<Entry>> {
        match purpose {
            Purpose::Reach => self.net.as_ref(),
            Purpose::Listen => self.listen.as_ref(),
        }
    }
}

/// The address of a literal with a zone (RFC 4007, section 11).
fn zoned(name: &str) -> Option<IpAddr> {
    let (ip, _) = name.split_once('%')?;
    ip.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn denied(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::Denied, message)
}

fn denied_address(ip: IpAddr) -> Error {
    denied(format!("the address {ip} is denied (tcp.allow, deny; an empty list denies all)"))
}
