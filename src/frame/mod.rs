//! Bytes in, values out: pure functions and small machines without a socket, a clock or Lua.

pub mod buffer;
pub mod json_scan;
pub mod line;
pub mod packet;
