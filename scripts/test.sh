#!/usr/bin/env bash
# Runs the tests and prints their number. Needs the test databases: `make test` makes them.
#   scripts/test.sh        all but the slow ones
#   scripts/test.sh long   the slow ones: those in a module named `long`
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
# Each test that is left out because the machine lacks something adds a line (tests/integration/skip.rs).
skipped=$(mktemp)
trap 'rm -f "$log" "$skipped"' EXIT
export TESTS_SKIPPED_FILE=$skipped

case "${1:-}" in
  '') choice=(--skip ::long::) ;;
  long) choice=(::long::) ;;
  *) echo "usage: scripts/test.sh [long]" >&2; exit 2 ;;
esac

# The integration tests run the examples; cargo builds them by itself only if no target is named.
cargo build --locked --examples
targets=(--locked --lib --test integration)
status=0
began=$SECONDS
cargo test "${targets[@]}" --no-fail-fast -- "${choice[@]}" 2>&1 | tee "$log" || status=$?

count() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i == word ";") sum += $(i - 1) } END { print sum + 0 }' "$log"; }
if [ "${1:-}" != long ]; then
  cargo test "${targets[@]}" -q -- --list ::long:: 2>/dev/null |
    sed -n 's/^\(.*\): test$/not run, as it is slow (make test-long runs it): \1/p'
elif [ "$(count passed)" -eq 0 ] && [ "$status" -eq 0 ]; then
  echo "no test is in a module named long" >&2
  status=1
fi
sort -u "$skipped"
echo "$(count passed) passed, $(count failed) failed, $(sort -u "$skipped" | wc -l) skipped in whole or in part, in $((SECONDS - began)) s"
exit "$status"
