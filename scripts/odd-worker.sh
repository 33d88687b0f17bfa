#!/usr/bin/env bash
# Compiles the worker of the npm package as by a compiler without `__has_builtin`: it keeps products of integers as
# floating-point numbers, which once made validators diverge. Only the tests use it.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
odd=$root/target/tools/odd-xsnap-worker
package=$root/tests/lab/node_modules/@agoric/xsnap
if [ -x "$odd" ] && [ "$odd" -nt "$package/package.json" ]; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$package/moddable" "$package/xsnap-native" "$package/package.json" "$work/"
rm -rf "$work/xsnap-native/xsnap/build"
version=$(node -p "require('$package/package.json').version")
cd "$work/xsnap-native/xsnap/makefiles/lin"
make -j2 -f xsnap-worker.mk GOAL=release MODDABLE="$work/moddable" XSNAP_VERSION="$version" CC="${CC:-cc} -w -D'__has_builtin(x)=0'" >/dev/null
mkdir -p "$(dirname "$odd")"
cp "$work/xsnap-native/xsnap/build/bin/lin/release/xsnap-worker" "$odd"
"$odd" -v
