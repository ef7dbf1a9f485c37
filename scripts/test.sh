#!/bin/sh
# Runs every test: unit, property, simulation, sandbox and end-to-end. Installs bubblewrap and a static busybox when missing.
#
#   sh scripts/test.sh [arguments of `cargo test`]
set -eu
cd "$(dirname "$0")/.."
. scripts/setup.sh

need_rust_and_cc
need_bubblewrap
# The sandbox tests use a host's static busybox as their toy seed; its package has other names than the program.
if ! command -v busybox >/dev/null; then
    if command -v apt-get >/dev/null; then install_packages busybox-static; else install_packages busybox; fi
fi

# A machine that cannot make a sandbox fails the tests instead of skipping them; set it to 0 to skip.
export P2PKGS_REQUIRE_SANDBOX="${P2PKGS_REQUIRE_SANDBOX:-1}"
exec cargo test --workspace --locked "$@"
