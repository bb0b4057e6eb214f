#!/bin/sh
# Builds the simulator: build.sh OUTPUT. Needs the Debian packages gcc,
# libc6-dev, libssl-dev and libp11-kit-dev. The output is replaced whole, so that
# a program that has it loaded is not disturbed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$(dirname "$1")"
trap 'rm -f "$1.$$"' EXIT
cc -std=c11 -D_GNU_SOURCE -O2 -g -fPIC -shared -fvisibility=hidden -Wall -Wextra -Werror \
	-I/usr/include/p11-kit-1 -o "$1.$$" "$here"/cryptoki/*.c -lcrypto -ldl -lpthread
mv "$1.$$" "$1"
