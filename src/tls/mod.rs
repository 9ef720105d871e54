//! TLS: the only floor that names rustls. It never touches a socket: records come in and go out as bytes.

pub mod certificate;
pub mod config;
mod ends;
mod failure;
mod identity;
mod kept;
mod name;
mod pem;
mod refusal;
pub mod session;
mod store;
mod verifier;
mod wire;
