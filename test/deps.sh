#!/bin/bash
# Installs the Debian packages that building and testing need, when they are
# missing and this user can; says exactly what to install otherwise.
set -euo pipefail

missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v softhsm2-util >/dev/null || missing+=(softhsm2)

if ! command -v go >/dev/null; then
	echo "deps: Go is missing. Install Go 1.26 or later from https://go.dev/dl/ and put it on PATH." >&2
	exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	as_root=(sudo -n)
	if ! sudo -n true 2>/dev/null; then
		echo "deps: these packages are missing and this user cannot install them. Run:" >&2
		echo "    sudo apt-get install -y ${missing[*]}" >&2
		exit 1
	fi
fi
echo "deps: installing ${missing[*]}"
"${as_root[@]}" apt-get update -q >/dev/null
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
