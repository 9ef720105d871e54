//! The operating system: the only floor that names socket2 and nix.

pub mod poller;
pub mod resolver;
pub mod socket;
