#!/bin/sh
# build-s3.sh [FILE]: builds the object store that the tests of package caches run against into FILE (target/interop/versitygw).
#
# The version is the one that s3/go.mod names. A program that lies there already and has this version is kept. The first build
# takes a minute or two, and its modules come through Go's own proxy and checksum database.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../../target/interop/versitygw}
# Where Go's own archive is unpacked, which few shells search.
PATH=$PATH:/usr/local/go/bin

version=$(sed -n 's|.*github.com/versity/versitygw v\([^ ]*\).*|\1|p' "$here/s3/go.mod")
if [ "$(cat "$out.version" 2>/dev/null)" = "$version" ] && [ -x "$out" ]; then
	exit 0
fi
command -v go >/dev/null || { echo "build-s3.sh: no Go on this machine" >&2; exit 1; }
mkdir -p "$(dirname "$out")"
out=$(cd "$(dirname "$out")" && pwd)/$(basename "$out")
echo "build-s3.sh: building versitygw $version" >&2
# Built beside and renamed, so that a build that was interrupted leaves nothing that looks whole.
cd "$here/s3"
CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$out.new" github.com/versity/versitygw/cmd/versitygw
mv "$out.new" "$out"
echo "$version" >"$out.version"
