#!/bin/sh
# The module in an embedded Lua 5.5, which no distribution has yet.
set -eu
cd "$(dirname "$0")/.."

cargo build --release --locked --lib --target-dir target --features lua55
mkdir -p build/lua55
cp target/release/libtcp.so build/lua55/tcp.so
cargo build --release --locked --example peer --target-dir target
tools/certificates.sh build/certificates
cargo run --release --locked --manifest-path lua-tests/lua55/Cargo.toml --target-dir build/lua55-host
