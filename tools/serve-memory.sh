#!/bin/sh
# How much memory the clients of one server take: three crowds that come, say something, wait and go, plain and over
# TLS, on each interpreter.
#
# Usage: tools/serve-memory.sh [CLIENTS [INTERPRETER...]]
#
# A row has the KiB that each idle client of the three crowds takes, how many of them are Lua's, and the MiB of the
# whole process before the first crowd and after each.
set -eu
cd "$(dirname "$0")/.."

clients=${1:-10000}
[ $# = 0 ] || shift
[ $# != 0 ] || set -- lua5.1 lua5.2 lua5.3 lua5.4 luajit
for lua in "$@"; do
  "$lua" tools/rock.lua build
done
tools/certificates.sh build/certificates

printf '%-20s  %-18s%8s%13s   %s\n' "$clients clients" "KiB each" "Lua's" "MiB before" after
for lua in "$@"; do
  LUA_CPATH="./build/$(echo "$lua" | tr -d .)/?.so;;" LUA_PATH="./lua-tests/?.lua;./lua-tests/?/init.lua;;" \
    TCP_LUA="$lua" "$lua" bench/serve_memory.lua "$clients"
done
