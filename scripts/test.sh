#!/usr/bin/env bash
# Runs all tests and says how many there were. Their databases must be there: `make test` sees to that.
set -euo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The integration tests run it, and cargo builds it by itself only where no target is named.
cargo build --locked --examples
status=0
cargo test --locked --no-fail-fast --lib --test integration 2>&1 | tee "$log" || status=$?

count() { awk -v word="$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($i == word ";") sum += $(i - 1) } END { print sum + 0 }' "$log"; }
echo "$(count passed) passed, $(count failed) failed"
exit "$status"
