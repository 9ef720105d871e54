#!/bin/sh
# Echo servers in tasks, in luv, in cqueues and in one epoll loop, under the same load.
#
# Usage: tools/bench-echo.sh [ROUNDS [SECONDS]]
set -eu
cd "$(dirname "$0")/.."

for lua in lua5.4 luajit; do
  "$lua" tools/rock.lua build
done
cargo build --release --locked --example bench-peer
exec lua5.4 bench/echo.lua "$@"
