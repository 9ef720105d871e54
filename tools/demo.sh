#!/bin/sh
# Installs the rock into build/demo, a tree of its own, and runs examples/demo.lua on it.
set -eu
cd "$(dirname "$0")/.."

tree=build/demo
tools/certificates.sh build/certificates
luarocks --lua-version 5.4 --tree "$tree" make tcp-dev-1.rockspec
LUA_CPATH="$tree/lib/lua/5.4/?.so" LUA_PATH="$tree/share/lua/5.4/?.lua" lua5.4 examples/demo.lua
