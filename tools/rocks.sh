#!/bin/sh
# The rock for every Lua that LuaRocks knows here: made, loaded from its tree, tested, removed. No network is used
# but the crate registry: the servers list is empty.
set -eu
cd "$(dirname "$0")/.."

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
for version in 5.1 5.2 5.3 5.4; do
  command -v "lua$version" >/dev/null || continue
  rocks() { luarocks --lua-version "$version" --tree "$tree" --only-server="$tree" "$@"; }
  rocks make tcp-dev-1.rockspec
  library=$tree/lib/lua/$version/tcp.so
  LUA_CPATH="$tree/lib/lua/$version/?.so" "lua$version" -e 'assert(require("tcp") == require("tcp.core"))'
  # One spec is enough here: they all have run.
  rocks test tcp-dev-1.rockspec -- lua-tests/errors_spec.lua
  rocks remove tcp
  [ ! -e "$library" ]
done

if command -v luajit >/dev/null; then
  luarocks --lua-version 5.1 --tree "$tree" --only-server="$tree" make tcp-dev-1.rockspec LUA="$(command -v luajit)"
  LUA_CPATH="$tree/lib/lua/5.1/?.so" luajit -e 'assert(require("tcp") == require("tcp.core"))'
fi
