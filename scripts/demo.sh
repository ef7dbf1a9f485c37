#!/bin/sh
# The whole idea on real software, with real processes that know only one peer.
#
# A mirror seeds the sources of a few packages from their origins. A builder finds them through the DHT by their sha256,
# builds, signs and announces. A user fetches what was built and never builds. Then mirror and builder are killed, and a
# second user fetches the same from the first. Last, with everyone gone, a miss says who was asked.
#
# Needs Rust and a C compiler; installs bubblewrap where it is missing. Everything is kept below the work directory, so
# that a second run is fast: `demo.sh [WORK DIRECTORY]`, by default ~/.cache/p2pkgs-demo.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/scripts/install.sh"
work=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/p2pkgs-demo}
# What travels: a make and an editor, which need a shell at run time, and a language.
packages='make ed lua'
daemons=
started=$(date +%s)

step() { printf '\n==> %s\n' "$*" >&2; }
say() { printf '    %s\n' "$*" >&2; }
fail() {
	printf 'demo.sh: %s\n' "$*" >&2
	exit 1
}

cleanup() {
	status=$?
	trap - EXIT INT TERM
	for daemon in $daemons; do
		kill "$daemon" 2>/dev/null || :
	done
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# in_home NAME ARGUMENT...: runs p2pkgs with its own home, on loopback, apart from the public network.
in_home() {
	name=$1
	shift
	say "$name\$ p2pkgs $*"
	P2PKGS_HOME=$work/$name "$p2pkgs" "$@"
}

# home NAME [FIRST PEER [EXTRA SETTINGS]]: makes a home that knows at most one peer.
home() {
	mkdir -p "$work/$1"
	{
		echo 'profile = "lan"'
		echo '[network]'
		echo 'listen = ["/ip4/127.0.0.1/tcp/0"]'
		# Else they would find each other by multicast, and the DHT would have nothing to show.
		echo 'mdns = false'
		if [ -n "${2:-}" ]; then
			echo "bootstrap = [\"$2\"]"
		fi
		echo '[deadlines]'
		echo 'dial-secs = 5'
		echo 'lookup-secs = 10'
		printf '%s\n' "${3:-}"
	} >"$work/$1/config.toml"
}

# daemon NAME: starts the home's daemon and waits until it is ready. Its process id is in $pid, its address in $address.
daemon() {
	say "$1\$ p2pkgs node run &"
	ready=$work/$1/ready
	: >"$ready"
	P2PKGS_HOME=$work/$1 "$p2pkgs" -q node run >"$ready" 2>"$work/$1/daemon.err" &
	pid=$!
	daemons="$daemons $pid"
	waited=0
	while [ ! -s "$ready" ]; do
		kill -0 "$pid" 2>/dev/null || fail "the daemon of $1 ended: $(cat "$work/$1/daemon.err")"
		[ "$waited" -lt 150 ] || fail "the daemon of $1 does not get ready"
		waited=$((waited + 1))
		sleep 0.2
	done
	address=$(head -n 1 "$work/$1/node.addr")
	say "$1 is $address"
}

# announced NAME: waits until the home's daemon has announced all it has.
announced() {
	waited=0
	until P2PKGS_HOME=$work/$1 "$p2pkgs" node status | tr '\n' ' ' |
		grep -q 'keys: [1-9][0-9]* in all, 0 to announce (0 overdue), 0 under way announced: [1-9]'; do
		[ "$waited" -lt 300 ] || fail "$1 cannot announce what it has"
		waited=$((waited + 1))
		sleep 0.2
	done
	P2PKGS_HOME=$work/$1 "$p2pkgs" node status | grep -e '^keys' -e '^announced' | sed 's/^/    /' >&2
}

stop() {
	kill -9 "$1"
	wait "$1" 2>/dev/null || :
}

step "Checking what is needed"
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "this works on Linux on x86_64 only"
command -v cargo >/dev/null 2>&1 || fail "cargo is missing: install Rust from https://rustup.rs"
command -v cc >/dev/null 2>&1 || fail "cc is missing: install a C compiler (build-essential, gcc, base-devel or build-base)"
if ! command -v bwrap >/dev/null 2>&1; then
	say "bubblewrap is missing: installing it"
	install_package bubblewrap bubblewrap bubblewrap bubblewrap >&2 || fail "cannot install bubblewrap"
fi

step "Building p2pkgs (some minutes the first time)"
(cd "$root" && cargo build --release)
p2pkgs=${CARGO_TARGET_DIR:-$root/target}/release/p2pkgs
export P2PKGS_TREE="$root"
unset P2PKGS_HOME P2PKGS_PROFILE P2PKGS_OFFLINE PKG_CACHE_URL PKG_FORCE_BINARY PKG_MIRROR_IPFS || :

mkdir -p "$work"
# Only the mirror's home is kept: its sources and its seed are what takes long the first time.
rm -rf "$work/meeting" "$work/builder" "$work/user" "$work/second" "$work/venv"
home mirror
in_home mirror --offline doctor || exit $?

step "A bootstrap peer: it knows nobody's content, only who is there"
home meeting
daemon meeting
meeting=$address
meeting_pid=$pid

step "A mirror: fetches the sources from their origins (the seed is made with this machine's C compiler, if nobody has it)"
home mirror "$meeting"
# shellcheck disable=SC2086 # a list of words
in_home mirror mirror seed $packages >/dev/null
in_home mirror mirror list | awk '{ bytes += $3 } END { printf "    holds %d sources, %.1f MB\n", NR, bytes / 1e6 }' >&2
daemon mirror
mirror_pid=$pid
announced mirror

step "A builder: knows only the bootstrap peer, origins are switched off"
home builder "$meeting" '[sources]
urls = false'
# shellcheck disable=SC2086 # a list of words
in_home builder build $packages >/dev/null
# shellcheck disable=SC2086
in_home builder publish $packages
key=$(P2PKGS_HOME=$work/builder "$p2pkgs" key list | awk '$1 == "own" { print $2 }')
daemon builder
builder_pid=$pid
announced builder

step "A user: knows only the bootstrap peer, and does not trust the builder yet"
home user "$meeting" '[sources]
urls = false'
set +e
in_home user fetch make
code=$?
set -e
[ "$code" -eq 4 ] || fail "expected exit code 4 without trust, got $code"
say "exit code 4: nothing is used that nobody trusted vouches for"

step "The user trusts the builder's key, and fetches: nothing is built"
in_home user key trust --name builder "$key"
# shellcheck disable=SC2086
in_home user fetch $packages >/dev/null
in_home user --offline venv "$work/venv" make lua
say "venv-run make --version:"
"$work/venv/bin/venv-run" make --version | sed 's/^/        /'
daemon user
user_pid=$pid
announced user

step "Mirror and builder are killed: a second user fetches from the first"
stop "$mirror_pid"
stop "$builder_pid"
home second "$meeting" '[sources]
urls = false'
in_home second key trust --name builder "$key"
in_home second fetch make >/dev/null
in_home second --offline run make -- make --version | sed 's/^/        /'

step "Everyone is gone: a miss ends within its deadline and says who was asked"
stop "$user_pid"
stop "$meeting_pid"
set +e
in_home second fetch lua
code=$?
set -e
[ "$code" -eq 3 ] || fail "expected exit code 3 for a miss, got $code"
say "exit code 3: not found anywhere"

step "Done in $(($(date +%s) - started)) s. Everything lies in $work"
