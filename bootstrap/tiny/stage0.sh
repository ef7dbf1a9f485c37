#!/bin/sh
# Stage 0 of the tiny seed: from the host's C compiler to a tree that can build itself.
#
# It runs the build scripts of the seed's own recipes, in the one order in which each finds what it needs. The host lends
# a C compiler, sh, awk, sed, grep, find, sort, tar, gzip, bzip2 and the usual file tools: no make, no patch, no static libc.
#
#   /src/NAME   (read-only)  the build script, the sources and the contents of files/ of the recipe NAME
#   $HOME       scratch
#   $DESTDIR    the resulting tree
#   $CC         the host's C compiler with its options, `cc' if unset
set -eu

tools=$HOME/tools
toolchain=$HOME/toolchain
mkdir -p "$tools" "$toolchain"

# The compiler by the name the recipes use, looked for where this script itself is not. Only the recipe tcc is built with it.
cat >"$tools/cc" <<END
#!/bin/sh
PATH='$PATH'
exec ${CC:-cc} -w "\$@"
END

# Not every host has patch. This one takes `patch -p1 <FILE' and no less than an exact match.
cat >"$tools/patch" <<'END'
#!/bin/sh
exec awk '
function finish() {
	if (out == "") return
	while (at < lines) print old[++at] >tmp
	close(tmp)
	if (system("cat \"" tmp "\" >\"" out "\" && rm \"" tmp "\"")) failed("cannot write")
	out = ""
}
function failed(why) {
	print "patch: " out ": " why " (line " NR ")" >"/dev/stderr"
	exit 1
}
/^--- / { finish(); from = $2; next }
/^\+\+\+ / {
	out = $2; sub("^[^/]*/", "", out); tmp = out ".new"
	sub("^[^/]*/", "", from)
	at = lines = left = 0
	if (system("test -f \"" from "\"") == 0) {
		while ((getline line <from) > 0) old[++lines] = line
		close(from)
	} else {
		dir = out; sub("/[^/]*$", "", dir)
		system("mkdir -p \"" dir "\"")
	}
	printf "" >tmp
	next
}
/^@@ / {
	split($2, range, ","); start = -range[1]
	while (at < start - 1) print old[++at] >tmp
	next
}
/^\+/ { print substr($0, 2) >tmp; next }
/^[- ]/ {
	if (old[++at] != substr($0, 2)) failed("does not match")
	if (/^ /) print substr($0, 2) >tmp
}
END { finish() }
'
END
chmod 755 "$tools/cc" "$tools/patch"

# build NAME PREFIX: run the recipe's build script as the sandbox does, with PREFIX for $DESTDIR.
build() {
	echo "stage 0: $1" >&2
	rm -rf "$HOME/work"
	mkdir "$HOME/work"
	cp -R "/src/$1/." "$HOME/work/"
	chmod -R u+w "$HOME/work"
	(cd "$HOME/work" && DESTDIR=$2 sh ./build)
}

host_path=$PATH
PATH=$tools:$host_path
build tcc "$toolchain"
rm "$tools/cc"

# From here on `cc' is tcc, and what it writes no longer depends on the compiler that built it.
PATH=$toolchain/bin:$DESTDIR/bin:$tools:$host_path
build musl "$toolchain"
build make "$DESTDIR"
build tcc "$DESTDIR"
build busybox "$DESTDIR"
cp -R "$toolchain/include" "$DESTDIR/"
cp "$toolchain"/lib/*.[ao] "$DESTDIR/lib/"
rm -rf "$HOME/work" "$tools" "$toolchain"
