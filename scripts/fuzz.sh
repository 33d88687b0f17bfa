#!/usr/bin/env bash
# Fuzzes spanwatch's parsers of outside data with libFuzzer.
#   scripts/fuzz.sh TARGET SECONDS [libFuzzer's options…]
# TARGET is the name of a folder in fuzz/corpus, or `all`: every target, as many at a time as there are cores. Inputs that reach new
# code are kept in target/fuzz for the next run. An input that fails is saved in target/fuzz/found and ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1 seconds=$2
shift 2
export SPANWATCH_FUZZ_TARGET=$target
out=$PWD/target/fuzz

fuzz_one() {
  mkdir -p "$out/$target" "$out/found"
  target/debug/spanwatch-fuzz -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=16384 -print_final_stats=1 \
    -artifact_prefix="$out/found/$target-" "$@" "$out/$target" "fuzz/corpus/$target"
}

# One run of `all`: prints a line for the result, or the whole log if it failed.
fuzz_quietly() {
  local log=$out/$target.log status=0
  mkdir -p "$out"
  fuzz_one "$@" >"$log" 2>&1 || status=$?
  if [ "$status" != 0 ]; then
    cat "$log"
    echo "fuzz $target FAILED. Move the input from target/fuzz/found to fuzz/corpus/$target: the unit tests then try it in every run"
    return 1
  fi
  local coverage executions memory
  coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
  executions=$(awk '/number_of_executed_units/ { print $2 }' "$log")
  memory=$(awk '/^memory:/ { peak = $2 } END { print peak ? peak / 1048576 " MiB" : "below 1 MiB" }' "$log")
  echo "fuzz $target: $executions inputs, $coverage, peak memory of an input $memory"
}

if [ "${SPANWATCH_FUZZ_BUILT:-}" = "" ]; then
  # Only spanwatch's own crates are compiled again, with optimization for more inputs a second.
  RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/coverage-rustc.sh cargo build --locked --package spanwatch-fuzz \
    --config 'profile.dev.package.spanwatch.opt-level=2'
  export SPANWATCH_FUZZ_BUILT=1
  if [ "$target" = all ]; then
    ls fuzz/corpus | xargs -P "$(nproc)" -I{} scripts/fuzz.sh {} "$seconds" --quietly "$@"
    exit
  fi
fi
if [ "${1:-}" = --quietly ]; then
  shift
  fuzz_quietly "$@"
else
  fuzz_one "$@"
fi
