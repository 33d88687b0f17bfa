#!/usr/bin/env bash
# Puts Debian's prometheus and promtool into target/tools: no root, and no service that starts.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/tools
if [ -x "$tools/prometheus" ] && [ -x "$tools/promtool" ]; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A user of its own for the download would not be let into this directory.
get() { (cd "$work" && apt-get -o APT::Sandbox::User=root download prometheus); }
if ! get 2>/dev/null; then
  # On a fresh machine the lists of packages may be missing; only root can fetch them.
  apt-get update
  get
fi
dpkg-deb -x "$work"/prometheus_*.deb "$work/root"
mkdir -p "$tools"
cp "$work/root/usr/bin/prometheus" "$work/root/usr/bin/promtool" "$tools/"
"$tools/promtool" --version | head -n 1
