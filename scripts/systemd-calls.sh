#!/usr/bin/env bash
# Prints the groups of system calls that SystemCallFilter= has in the systemd of a Debian release, with their calls.
# Needs a Debian system; installs nothing. A test checks the unit's filter against the output:
#   scripts/systemd-calls.sh bookworm > tests/systemd/calls-252.txt
#   scripts/systemd-calls.sh sid      > tests/systemd/calls-262.txt
set -euo pipefail
suite=${1:?usage: scripts/systemd-calls.sh SUITE}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/state/lists/partial "$work"/cache/archives/partial "$work"/debs
# The mirror of this system's own packages.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
echo "deb $mirror $suite main" > "$work/sources.list"
touch "$work/state/status"
apt=(-qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State="$work/state"
  -o Dir::State::status="$work/state/status" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update >&2
# The program with all libraries that it links to or loads.
mapfile -t packages < <(apt-get "${apt[@]}" -s --no-install-recommends install systemd libseccomp2 | awk '$1 == "Inst" { print $2 }')
(cd "$work/debs" && apt-get "${apt[@]}" download "${packages[@]}" >&2)
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$work/root"; done
libraries=$(dirname "$(find "$work/root" -name 'libsystemd-shared-*.so' | head -n 1)")
loader=$(find "$work/root" -name 'ld-linux*.so.2' | head -n 1)
machine=$(gcc -print-multiarch)
run() {
  "$loader" --library-path "$libraries:$work/root/usr/lib/$machine:$work/root/lib/$machine" "$work/root/usr/bin/systemd-analyze" "$@"
}
echo "# scripts/systemd-calls.sh $suite"
echo "# $(run --version | head -n 1)"
# Without @known, which lists all calls.
run --no-pager syscall-filter 2>/dev/null | sed -n '/^@known/q; /^#/d; p'
