#!/usr/bin/env bash
# Puts Debian's headless Chromium, a font and what else it needs into target/tools/browser: no root, nothing installed.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/tools/browser
# Opens a page: `--version` needs none of the browser's own files. In a profile of its own, as it would write to HOME.
works() {
  local profile status=0
  profile=$(mktemp -d)
  HOME=$profile timeout 60 "$1" --headless --user-data-dir="$profile" --dump-dom 'data:text/html,<p>it works</p>' >"$profile/out" 2>&1 || status=$?
  grep -q 'it works' "$profile/out" || { echo "$1 opens no page (status $status):"; tail -n 5 "$profile/out"; status=1; } >&2
  rm -rf "$profile"
  return "$status"
}
if [ -x "$tools/run" ] && works "$tools/run" 2>/dev/null; then exit 0; fi
# All of the browser by name, as it looks for its files beside its program: the system may have a part of it, which would not be
# among what is missing (chromium-common comes with Debian's chromium).
wanted=(chromium-headless-shell chromium-common fonts-dejavu-core)
# What apt would install is what the system lacks; nobody needs to be root to ask.
missing() { apt-get -s -qq --no-install-recommends install "${wanted[@]}" | awk '$1 == "Inst" { print $2 }'; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A user of its own for the download would not be let into this directory.
get() {
  local packages
  packages=$(missing) || return
  # shellcheck disable=SC2086 # one word a package
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "${wanted[@]}" $packages)
}
if ! get 2>/dev/null; then
  # On a fresh machine the lists of packages may be missing; only root can fetch them.
  apt-get -qq update
  get
fi
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/root"; done
root=$PWD/$tools/root
cat >"$work/fonts.conf" <<CONF
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><dir>$root/usr/share/fonts</dir><cachedir>$PWD/$tools/fonts.cache</cachedir></fontconfig>
CONF
# The page under test is ours, so the browser goes without a sandbox, which not every machine lets it have.
lib=$root/usr/lib/$(basename "$work"/root/usr/lib/*-linux-gnu*)
cat >"$work/run" <<RUN
#!/bin/sh
export LD_LIBRARY_PATH='$lib:$lib/pulseaudio'
export FONTCONFIG_FILE='$PWD/$tools/fonts.conf'
exec '$root/usr/lib/chromium/chromium-headless-shell' --no-sandbox --disable-gpu --disable-dev-shm-usage "\$@"
RUN
chmod +x "$work/run"
rm -rf "$tools"
mkdir -p "$tools"
mv "$work/root" "$work/fonts.conf" "$work/run" "$tools/"
works "$tools/run"
"$tools/run" --version
