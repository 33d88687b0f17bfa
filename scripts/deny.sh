#!/usr/bin/env bash
# Checks the crates of the lock file against deny.toml, and against the advisory database if it can be fetched.
# The first run compiles cargo-deny into target/tools, without optimization, as it has little to compute.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
deny=target/tools/bin/cargo-deny
if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
  CARGO_PROFILE_DEV_DEBUG=0 cargo install cargo-deny --version "$version" --locked --debug --quiet --force --root target/tools
fi
"$deny" --locked --workspace check bans licenses sources
if timeout 120 "$deny" --log-level off fetch db; then
  "$deny" --locked --workspace check --disable-fetch advisories
else
  echo "advisories NOT CHECKED: the advisory database could not be fetched"
fi
