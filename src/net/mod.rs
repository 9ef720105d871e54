//! Connections put together from sockets, frames and deadlines; still no Lua.

pub mod connection;
pub mod dial;
pub mod listen;
mod outbox;
pub mod reactor;
mod reading;
pub mod remains;
mod secure;
mod stream;
pub mod timers;
