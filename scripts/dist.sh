#!/usr/bin/env bash
# Packs the release build (`make dist` makes it first). The same commit, compiler and path give the same archive.
#   scripts/dist.sh                            target/dist/spanwatch-VERSION-TARGET.tar.gz, and its .sha256
#   scripts/dist.sh --check                    unpacks the archive into an empty directory, verifies its sums and tries its parts
#   scripts/dist.sh --install DESTDIR PREFIX   puts the same files where a system expects them
set -euo pipefail
cd "$(dirname "$0")/.."
program=target/release/spanwatch
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
target=$(rustc -vV | sed -n 's/^host: //p')
name=spanwatch-$version-$target
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The files of a release, as they lie in the archive.
stage() {
  mkdir -p "$1"/{config,grafana,completions}
  strip -o "$1/spanwatch" "$program"
  cp LICENSE README.md CHANGELOG.md "$1"
  cp config/{spanwatch.toml,alerts.yml,spanwatch.service} "$1/config"
  cp grafana/spanwatch.json "$1/grafana"
  "$1/spanwatch" man "$1/man"
  "$1/spanwatch" completions bash >"$1/completions/spanwatch.bash"
  "$1/spanwatch" completions zsh >"$1/completions/_spanwatch"
  "$1/spanwatch" completions fish >"$1/completions/spanwatch.fish"
  find "$1" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
  chmod 755 "$1/spanwatch"
}

pack() {
  stage "$scratch/$name"
  (cd "$scratch/$name" && find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS)
  chmod 644 "$scratch/$name/SHA256SUMS"
  mkdir -p target/dist
  # Nothing of this machine or of this moment goes into the archive: the time is that of the commit.
  LC_ALL=C tar --create --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" \
    --directory "$scratch" "$name" | gzip -9 -n >"target/dist/$name.tar.gz"
  (cd target/dist && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
  (cd target/dist && du -h "$name.tar.gz" && cat "$name.tar.gz.sha256")
}

check() {
  (cd target/dist && sha256sum --check --quiet "$name.tar.gz.sha256")
  tar --extract --gzip --file "target/dist/$name.tar.gz" --directory "$scratch"
  [ "$(ls "$scratch")" = "$name" ] || { echo "the archive has more than $name/" >&2; exit 1; }
  cd "$scratch/$name"
  sha256sum --check --quiet SHA256SUMS
  local unsummed
  unsummed=$(comm -13 <(sed 's/^[0-9a-f]*  //' SHA256SUMS | LC_ALL=C sort) <(find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort))
  [ -z "$unsummed" ] || { echo "without a sum: $unsummed" >&2; exit 1; }
  ./spanwatch --version | grep -F "spanwatch $version"
  ./spanwatch config >/dev/null
  bash -n completions/spanwatch.bash
  if command -v man >/dev/null; then
    man -l man/spanwatch-verify.1 | grep -q 'Exit codes: 0 ' || { echo "the man page does not render" >&2; exit 1; }
  else
    echo "not tried, as there is no man: a man page"
  fi
  echo "$(wc -l <SHA256SUMS) files, each with its sum"
}

install_below() {
  local tree=$scratch/tree root=$1$2
  stage "$tree"
  install -D -m 755 "$tree/spanwatch" "$root/bin/spanwatch"
  install -d "$root/share/man/man1" "$root/share/doc/spanwatch" "$root/share/spanwatch" "$root/lib/systemd/system"
  install -m 644 "$tree"/man/*.1 "$root/share/man/man1"
  install -m 644 "$tree"/{LICENSE,README.md,CHANGELOG.md,config/spanwatch.toml} "$root/share/doc/spanwatch"
  install -m 644 "$tree"/{config/alerts.yml,grafana/spanwatch.json} "$root/share/spanwatch"
  install -D -m 644 "$tree/completions/spanwatch.bash" "$root/share/bash-completion/completions/spanwatch"
  install -D -m 644 "$tree/completions/_spanwatch" "$root/share/zsh/site-functions/_spanwatch"
  install -D -m 644 "$tree/completions/spanwatch.fish" "$root/share/fish/vendor_completions.d/spanwatch.fish"
  sed "s|/usr/local/bin/|$2/bin/|" "$tree/config/spanwatch.service" >"$root/lib/systemd/system/spanwatch.service"
  echo "installed below $root; the unit expects its configuration in /etc/spanwatch.toml"
}

case "${1:-}" in
  '') pack ;;
  --check) check ;;
  --install) install_below "${2?}" "${3:?}" ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
