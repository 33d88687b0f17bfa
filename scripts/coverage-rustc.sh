#!/bin/sh
# Calls the compiler with what libFuzzer needs to see which code an input reaches. scripts/fuzz.sh has cargo use it for spanwatch's own
# crates, so that those of others are the ones that the tests have compiled already.
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
