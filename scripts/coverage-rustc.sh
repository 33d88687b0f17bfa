#!/bin/sh
# Calls the compiler with the coverage instrumentation that libFuzzer needs. scripts/fuzz.sh makes cargo use it for spanwatch's
# own crates only, so that other crates need not be compiled again.
# A build script runs without libFuzzer.
case " $* " in
  *' --crate-name build_script_'*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
