#!/usr/bin/env bash
# Measures the comparison of heap images: two of one vat of the lab (10 MB), two of different vats, and pairs
# made here with 990,000 slots (56 MB). Needs the lab (`make lab`). Goals: 10 MB in 0.5 s, 56 MB in 3 s and 600 MB of memory,
# parsing at 300 MB/s.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-9}
cargo build --locked --release --example measure-heap
worker=$(bash tests/lab/worker-path.sh)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# image NAME SCRIPT: saves the heap of a worker after a script.
image() {
  printf '%d:e%s,3:w@7,' $((${#2} + 1)) "$2" >"$work/commands"
  "$worker" measure 3<"$work/commands" 4>/dev/null 5</dev/null 6</dev/null 7>"$work/$1" 8</dev/null
}
many='globalThis.all = []; for (let i = 0; i < 247000; i += 1) all.push({ number: i, text: `a text of the length that such texts have ${i}`, half: i * 2 });'
image one.xss "$many"
image moved.xss "(function shiftsAllNames(unheardOf) { return unheardOf; })(1); $many"
image changed.xss "$many all.splice(1000, 0, { number: -1, text: 'new', half: 0 }); all[200000].half = 7;"

db=tests/lab/data/everything/agoric/swingstore.sqlite
pair() { python3 - "$db" <<'PY'
import sqlite3, sys
db = sqlite3.connect(f"file:{sys.argv[1]}?immutable=1", uri=True)
rows = db.execute("SELECT vatID, snapPos FROM snapshots WHERE compressedSnapshot IS NOT NULL ORDER BY vatID, snapPos").fetchall()
same = next((a, b) for a, b in zip(rows, rows[1:]) if a[0] == b[0])
other = next(row for row in reversed(rows) if row[0] != rows[0][0])
print(*(f"{vat}@{position}" for vat, position in (*same, rows[0], other)))
PY
}
read -r one two three four < <(pair)
measure=target/release/examples/measure-heap
$measure "$runs" "$db:$one" "$db:$two"
$measure "$runs" "$db:$three" "$db:$four"
$measure "$runs" "$work/one.xss" "$work/moved.xss"
$measure "$runs" "$work/one.xss" "$work/changed.xss"
