//! Connections put together from sockets, frames and deadlines; still no Lua.

pub mod connection;
pub mod dial;
mod outbox;
mod reading;
mod stream;
