//! TLS: the only floor that names rustls. It never touches a socket: records come in and go out as bytes.

pub mod certificate;
pub mod config;
mod failure;
pub mod session;
mod verifier;
