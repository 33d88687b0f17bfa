#!/usr/bin/env bash
# Verifies the database that the lab wrote, then a copy of it in which one number was changed.
set -euo pipefail
cd "$(dirname "$0")/.."
spanwatch=target/release/spanwatch
database=tests/lab/data/everything/agoric
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

step() { printf '\n--- %s\n\n' "$*"; }

step "Is all there? spanwatch doctor $database"
"$spanwatch" doctor "$database"

step "Every closed span of a real kernel's database: spanwatch verify $database"
"$spanwatch" verify "$database"

step "The same database, but one delivery is said to have cost one computron more"
cp "$database/swingstore.sqlite" "$copy/"
node tests/lab/tamper.mjs "$copy/swingstore.sqlite"
code=0
"$spanwatch" verify "$copy" --vat collections --worker "$(tests/lab/worker-path.sh)" || code=$?
if [ "$code" -ne 3 ]; then
  echo "demo: the tampered copy ended with exit code $code instead of 3" >&2
  exit 1
fi
echo "exit code $code: a divergence, found"
