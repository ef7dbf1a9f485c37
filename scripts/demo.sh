#!/bin/sh
# The main job, on real software and with real processes: a mirror, a meeting point, a builder and two users, each with a
# home of its own, find and fetch sources and packages from each other over loopback.
#
#   sh scripts/demo.sh
#
# The first run compiles p2pkgs and rebuilds the seed from the machine's C compiler; what is expensive is kept in
# ${XDG_CACHE_HOME:-~/.cache}/p2pkgs-demo for the next run. Delete that folder to start from nothing.
set -eu
cd "$(dirname "$0")/.."
. scripts/setup.sh

packages="make lua hello"
work=${XDG_CACHE_HOME:-$HOME/.cache}/p2pkgs-demo
tree=$PWD
daemons=

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n== %s\n' "$*"; }
run() { printf '$ p2pkgs %s\n' "$*"; "$p2pkgs" "$@"; }

# at HOME COMMAND...: one command in one home, which starts from the meeting point alone. Its own settings are the only ones.
at() {
    home=$1; shift
    ( export P2PKGS_HOME="$work/$home" P2PKGS_TREE="$tree" P2PKGS_PROFILE=lan P2PKGS_NETWORK_BOOTSTRAP="${meeting:-}"; "$@" )
}

# start HOME: its daemon, in the background; returns when it listens. Sets `address` and `pid`.
start() {
    mkdir -p "$work/$1"
    rm -f "$work/$1/ready"
    mkfifo "$work/$1/ready"
    at "$1" exec "$p2pkgs" -q node run --listen /ip4/127.0.0.1/tcp/0 >"$work/$1/ready" 2>"$work/$1/daemon.log" &
    pid=$!
    daemons="$daemons $pid"
    read -r ready <"$work/$1/ready" || { cat "$work/$1/daemon.log" >&2; exit 1; }
    address=$(printf '%s' "$ready" | sed 's/.*"addrs":\["\([^"]*\)".*/\1/')
    echo "daemon of the $1: $address"
}

# announced HOME: returns when its daemon has announced all that it holds.
announced() {
    tries=600
    until at "$1" "$p2pkgs" node status 2>/dev/null | grep -q '^to announce: 0 waiting, 0 under way'; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "error: the $1 did not finish announcing" >&2; exit 1; }
        sleep 0.2
    done
    at "$1" "$p2pkgs" node status | grep '^to announce'
}

stop() { for p in "$@"; do kill "$p" 2>/dev/null || true; wait "$p" 2>/dev/null || true; done; }
trap 'stop $daemons' EXIT
trap 'exit 130' INT TERM

say "What this machine needs"
need_rust_and_cc
need_bubblewrap
bwrap --version

say "Compiling p2pkgs"
cargo build --release --locked
p2pkgs=${CARGO_TARGET_DIR:-target}/release/p2pkgs

mkdir -p "$work"
# Everybody but the mirror starts from nothing each time.
rm -rf "$work/meeting" "$work/builder" "$work/user" "$work/second" "$work/venv"

say "The mirror rebuilds the seed from this machine's C compiler, and compares it with the pinned sha256"
at mirror run bootstrap rebuild tiny

say "The mirror fetches the sources of the whole tree from their origins"
at mirror run mirror seed --all >/dev/null

say "A meeting point that knows nobody's content; the mirror joins through it"
start meeting
meeting=$address
start mirror
mirror_pid=$pid
announced mirror

say "The builder knows only the meeting point; origins are switched off. Sources come through the DHT from the mirror"
export P2PKGS_SOURCES_URLS=false
# shellcheck disable=SC2086 # several names
at builder run build $packages
say "The builder signs what it built and announces it"
at builder run publish $packages
key=$(at builder "$p2pkgs" key list | sed -n 's/^own[[:space:]]*\([^[:space:]]*\).*/\1/p' | head -n 1)
start builder
builder_pid=$pid
announced builder

say "A user who trusts nobody gets no package, but a hint (exit code 4)"
if at user run fetch make; then echo "error: fetched without trust" >&2; exit 1; else [ $? = 4 ]; fi
say "The user trusts the builder's key, fetches from peers, and builds nothing"
at user run key trust "$key" --name builder
at user run fetch $packages
at user run venv "$work/venv" make
say "make --version, in a venv of the fetched package"
"$work/venv/bin/venv-run" make --version | head -n 1
start user
announced user

say "Mirror and builder are killed. Another user fetches the same packages from the first one"
kill -9 "$mirror_pid" "$builder_pid"
at second run key trust "$key" --name builder
at second run fetch $packages
at second run run lua -- lua -e 'print("hello from " .. _VERSION)'

say "Everyone is gone. A miss ends in time, with exit code 3, and says who was asked"
stop $daemons
daemons=
if at second run fetch tree; then echo "error: fetched from nobody" >&2; exit 1; else [ $? = 3 ]; fi

say "Done. The homes lie in $work"
