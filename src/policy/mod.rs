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
    pub net: Option<List>,
    /// What may be listened on.
    pub listen: Option<List>,
    /// Addresses that are neither reached nor listened on, whatever the others say.
    pub deny: Option<List>,
    /// No file is opened by its path.
    pub no_files: bool,
}

#[derive(Clone, Debug)]
pub struct List {
    /// As messages call it: `'net' of tcp.allow`, or the variable.
    pub name: String,
    pub entries: Vec<Entry>,
}

/// What an address is wanted for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    Reach,
    /// `ipv6_only`: on `::` IPv4 is left out.
    Listen {
        ipv6_only: bool,
    },
}

impl Policy {
    /// Forbids all.
    pub fn closed() -> Self {
        let none = || Some(List { name: "the allow-list".into(), entries: Vec::new() });
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

    fn check_name(&self, purpose: Purpose, name: &str, wanted: Wanted) -> Result<(), Error> {
        let checked = self.denial(|_| None).and_then(|()| {
            let hint = |entry: &Entry| {
                entry.is_for_addresses(wanted).then_some(" (a name passes only by an entry for names)")
            };
            self.allows(purpose, |entry| entry.covers_name(name, wanted), "it", hint)
        });
        checked.map_err(|error| error.with_stage(Stage::Resolve))
    }

    fn check_ip(&self, purpose: Purpose, ip: IpAddr, wanted: Wanted) -> Result<(), Error> {
        let hint = |entry: &Entry| {
            entry.is_for_names(wanted).then_some(" (an address passes only by an entry for addresses)")
        };
        self.allows(purpose, |entry| entry.covers_ip(ip, wanted), "it", hint)?;
        if let Some(ip4) = ipv4_beside(purpose, ip) {
            let what = format!("{ip4}, which :: takes, too, without ipv6_only");
            self.allows(purpose, |entry| entry.covers_ip(ip4, wanted), &what, hint)?;
        }
        self.check_denied(purpose, ip, wanted)
    }

    /// Whether an address is none of those that are denied.
    pub fn check_denied(&self, purpose: Purpose, ip: IpAddr, wanted: Wanted) -> Result<(), Error> {
        let ips = [Some(ip.to_canonical()), ipv4_beside(purpose, ip)];
        self.denial(|entry| {
            // Who has no port in mind is not stopped by what is about one.
            let concerns = wanted != Wanted::Any || !entry.has_port();
            ips.into_iter().flatten().filter(|_| concerns).find_map(|ip| match purpose {
                _ if entry.covers_ip(ip, wanted) => Some(format!("{ip} is denied by")),
                Purpose::Reach => loopback(ip)
                    .filter(|it| entry.covers_ip(*it, wanted))
                    .map(|_| format!("{ip} is denied by")),
                Purpose::Listen { .. } => (ip.is_unspecified() && entry.covers_some_of(ip, wanted))
                    .then(|| format!("{ip} takes addresses that are denied by")),
            })
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
        let mut first = None;
        addresses.retain(|it| match self.check_denied(purpose, it.ip(), wanted) {
            Ok(()) => true,
            Err(error) => {
                first.get_or_insert(error);
                false
            }
        });
        match first {
            Some(error) if addresses.is_empty() => Err(error.with_stage(Stage::Resolve)),
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
        let shown = resolved.display();
        self.allows(purpose, |entry| entry.covers_path(&resolved), &shown.to_string(), |_| None)?;
        self.denial(|entry| entry.covers_path(&resolved).then(|| format!("{shown} is denied by")))?;
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

    /// Whether each list covers `what`. `hint` is what an entry gives to think of.
    fn allows(
        &self,
        purpose: Purpose,
        covers: impl Fn(&Entry) -> bool,
        what: &str,
        hint: impl Fn(&Entry) -> Option<&'static str>,
    ) -> Result<(), Error> {
        let layers = self.layers();
        let mut lists = layers.iter().filter_map(|layer| layer.list(purpose));
        match lists.find(|list| !list.entries.iter().any(&covers)) {
            None => Ok(()),
            Some(list) if list.entries.is_empty() => Err(list.forbids_all()),
            Some(list) => {
                let hint = list.entries.iter().find_map(hint).unwrap_or_default();
                Err(denied(format!("no entry of {} covers {what}{hint}", list.name)))
            }
        }
    }

    /// Whether nothing is denied. `says` is how an entry's denial begins.
    fn denial(&self, says: impl Fn(&Entry) -> Option<String>) -> Result<(), Error> {
        for list in self.layers().iter().filter_map(|layer| layer.deny.as_ref()) {
            if list.entries.is_empty() {
                return Err(list.forbids_all());
            }
            if let Some((entry, text)) = list.entries.iter().find_map(|it| says(it).map(|text| (it, text))) {
                return Err(denied(format!("{text} the entry '{}' of {}", entry.text, list.name)));
            }
        }
        Ok(())
    }
}

impl Layer {
    fn list(&self, purpose: Purpose) -> Option<&List> {
        match purpose {
            Purpose::Reach => self.net.as_ref(),
            Purpose::Listen { .. } => self.listen.as_ref(),
        }
    }
}

impl List {
    fn forbids_all(&self) -> Error {
        denied(format!("{} is empty, which forbids all", self.name))
    }
}

/// Who listens on `::` takes IPv4, too (RFC 3493, section 5.3).
fn ipv4_beside(purpose: Purpose, ip: IpAddr) -> Option<IpAddr> {
    let is_both = purpose == Purpose::Listen { ipv6_only: false } && ip == Ipv6Addr::UNSPECIFIED;
    is_both.then_some(Ipv4Addr::UNSPECIFIED.into())
}

/// Who connects to no address in particular reaches this machine.
fn loopback(ip: IpAddr) -> Option<IpAddr> {
    let loopback = match ip {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    ip.is_unspecified().then_some(loopback)
}

/// The address of a literal with a zone (RFC 4007, section 11).
fn zoned(name: &str) -> Option<IpAddr> {
    let (ip, _) = name.split_once('%')?;
    ip.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn denied(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::Denied, message)
}
