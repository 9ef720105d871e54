#!/bin/bash
# Every test: Rust's, the specs on each interpreter, Lua 5.5, the rock, the demo. The last line counts.
#
# Usage: tools/test.sh INTERPRETER...
set -u
cd "$(dirname "$0")/.."

passed=0
failed=0
log=$(mktemp)
# What failed, for the end: many tests and builds come between it and the last line.
bad_news=$(mktemp)
trap 'rm -f "$log" "$bad_news"' EXIT

# tell_again TITLE: keeps what the command's log says of its failures, or its last lines.
tell_again() {
  echo "== $1"
  if grep -qE '^(Failure|Error) ->' "$log"; then
    awk '/^(Failure|Error) ->/ { left = 25 } /^Pending ->/ { left = 0 } left-- > 0' "$log"
  else
    tail -n 25 "$log"
  fi
} >> "$bad_news"

# run TITLE COMMAND...: shows what the command prints and counts what its test runner counted, or else the
# command itself as one test.
run() {
  local title=$1 ok good bad
  shift
  echo "== $title"
  "$@" 2>&1 | tee "$log"
  ok=${PIPESTATUS[0]}
  good=$(sed -nE 's/^test result: .* ([0-9]+) passed.*/\1/p; s/^([0-9]+) success.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
  bad=$(sed -nE 's/^test result: .* ([0-9]+) failed.*/\1/p; s/^[0-9]+ success[^/]*\/ ([0-9]+) failure[^/]*\/ ([0-9]+) error.*/\1 \2/p' "$log" | awk '{ n += $1 + $2 } END { print n + 0 }')
  if [ "$ok" != 0 ] && [ "$bad" = 0 ]; then
    bad=1
  elif [ "$ok" = 0 ] && [ "$good" = 0 ]; then
    good=1
  fi
  passed=$((passed + good))
  failed=$((failed + bad))
  [ "$bad" = 0 ] || tell_again "$title"
}

run "Rust without Lua" cargo test --locked --no-default-features
for lua in "$@"; do
  if command -v "$lua" >/dev/null; then
    run "the specs on $lua" "$lua" tools/rock.lua test
  else
    echo "== $lua is not installed: its specs did not run"
    failed=$((failed + 1))
  fi
done
run "Lua 5.5, embedded" tools/lua55.sh
run "the rock" tools/rocks.sh
run "the demo" tools/demo.sh

if [ -s "$bad_news" ]; then
  echo "== what failed"
  cat "$bad_news"
fi
echo "tests: $passed passed, $failed failed"
[ "$failed" = 0 ]
