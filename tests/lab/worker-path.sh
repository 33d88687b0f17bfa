#!/bin/sh
# Prints where the lab's worker is.
echo "$(cd "$(dirname "$0")" && pwd)/node_modules/@agoric/xsnap/xsnap-native/xsnap/build/bin/lin/release/xsnap-worker"
