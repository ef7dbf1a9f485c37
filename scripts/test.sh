#!/bin/sh
# Installs what the tests need and runs all of them.
#
# The tests that build packages need bubblewrap, and a static busybox to make a toy seed of. Where one of them cannot be had
# these tests say so and are skipped; where both are there, a skip is a failure. The status page is looked at with chromium
# where that is installed. Arguments are passed on to `cargo test`.
set -eu
cd "$(dirname "$0")/.."
. scripts/install.sh

say() { printf 'test.sh: %s\n' "$*" >&2; }

if ! command -v bwrap >/dev/null 2>&1; then
	install_package bubblewrap bubblewrap bubblewrap bubblewrap || say "going on without bubblewrap"
fi
if ! command -v busybox.static >/dev/null 2>&1 && ! command -v busybox >/dev/null 2>&1; then
	install_package busybox-static busybox busybox busybox-static || say "going on without busybox"
fi
# Alpine's own busybox is not static and does not count.
if command -v apk >/dev/null 2>&1 && ! command -v busybox.static >/dev/null 2>&1; then
	install_package busybox-static busybox busybox busybox-static || say "going on without busybox"
fi

# Some tests join machines of their own, which only root can make.
if [ "$(id -u)" -eq 0 ] && ! command -v ip >/dev/null 2>&1; then
	install_package iproute2 iproute iproute2 iproute2 || say "going on without iproute2"
fi
# The same with routers between them.
if [ "$(id -u)" -eq 0 ] && ! command -v nft >/dev/null 2>&1; then
	install_package nftables nftables nftables nftables || say "going on without nftables"
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
