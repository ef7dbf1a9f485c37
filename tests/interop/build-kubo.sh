#!/bin/sh
# build-kubo.sh [FILE]: builds the Kubo that the interoperability tests run against into FILE (target/interop/ipfs).
#
# The version is the one that kubo/go.mod names. A program that lies there already and has this version is kept. The first
# build takes minutes, and its modules come through Go's own proxy and checksum database.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../../target/interop/ipfs}
# Where Go's own archive is unpacked, which few shells search.
PATH=$PATH:/usr/local/go/bin

version=$(sed -n 's|^require github.com/ipfs/kubo v\([^ ]*\).*|\1|p' "$here/kubo/go.mod")
if [ "$("$out" version --number 2>/dev/null)" = "$version" ]; then
	exit 0
fi
command -v go >/dev/null || { echo "build-kubo.sh: no Go on this machine" >&2; exit 1; }
mkdir -p "$(dirname "$out")"
out=$(cd "$(dirname "$out")" && pwd)/$(basename "$out")
echo "build-kubo.sh: building Kubo $version" >&2
# Built beside and renamed, so that a build that was interrupted leaves nothing that looks whole.
cd "$here/kubo"
CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$out.new" github.com/ipfs/kubo/cmd/ipfs
mv "$out.new" "$out"
