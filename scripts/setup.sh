# Sourced by demo.sh and test.sh: finds or installs what they need and says so. POSIX sh, no output on success.

need_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"
    else echo "error: please run as root: $*" >&2; return 1; fi
}

# install_packages NAME...: with the machine's package manager; names are the same on Debian, Fedora, Arch and Alpine.
install_packages() {
    echo "installing: $*" >&2
    if command -v apt-get >/dev/null; then
        need_root env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -q && apt-get install -qy "$@"' sh "$@"
    elif command -v dnf >/dev/null; then need_root dnf install -qy "$@"
    elif command -v pacman >/dev/null; then need_root pacman -Sy --noconfirm --needed "$@"
    elif command -v apk >/dev/null; then need_root apk add -q "$@"
    else echo "error: no apt-get, dnf, pacman or apk here; install $* by hand" >&2; return 1
    fi >&2
}

need_bubblewrap() { command -v bwrap >/dev/null || install_packages bubblewrap; }

need_rust_and_cc() {
    command -v cargo >/dev/null || { echo "error: cargo is missing; see https://rustup.rs" >&2; return 1; }
    command -v cc >/dev/null || { echo "error: a C compiler (cc) is missing" >&2; return 1; }
}
