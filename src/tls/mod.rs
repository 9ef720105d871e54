//! TLS: the only floor that names rustls. It never touches a socket: records come in and go out as bytes.

pub mod certificate;
pub mod config;
mod expiry;
mod failure;
mod identity;
mod kept;
mod name;
mod pem;
mod refusal;
pub mod session;
mod sessions;
mod store;
mod verifier;
mod wire;
