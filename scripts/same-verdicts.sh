#!/usr/bin/env bash
# Whether two builds of spanwatch say the same of some databases, but for the times.
#   scripts/same-verdicts.sh BEFORE AFTER DB…
set -euo pipefail
before=$1 after=$2
shift 2

verdicts() {
    local status=0
    "$1" verify "$2" --format json "${archives[@]}" || status=$?
    echo "exit $status"
}

for db in "$@"; do
    archives=()
    for kind in transcript snapshot; do
        directory=$(dirname "$db")/$kind-archive
        [ ! -d "$directory" ] || archives+=("--$kind-archive" "$directory")
    done
    # What a script finds in the sandbox differs from start to start, and what a flaky replay gives does. Earlier builds print no plan.
    without_times() {
        sed -E '/^\{"type":"plan"/d; s/"seconds":[0-9.e-]+//; s/"probe":\{[^}]*\}//; /"repeat":"flaky"/ s/"replayed":"[0-9a-f]{64}"//g'
    }
    diff <(verdicts "$before" "$db" 2>/dev/null | without_times) <(verdicts "$after" "$db" 2>/dev/null | without_times)
    echo "the same: $db"
done
