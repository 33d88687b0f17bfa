#!/usr/bin/env bash
# Unpacks Debian's headless Chromium, a font and its libraries into target/tools/browser. Needs no root; installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/tools/browser
# Opens a page, as `--version` needs none of the browser's own files. The profile is temporary, as the browser writes to HOME.
works() {
  local profile status=0
  profile=$(mktemp -d)
  HOME=$profile timeout 60 "$1" --headless --user-data-dir="$profile" --dump-dom 'data:text/html,<p>it works</p>' >"$profile/out" 2>&1 || status=$?
  grep -q 'it works' "$profile/out" || { echo "$1 opens no page (status $status):"; tail -n 5 "$profile/out"; status=1; } >&2
  rm -rf "$profile"
  return "$status"
}
if [ -x "$tools/run" ] && works "$tools/run" 2>/dev/null; then exit 0; fi
# The browser looks for its files beside its program, so all of its packages are named: one that the system already has
# (chromium-common comes with Debian's chromium) would not be among the missing ones.
wanted=(chromium-headless-shell chromium-common fonts-dejavu-core)
# The missing packages are those that apt would install; the simulation needs no root.
missing() { apt-get -s -qq --no-install-recommends install "${wanted[@]}" | awk '$1 == "Inst" { print $2 }'; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt's separate download user has no access to this directory.
get() {
  local packages
  packages=$(missing) || return
  # shellcheck disable=SC2086 # one word a package
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "${wanted[@]}" $packages)
}
if ! get 2>/dev/null; then
  # On a fresh machine the package lists may be missing; only root can fetch them.
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
# The browser only opens the project's own pages, so it runs without its sandbox, which not every machine allows.
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
