#!/usr/bin/env bash
# Runs a real kernel that writes a block twice a second, and the daemon beside it, and falsifies one record.
set -euo pipefail
cd "$(dirname "$0")/.."
spanwatch=$PWD/target/release/spanwatch
out=$(mktemp -d)
touch "$out/daemon.log"
kernel= daemon=
finish() {
  for program in $daemon $kernel; do kill "$program" 2>/dev/null || true; done
  wait
  rm -rf "$out"
}
trap finish EXIT

step() { printf '\n--- %s\n\n' "$*"; }
fail() { echo "demo: $*" >&2; tail -n 20 "$out"/*.log >&2; exit 1; }
# await SECONDS COMMAND...: waits until the command succeeds.
await() {
  local seconds=$1; shift
  for _ in $(seq $((seconds * 5))); do
    if "$@"; then return; fi
    sleep 0.2
  done
  fail "timed out waiting for: $*"
}
serves() { address=$(sed -n 's/.*address=\([0-9.:]*\).*/\1/p' "$out/daemon.log"); [ -n "$address" ]; }
metrics() {
  exec 3<>"/dev/tcp/${address%:*}/${address#*:}"
  printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
  sed '1,/^\r$/d' <&3
}
at_least() { [ "$(metrics | awk -v series="$1" '$1 == series { print int($2) }')" -ge "$2" ]; }

step "A real SwingSet kernel with real workers writes blocks. It keeps items and deletes old heap images, like an archive node"
node tests/lab/lab.mjs --out "$out/lab" --live 500 --keep items > "$out/kernel.log" 2>&1 &
kernel=$!
await 180 grep -qx live "$out/kernel.log"
grep '^block' "$out/kernel.log" | tail -n 3 || true

step "spanwatch run: the daemon starts beside it"
NO_COLOR=1 "$spanwatch" run "$out/lab/agoric" --worker "$(tests/lab/worker-path.sh)" --state-dir "$out/state" \
  --listen 127.0.0.1:0 --log-format human > "$out/daemon.log" 2>&1 &
daemon=$!
await 30 serves
await 120 at_least 'spanwatch_spans_total{verdict="verified"}' 5
"$spanwatch" verdicts --state-dir "$out/state"

step "The kernel falsifies a record: one delivery of the vat collections costs one computron more than its worker used"
kill -USR1 "$kernel"
await 120 grep -q 'lied about' "$out/kernel.log"
grep 'lied about' "$out/kernel.log"
await 120 at_least spanwatch_divergences_unacknowledged 1
code=0
"$spanwatch" verdicts --diverged --state-dir "$out/state" || code=$?
[ "$code" -eq 3 ] || fail "an unacknowledged divergence gives exit code 3, not $code"

step "The daemon's log, and some of its metrics (http://$address/metrics)"
cat "$out/daemon.log"
echo
metrics | grep -E '^spanwatch_(spans_total|divergences_total|divergences_unack|missed|backlog_spans|node_(state|block)|verdict_delay_seconds_(sum|count))' | grep -v ' 0$'

step "spanwatch ack: the operator acknowledges the divergence"
id=$({ "$spanwatch" verdicts --diverged --state-dir "$out/state" --format json || true; } | sed -n 's/.*"id":"\([^"]*\)".*/\1/p')
"$spanwatch" ack "$id" --note "the kernel was told to lie" --state-dir "$out/state"

step "The node and the daemon stop; spanwatch verify finds the same divergence in the database at rest"
kill "$daemon" && wait "$daemon" || fail "the daemon ended with $?"
kill "$kernel" && wait "$kernel" || fail "the kernel ended with $?"
daemon= kernel=
code=0
"$spanwatch" verify "$out/lab/agoric" --vat collections --worker "$(tests/lab/worker-path.sh)" || code=$?
[ "$code" -eq 3 ] || fail "the divergence gives exit code 3, not $code"
echo "exit code $code: the divergence, found again"
