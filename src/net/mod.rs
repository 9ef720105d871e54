//! Connections put together from sockets, frames and deadlines; still no Lua.

pub mod connection;
pub mod dial;
mod fragments;
pub mod listen;
mod outbox;
mod race;
pub mod reactor;
mod reading;
pub mod remains;
pub mod resolve;
mod secure;
mod stream;
pub mod timers;
mod tls;
pub mod transfer;
pub mod udp;
mod udp_words;
mod watched;
