#!/bin/sh
# Installs what the tests need and runs all of them.
#
# The tests that build packages need bubblewrap, and a static busybox to make a toy seed of. Where one of them cannot be had
# these tests say so and are skipped; where both are there, a skip is a failure. Arguments are passed on to `cargo test`.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'test.sh: %s\n' "$*" >&2; }

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		say "cannot run as root: $*"
		return 1
	fi
}

# install_packages DEBIAN FEDORA ARCH ALPINE: the package's name on each.
install_packages() {
	if command -v apt-get >/dev/null 2>&1; then
		say "installing $1 with apt-get"
		as_root apt-get install -y "$1" || { as_root apt-get update && as_root apt-get install -y "$1"; }
	elif command -v dnf >/dev/null 2>&1; then
		say "installing $2 with dnf"
		as_root dnf install -y "$2"
	elif command -v pacman >/dev/null 2>&1; then
		say "installing $3 with pacman"
		as_root pacman -S --needed --noconfirm "$3"
	elif command -v apk >/dev/null 2>&1; then
		say "installing $4 with apk"
		as_root apk add "$4"
	else
		say "no apt-get, dnf, pacman or apk here: install $1 yourself"
		return 1
	fi
}

if ! command -v bwrap >/dev/null 2>&1; then
	install_packages bubblewrap bubblewrap bubblewrap bubblewrap || say "going on without bubblewrap"
fi
if ! command -v busybox.static >/dev/null 2>&1 && ! command -v busybox >/dev/null 2>&1; then
	install_packages busybox-static busybox busybox busybox-static || say "going on without busybox"
fi
# Alpine's own busybox is not static and does not count.
if command -v apk >/dev/null 2>&1 && ! command -v busybox.static >/dev/null 2>&1; then
	install_packages busybox-static busybox busybox busybox-static || say "going on without busybox"
fi

if [ -z "${P2PKGS_REQUIRE_SANDBOX:-}" ]; then
	if bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev true 2>/dev/null; then
		P2PKGS_REQUIRE_SANDBOX=1
	else
		say "bubblewrap cannot make a sandbox here: tests that need one will be skipped"
		say "(\`cargo run -- doctor\` says why and what to do)"
		P2PKGS_REQUIRE_SANDBOX=0
	fi
	export P2PKGS_REQUIRE_SANDBOX
fi

say "P2PKGS_REQUIRE_SANDBOX=$P2PKGS_REQUIRE_SANDBOX cargo test --workspace $*"
exec cargo test --workspace "$@"
