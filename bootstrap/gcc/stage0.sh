#!/bin/sh
# Stage 0 of the gcc seed, one package at a time: from the host's compiler to a tree that can build itself.
#
# The recipe's own build script runs as it does in every later stage, in the same folder. What it needs of the packages
# built before lies in $STAGE and not in the root. Until that has a gcc, `cc' is the host's; from then on the new one.
# The host lends a C and C++ compiler with static libraries, make, patch, ar, and the usual tools.
#
#   /src/NAME   (read-only)  the build script, the sources and the contents of files/ of the recipe NAME
#   /stage      (read-only)  the packages built so far
#   $HOME       where the recipe is built
#   $DESTDIR    its output
#   $CC         the host's C compiler with its options
#   $CXX        its C++ compiler; guessed from $CC if unset
set -eu

export STAGE=/stage
tools=/tmp/tools
mkdir "$tools"

# tool NAME COMMAND: a program of that name which finds what it calls itself where the host has it.
tool() {
	cat >"$tools/$1" <<END
#!/bin/sh
PATH='$PATH'
exec $2 "\$@"
END
	chmod 755 "$tools/$1"
}

# The C++ compiler that goes with a C compiler: g++-12 with gcc-12, clang++ with clang.
cxx() {
	program=${1%% *}
	case ${program##*/} in
	gcc*) name=g++${program##*/gcc} ;;
	clang*) name=clang++${program##*/clang} ;;
	*) name=c++ ;;
	esac
	case $program in
	*/*) name=${program%/*}/$name ;;
	esac
	case $1 in
	*' '*) name="$name ${1#* }" ;;
	esac
	echo "$name"
}

cp -R /src/*/. .
chmod -R u+w .
if [ -x "$STAGE/bin/gcc" ]; then
	# The new compiler looks for headers and libraries below the root unless told where they are. What it links is to
	# run here, where there is no dynamic linker of musl's, but musl links that linker itself.
	static=-static
	[ ! -e /src/gcc-musl ] || static=
	PATH=$STAGE/bin:$PATH
	tool cc "$STAGE/bin/gcc --sysroot=$STAGE $static"
	tool c++ "$STAGE/bin/g++ --sysroot=$STAGE $static"
else
	cc=${CC:-cc}
	tool cc "$cc"
	tool c++ "${CXX:-$(cxx "$cc")}"
	[ ! -d "$STAGE/bin" ] || PATH=$STAGE/bin:$PATH
fi
unset CC CXX
export PATH="$tools:$PATH"
exec sh ./build
