#!/bin/sh
# TLS clients against LuaSec: handshakes, receiving and sending; then TLS servers against LuaSec in copas and cqueues.
#
# Usage: tools/bench-tls.sh [ROUNDS [SCALE]]
#   SCALE 0.02 does a fiftieth of the work: whether all is right, not how fast it is.
set -eu
cd "$(dirname "$0")/.."

rounds=${1:-7}
scale=${2:-1}
for lua in lua5.4 luajit; do
  "$lua" tools/rock.lua build
done
tools/certificates.sh build/certificates
cargo build --release --locked --example bench-peer
export LUA_PATH="bench/?.lua;;"
lua5.4 bench/tls.lua "$rounds" "$scale"
lua5.4 bench/tls_servers.lua "$rounds" "$(echo "$scale" | awk '{ print 2 * $1 }')"
