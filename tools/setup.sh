#!/bin/sh
# Makes sure that everything a Makefile target needs is there: installs it with apt where it can, and says
# exactly what to install where it cannot.
#
# Usage: tools/setup.sh demo | tools/setup.sh test INTERPRETER... | tools/setup.sh bench INTERPRETER...
set -eu

purpose=$1
shift
packages=
commands=

# need COMMAND PACKAGE: the package is wanted if the command is not there.
need() {
  if ! command -v "$1" >/dev/null 2>&1 && ! [ -x "/usr/sbin/$1" ]; then
    packages="$packages $2"
    commands="$commands $1"
  fi
}

# need_modules FILE:PACKAGE...: Lua modules in C, looked for where Debian keeps them.
need_modules() {
  command -v apt-get >/dev/null 2>&1 || return 0
  for rock in "$@"; do
    for version in 5.1 5.4; do
      ls /usr/lib/*/lua/$version/${rock%:*}.so >/dev/null 2>&1 || { need "${rock#*:}-$version" "${rock#*:}"; break; }
    done
  done
}

need cc gcc
need luarocks luarocks
# For the certificates of the demo and of the tests.
need openssl openssl
case $purpose in
demo)
  # LuaRocks brings an interpreter; the demo runs on the one that LuaRocks builds for.
  need lua5.4 lua5.4
  ;;
test)
  for lua in "$@"; do
    need "$lua" "$lua"
  done
  need busted lua-busted
  need luacheck lua-check
  need redis-server redis-server
  need nginx nginx-light
  need memcached memcached
  need valgrind valgrind
  need_modules cjson:lua-cjson _cqueues:lua-cqueues luv:lua-luv ssl:lua-sec
  need aiosmtpd python3-aiosmtpd
  # Debian keeps it out of the path.
  ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || need postgres postgresql
  need dovecot dovecot-imapd
  need mariadbd mariadb-server-core
  if command -v apt-get >/dev/null 2>&1; then
    # The headers of the Luas: the module does without, LuaRocks on some systems does not.
    for version in 5.1 5.2 5.3 5.4; do
      [ -e "/usr/include/lua$version/lua.h" ] || need "lua$version/lua.h" "liblua$version-dev"
    done
  fi
  ;;
bench)
  for lua in "$@"; do
    need "$lua" "$lua"
  done
  # The contenders; copas is plain Lua, and shares its file with LuaJIT.
  need_modules cjson:lua-cjson _cqueues:lua-cqueues luv:lua-luv ssl:lua-sec _openssl:lua-luaossl
  [ -e /usr/share/lua/5.1/copas.lua ] || ! command -v apt-get >/dev/null 2>&1 || need copas-5.1 lua-copas
  ;;
esac

if ! command -v cargo >/dev/null 2>&1; then
  echo "tcp: cargo is missing: install a Rust toolchain (1.88 or later)" >&2
  exit 1
fi
[ -n "$packages" ] || exit 0

# Debian's name of Lua 5.1's headers has a -0 in it.
packages=$(echo "$packages" | sed 's/liblua5\.1-dev/liblua5.1-0-dev/')
if command -v apt-get >/dev/null 2>&1; then
  as_root=
  [ "$(id -u)" = 0 ] || as_root="sudo -n env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1"
  if [ -z "$as_root" ] || sudo -n true 2>/dev/null; then
    echo "tcp: installing$packages"
    # A service that a package brings is not wanted: the tests start their own.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    # shellcheck disable=SC2086
    { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends $packages; } \
      >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    exit 0
  fi
fi
echo "tcp: missing:$commands" >&2
echo "tcp: install these packages and try again: apt-get install$packages" >&2
exit 1
