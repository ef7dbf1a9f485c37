# Sourced by demo.sh and test.sh: installs a package of the distribution that is missing.
# shellcheck shell=sh

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		printf 'cannot run as root (no sudo here): %s\n' "$*" >&2
		return 1
	fi
}

# install_package DEBIAN FEDORA ARCH ALPINE: the package's name on each.
install_package() {
	if command -v apt-get >/dev/null 2>&1; then
		as_root apt-get install -y "$1" || { as_root apt-get update && as_root apt-get install -y "$1"; }
	elif command -v dnf >/dev/null 2>&1; then
		as_root dnf install -y "$2"
	elif command -v pacman >/dev/null 2>&1; then
		as_root pacman -S --needed --noconfirm "$3"
	elif command -v apk >/dev/null 2>&1; then
		as_root apk add "$4"
	else
		printf 'no apt-get, dnf, pacman or apk here: install %s yourself\n' "$1" >&2
		return 1
	fi
}
