#!/bin/sh
# TLS clients against LuaSec: handshakes, receiving and sending.
#
# Usage: tools/bench-tls.sh [ROUNDS]
set -eu
cd "$(dirname "$0")/.."

for lua in lua5.4 luajit; do
  "$lua" tools/rock.lua build
done
tools/certificates.sh build/certificates
cargo build --release --locked --example bench-peer
exec lua5.4 bench/tls.lua "$@"
