//! The operating system: the only floor that names socket2, mio and nix.

pub mod datagram;
pub mod file;
pub mod input;
pub mod listener;
pub mod memory;
pub mod poller;
pub mod resolver;
pub mod selector;
pub mod signal;
pub mod socket;
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), path = "transfer_elsewhere.rs")]
pub mod transfer;
