#!/bin/sh
# Where the CPU time of a TLS client goes, function by function, with all that each calls: one job of bench/tls.lua,
# after `make bench-tls` has built what it needs. It wants valgrind, or perf (Debian's linux-perf).
#
# Usage: tools/profile-tls.sh callgrind|perf full|resumed|receive|send [LUA [TLSv1.3|TLSv1.2 [tcp|luasec]]]
#
#   callgrind  instructions for one (a megabyte, when receiving and sending), start-up taken off: the same on every
#              machine, but the kernel's are not in it, and its processor has no AVX-512, which ciphers like
#   perf       samples of all that the processor does, the kernel too, a thousand for each second of CPU
#
# For the lines of functions: CARGO_PROFILE_RELEASE_DEBUG=1 lua5.4 tools/rock.lua build
set -eu
cd "$(dirname "$0")/.."

tool=$1
job=$2
lua=${3:-lua5.4}
protocol=${4:-TLSv1.3}
script=bench/tls/${5:-tcp}.lua
case $job in
full) few=50 many=250 each=1 tickets= ;;
resumed) few=50 many=250 each=1 tickets=tickets ;;
*) few=$((8 << 20)) many=$((72 << 20)) each=$((1 << 20)) tickets= ;;
esac

LUA_CPATH="./build/$(echo "$lua" | tr -d .)/?.so;;"
export LUA_CPATH
out=build/profile
rm -rf "$out"
mkdir -p "$out"
target/release/examples/bench-peer tls $tickets >"$out/port" &
trap 'kill $!; wait' EXIT
until [ -s "$out/port" ]; do kill -0 $!; sleep 0.1; done
port=$(cat "$out/port")

# counted COUNT: `INSTRUCTIONS FUNCTION` of the job done so often, and of the way there.
counted() {
  valgrind --tool=callgrind --callgrind-out-file="$out/$1" "$lua" "$script" "$job" "$protocol" "$port" "$1" \
    >"$out/log" 2>&1 || { cat "$out/log" >&2; exit 1; }
  callgrind_annotate --inclusive=yes --threshold=100 "$out/$1" |
    sed -n -e 's/,//g' -e 's/^ *\([0-9]*\) ([ 0-9.]*%) *\(???:\)*\(.*\)$/\1 \3/p'
}

case $tool in
callgrind)
  counted "$few" >"$out/few"
  counted "$many" >"$out/many"
  # The interpreter's own functions all have the whole job below them.
  awk -v ones=$(((many - few) / each)) '
    { count = $1; sub(/^[0-9]+ /, "") }
    FNR == NR { few[$0] = count; next }
    /^0x|\/bin\/lua|libc_start|ld-linux/ { next }
    { count = (count - few[$0]) / ones }
    count >= 1000 { printf "%12d  %s\n", count, $0 }
  ' "$out/few" "$out/many" | sort -rn | head -60
  ;;
perf)
  perf record -q -e cpu-clock -F 1000 --call-graph dwarf,16384 -o "$out/perf" \
    "$lua" "$script" "$job" "$protocol" "$port" $((many * 8)) >"$out/log"
  perf report -i "$out/perf" --children --stdio -g none --percent-limit 0.5 2>"$out/log" |
    sed '/^#/d; /^$/d; / lua[^ ]* *\[\.\] /d; /libc_start/d'
  ;;
esac
