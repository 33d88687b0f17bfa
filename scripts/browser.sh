#!/usr/bin/env bash
# Puts Debian's headless Chromium, a font and what else it needs into target/tools/browser: no root, nothing installed.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/tools/browser
if [ -x "$tools/run" ] && "$tools/run" --version >/dev/null 2>&1; then exit 0; fi
# Asked for by name, as the system may have one of them already, and then it would not be among what is missing.
wanted=(chromium-headless-shell fonts-dejavu-core)
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
"$tools/run" --version
