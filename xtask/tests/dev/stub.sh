#!/bin/sh
# Stands for each program of a simulated system; the name it is started by says which one it is. Notes
# the call in STUB_LOG; a package manager also brings the programs of the packages it is asked for.
#
# STUB_SYSTEM   what uname says
# STUB_UID      who id says the user is
# STUB_RUST     the version of rustc, also of the one that rustup's installer brings
# STUB_FAILS    a pattern; calls that match it fail
# STUB_EMPTY    not empty where packages bring nothing
# STUB_BIN      the system's folder of programs, with this script in it, named `stub`
# STUB_PATH     where the real programs are that this script needs itself
set -eu

name=${0##*/}
call="$name${*:+ $*}"

# Programs that only say what the system is are no calls of interest.
case $name in
uname | id | rustc) ;;
*) printf '%s\n' "$call" >>"$STUB_LOG" ;;
esac

# Unquoted, so that it is a pattern.
# shellcheck disable=SC2254
case $call in
$STUB_FAILS)
    echo "stub: $call fails" >&2
    exit 1
    ;;
esac

# bring FOLDER PROGRAM...
bring() (
    PATH=$STUB_PATH
    folder=$1
    shift
    mkdir -p "$folder"
    for program in "$@"; do ln -sf "$STUB_BIN/stub" "$folder/$program"; done
)

# Only the names that the system's own packages have: a package manager refuses all others.
install_package() {
    case "$name $1" in
    'dnf gcc-c++') bring "$STUB_BIN" c++ g++ ;;
    'apt-get build-essential') bring "$STUB_BIN" c++ g++ make ;;
    'dnf make') bring "$STUB_BIN" make ;;
    'dnf cmake' | 'apt-get cmake' | 'brew cmake') bring "$STUB_BIN" cmake ;;
    'dnf pkgconf-pkg-config' | 'apt-get pkg-config' | 'brew pkgconf') bring "$STUB_BIN" pkg-config pkgconf ;;
    'dnf curl' | 'apt-get curl') bring "$STUB_BIN" curl ;;
    'dnf clang' | 'dnf clang-devel' | 'apt-get libclang-dev' | 'brew llvm') ;;
    'dnf ca-certificates' | 'apt-get ca-certificates') ;;
    *)
        echo "stub: $name has no package $1" >&2
        exit 1
        ;;
    esac
}

case $name in
uname) echo "$STUB_SYSTEM" ;;
id) echo "$STUB_UID" ;;
rustc) echo "rustc $STUB_RUST (0123456789 2026-01-01)" ;;
sudo)
    if [ "$1" = -n ]; then shift; fi
    exec "$@"
    ;;
dnf | apt-get | brew)
    if [ "$1" != install ] || [ -n "$STUB_EMPTY" ]; then exit 0; fi
    shift
    for argument in "$@"; do
        case $argument in
        -*) ;;
        *) install_package "$argument" ;;
        esac
    done
    ;;
curl)
    # What comes after -o is the file to write: an installer, which this script is as well.
    while [ "$1" != -o ]; do shift; done
    bring "${2%/*}" "${2##*/}"
    ;;
rustup-init.sh) bring "${CARGO_HOME:-$HOME/.cargo}/bin" cargo rustc ;;
esac
