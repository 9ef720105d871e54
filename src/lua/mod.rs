//! The module's face: the only floor that names mlua.
//!
//! Every function that scripts can reach begins as a step here: arguments in, a `reply` out. Steps never
//! block, never yield and never call back into Lua; the embedded Lua above waits and raises.

mod args;
#[cfg(feature = "lua51")]
mod boundary;
mod connection;
mod dial;
mod failure;
mod file;
mod json;
mod legacy;
mod listener;
pub mod module;
mod options;
pub mod policy;
mod reactor;
mod reading;
mod reply;
mod resolve;
mod runtime;
mod state;
mod tls;
mod tls_options;
mod transfer;
mod udp;
mod udp_options;
mod wait;
mod writing;
