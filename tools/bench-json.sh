#!/bin/sh
# JSON against lua-cjson on Lua 5.4 and LuaJIT.
set -eu
cd "$(dirname "$0")/.."

for lua in lua5.4 luajit; do
  "$lua" tools/rock.lua build
  folder=build/$([ "$lua" = luajit ] && echo luajit || echo lua54)
  LUA_CPATH="./$folder/?.so;;" "$lua" bench/json.lua
done
