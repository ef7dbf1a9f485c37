#!/bin/sh
# Runs a command with this environment's top-level directories laid over those of the host.
#
# The command sees the host as it is, at the same paths, except that /bin, /lib, /share ... are this environment's, where it
# has them. What is hidden by that lies below /.host. Works for root and for ordinary users; needs bubblewrap.
set -eu

if [ $# -eq 0 ]; then
	echo "usage: $0 COMMAND [ARGUMENT...]" >&2
	exit 2
fi
if ! command -v bwrap >/dev/null 2>&1; then
	echo "venv-run: the program bwrap (bubblewrap) is not installed" >&2
	exit 8
fi

# link PATH: what a symbolic link points to, even if that ends in a newline.
link() {
	target=$(readlink "$1" && echo x)
	target=${target%?x}
}

# This script may be called by way of links; the environment lies where the script itself lies.
self=$0
while [ -h "$self" ]; do
	link "$self"
	case $target in
	/*) self=$target ;;
	*/*) self=${self%/*}/$target ;;
	*) case $self in */*) self=${self%/*}/$target ;; *) self=$target ;; esac ;;
	esac
done
case $self in */*) ;; *) self=./$self ;; esac
here=$(CDPATH='' cd "${self%/*}/.." && pwd -P && echo x)
here=${here%?x}

# Options are put before what is there already: what is handled last here, bwrap sees first.
set -- --chdir "$PWD" -- "$@"

covered=' '
path=
for name in bin etc include lib libexec sbin share usr var; do
	if [ -h "$here/$name" ]; then
		link "$here/$name"
		set -- --symlink "$target" "/$name" "$@"
	elif [ -d "$here/$name" ]; then
		set -- --dev-bind "$here/$name" "/$name" "$@"
	else
		continue
	fi
	covered="$covered$name "
	case $name in
	bin | sbin) path=$path/$name: ;;
	usr) path=$path/usr/bin: ;;
	esac
done

# A link of the host, as /bin is on many systems, becomes a link again, unless it is covered: then the environment's
# directory takes its place, and /usr/bin, where it pointed, stays as it is.
for name in /*; do
	name=${name#/}
	case $covered in *" $name "*) continue ;; esac
	if [ -h "/$name" ]; then
		link "/$name"
		set -- --symlink "$target" "/$name" "$@"
	else
		set -- --dev-bind-try "/$name" "/$name" "$@"
	fi
done

PATH=$path${PATH:-/usr/bin}:/.host/usr/bin:/.host/bin
export PATH
exec bwrap --dev-bind / /.host "$@"
