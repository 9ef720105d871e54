//! The operating system: the only floor that names socket2, mio and nix.

pub mod input;
pub mod listener;
pub mod poller;
pub mod resolver;
pub mod selector;
pub mod socket;
