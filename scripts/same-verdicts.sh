#!/usr/bin/env bash
# Compares what two builds of spanwatch say of some databases, field by field.
#   scripts/same-verdicts.sh BEFORE AFTER DB...
# DB is swingstore.sqlite or its directory; transcript-archive and snapshot-archive are used where they lie in that directory or its parent.
# The worker is the one that spanwatch finds: run it from tests/lab, or set SPANWATCH_WORKER.
# Left out are sentences, times, and fields that one of the builds does not have: the lists below name all of them.
set -euo pipefail
before=$1 after=$2
shift 2
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cat >"$out/compare.mjs" <<'JS'
import { readFileSync } from 'node:fs';

// Sentences for people: their words may change.
const SENTENCES = ['explanation', 'failure', 'why', 'what', 'text'];
// Times, and what a worker found in its sandbox.
const TIMES = ['seconds', 'probe'];
// Fields and types of lines that were added since version 0.1.0.
const ADDED = ['items_from', 'base_from', 'names', 'argument', 'moved_to', 'exit', 'by_worker', 'trace_kinds', 'commit'];
const ADDED_TYPES = ['plan', 'disagreement'];
// A moved syscall was told as "as syscall N: ...": the text behind it stays compared.
const MOVED = /^as syscall \d+: /;

const clean = value => {
  if (Array.isArray(value)) return value.map(clean);
  if (typeof value === 'string') return value.replace(MOVED, '');
  if (value === null || typeof value !== 'object') return value;
  const left = Object.entries(value).filter(([key]) => ![...SENTENCES, ...TIMES, ...ADDED].includes(key));
  const object = Object.fromEntries(left.map(([key, inner]) => [key, clean(inner)]));
  // Why a layer of the sandbox is missing is a sentence too.
  if ('layer' in object) delete object.reason;
  // A flaky replay gives another hash each time.
  if (object.repeat === 'flaky') for (const key of ['findings', 'repeat_findings', 'outcomes', 'heap']) delete object[key];
  return object;
};

const lines = file =>
  readFileSync(file, 'utf8').split('\n').filter(line => line.startsWith('{')).map(line => JSON.parse(line))
    .filter(line => !ADDED_TYPES.includes(line.type)).map(line => JSON.stringify(clean(line)));

const [one, other] = process.argv.slice(2).map(lines);
let differences = 0;
for (let at = 0; at < Math.max(one.length, other.length); at += 1) {
  if (one[at] === other[at]) continue;
  differences += 1;
  if (differences <= 5) console.log(`line ${at + 1}\n- ${one[at]}\n+ ${other[at]}`);
}
console.log(`${one.length} lines compared, ${differences} differ`);
if (one.length < 2) console.log('nothing was verified: is there a worker?');
process.exitCode = differences > 0 || one.length < 2 ? 1 : 0;
JS

verdicts() {
  local status=0
  "$1" verify "$2" --format json "${archives[@]}" 2>/dev/null >"$3" || status=$?
  printf '{"type":"exit","status":%d}\n' "$status" >>"$3"
}

different=0
for db in "$@"; do
  archives=()
  for kind in transcript snapshot; do
    for place in "$db" "$db/.." "$(dirname "$db")" "$(dirname "$db")/.."; do
      if [ -d "$place/$kind-archive" ]; then
        archives+=("--$kind-archive" "$place/$kind-archive")
        break
      fi
    done
  done
  verdicts "$before" "$db" "$out/before"
  verdicts "$after" "$db" "$out/after"
  printf '%s: ' "$db"
  node "$out/compare.mjs" "$out/before" "$out/after" || different=1
done
exit "$different"
