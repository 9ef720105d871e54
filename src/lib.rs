//! `tcp`: networking for Lua.
//!
//! The floors, each naming only what is below it:
//!
//! ```text
//! 5  runtime/   embedded Lua: waiting, raising, iterators
//! 4  lua/       the module's face, the only place for mlua      json/  text <-> values on the Lua stack
//! 3  net/       connections, racing connects
//! 2  sys/       sockets, poll, the resolver's threads          tls/   records <-> bytes, certificates
//! 1  frame/     bytes in, values out
//! 0  error, step, deadline, address, options, policy
//! ```
//!
//! Everything up to floor 3 builds and is tested without Lua: `cargo test --no-default-features`.

#![cfg_attr(
    not(feature = "lua"),
    allow(dead_code, reason = "without the floors above, nothing uses these but their tests")
)]

mod address;
mod deadline;
#[cfg(feature = "lua")]
mod entry;
mod error;
mod frame;
#[cfg(feature = "lua")]
mod json;
#[cfg(feature = "lua")]
mod lua;
mod net;
mod options;
mod policy;
mod step;
mod sys;
mod tls;
