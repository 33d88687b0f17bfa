#!/usr/bin/env bash
# Unpacks Debian's prometheus and promtool into target/tools. Needs no root; starts no service.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/tools
if [ -x "$tools/prometheus" ] && [ -x "$tools/promtool" ]; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt's separate download user has no access to this directory.
get() { (cd "$work" && apt-get -o APT::Sandbox::User=root download prometheus); }
if ! get 2>/dev/null; then
  # On a fresh machine the package lists may be missing; only root can fetch them.
  apt-get update
  get
fi
dpkg-deb -x "$work"/prometheus_*.deb "$work/root"
mkdir -p "$tools"
cp "$work/root/usr/bin/prometheus" "$work/root/usr/bin/promtool" "$tools/"
"$tools/promtool" --version | head -n 1
