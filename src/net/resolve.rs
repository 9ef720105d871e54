//! A host on its way to addresses that may be used.
//!
//! ```text
//! Start ── name ──> Resolving ──> addresses
//!   └──── literal ──> an address
//! ```

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;

use crate::address::Host;
use crate::address::peer_name;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::error::Stage;
use crate::net::reactor::Reactor;
use crate::net::reactor::Registration;
use crate::options::Family;
use crate::policy::Policy;
use crate::policy::Purpose;
use crate::policy::entry::Wanted;
use crate::sys::resolver::Lookup;

pub struct Resolve {
    /// The host as the script wrote it.
    name: String,
    /// `None`: it is resolved for its own sake.
    port: Option<u16>,
    purpose: Purpose,
    family: Family,
    policy: Policy,
    deadline: Deadline,
    state: State,
    /// Set once the loop watches the look-up.
    registration: Option<Registration>,
}

enum State {
    Start(Host),
    Resolving(Lookup),
    Resolved(Vec<SocketAddr>),
    Over,
}

impl Resolve {
    /// For connecting or sending to it. A unix socket's path resolves to nothing.
    pub fn new(name: &str, host: Host, port: Option<u16>, policy: Policy) -> Self {
        Self {
            name: name.into(),
            port,
            purpose: Purpose::Reach,
            family: Family::Any,
            policy,
            deadline: Deadline::NEVER,
            state: State::Start(host),
            registration: None,
        }
    }

    /// For listening on it.
    pub fn for_listening(mut self, ipv6_only: bool) -> Self {
        self.purpose = Purpose::Listen { ipv6_only };
        self
    }

    pub fn within(mut self, timeout: Option<Duration>) -> Self {
        self.deadline = Deadline::after(Instant::now(), timeout);
        self
    }

    pub fn of_family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// At least one address, in the system's order. `None`: the look-up is under way, and `descriptor` says when it is
    /// done.
    pub fn step(&mut self) -> Result<Option<Vec<SocketAddr>>, Error> {
        let addresses = self.advance()?;
        if let Some(addresses) = &addresses {
            self.state = State::Resolved(addresses.clone());
        }
        Ok(addresses)
    }

    fn advance(&mut self) -> Result<Option<Vec<SocketAddr>>, Error> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Start(host) => {
                self.policy.check(self.purpose, &host, self.wanted())?;
                match host {
                    Host::Ip(ip) => {
                        self.usable(vec![SocketAddr::new(ip, self.port.unwrap_or_default())]).map(Some)
                    }
                    Host::Name(name) => {
                        let lookup = Lookup::start(name, self.port.unwrap_or_default());
                        let lookup =
                            lookup.map_err(|error| Error::from_io(&error).with_stage(Stage::Resolve))?;
                        self.state = State::Resolving(lookup);
                        Ok(None)
                    }
                    Host::Unix(_) => Err(no_address(Family::Any)),
                }
            }
            State::Resolving(lookup) => match lookup.poll() {
                Some(answer) => {
                    self.registration = None;
                    self.usable(answer.map_err(|error| unresolved(&error))?).map(Some)
                }
                None => {
                    self.state = State::Resolving(lookup);
                    Ok(None)
                }
            },
            State::Resolved(addresses) => Ok(Some(addresses)),
            State::Over => Err(Error::closed_here()),
        }
    }

    fn usable(&self, mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Error> {
        addresses.retain(|address| self.family.admits(address));
        if addresses.is_empty() {
            return Err(no_address(self.family));
        }
        self.policy.filter(self.purpose, &self.name, addresses, self.wanted())
    }

    fn wanted(&self) -> Wanted {
        self.port.map_or(Wanted::Any, Wanted::Port)
    }

    /// Gives the look-up up: the error of its time being over.
    pub fn expire(&mut self) -> Error {
        self.abandon();
        Error::new(Kind::Timeout, "timed out while resolving the name").with_stage(Stage::Resolve)
    }

    /// Gives the look-up up.
    pub fn abandon(&mut self) {
        self.state = State::Over;
        self.registration = None;
    }

    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Readable once the look-up is done.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Resolving(lookup) => Some(lookup.as_fd()),
            _ => None,
        }
    }

    /// Has the loop watch the look-up; the slot is where it is told. `None`: there is nothing to wait for.
    pub fn watch(&mut self, reactor: &Rc<Reactor>) -> Option<io::Result<usize>> {
        let State::Resolving(lookup) = &self.state else { return None };
        if self.registration.is_none() {
            let registration = Registration::of_any(reactor);
            if let Err(error) = registration.add(lookup.as_fd()) {
                return Some(Err(error));
            }
            self.registration = Some(registration);
        }
        self.registration.as_ref().map(|registration| Ok(registration.slot()))
    }

    /// How error messages name the place.
    pub fn peer(&self) -> String {
        peer_name(&self.name, self.port)
    }
}

pub fn no_address(family: Family) -> Error {
    let message = match family {
        Family::Ipv4 => "the host has no IPv4 address",
        Family::Ipv6 => "the host has no IPv6 address",
        Family::Any => "the host has no address",
    };
    Error::new(Kind::Resolve, message).with_stage(Stage::Resolve)
}

/// The resolver's words, without std's preface; or the system's, if it kept the resolver from asking.
pub fn unresolved(error: &io::Error) -> Error {
    if error.raw_os_error().is_some() {
        return Error::from_io(error).with_stage(Stage::Resolve);
    }
    let text = error.to_string();
    let reason = text.rsplit(": ").next().unwrap_or_default();
    let message = format!("the name cannot be resolved ({})", reason.to_lowercase());
    Error::new(Kind::Resolve, message).with_stage(Stage::Resolve)
}
