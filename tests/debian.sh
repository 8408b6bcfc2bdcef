#!/usr/bin/env bash
# README's two commands on a Debian that has nothing yet: make migrate, make test.
#   tests/debian.sh [SUITE [ARGS of pytest]]     trixie and all tests by default
# Takes root, debootstrap and 3 GB; DEBIAN_MIRROR names another mirror. The system lives in a temporary directory and in
# namespaces of its own, which end all that was started in it. Not a part of `make test`: it needs a quarter to half an hour.
set -euo pipefail
suite=${1:-trixie}
shift || true
checkout=$(cd "$(dirname "$0")/.." && pwd)
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
root=$(mktemp -d)
chmod 755 "$root" # it becomes the / of accounts other than root, too
trap 'rm -rf --one-file-system "$root"' EXIT

debootstrap --variant=minbase --include=ca-certificates,git,make,python3,python3-venv "$suite" "$root" "$mirror" >&2
git clone --quiet "$checkout" "$root/tidemark"
# What this machine needs to reach mirror and package index: its resolver and its certificates.
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

said() { # what is timed, and the command
    local name=$1 start=$SECONDS
    shift
    "$@"
    echo "$suite: $name took $((SECONDS - start)) s"
}
inside() {
    unshare --mount --pid --fork --kill-child -- sh -c '
        mount --make-rprivate / && mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" &&
        mount -t tmpfs tmpfs "$0/dev/shm"
        exec chroot "$0" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c "cd /tidemark && $1"
    ' "$root" "$1"
}
inside 'python3 --version'
said 'make migrate' inside 'make migrate'
said 'make test' inside "make test ARGS='$*'"
