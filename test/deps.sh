#!/bin/bash
# Installs the Debian packages that building and testing need, when they are
# missing and this user can; says exactly what to install otherwise. With the
# argument "system" also those of `make test-system`.
set -euo pipefail

missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v softhsm2-util >/dev/null || missing+=(softhsm2)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v python3 >/dev/null || missing+=(python3)
command -v curl >/dev/null || missing+=(curl)
[ -e /usr/include/openssl/evp.h ] || missing+=(libssl-dev)
[ -e /usr/include/p11-kit-1/p11-kit/pkcs11.h ] || missing+=(libp11-kit-dev)
# What calls the PKCS#11 socket, and p11-kit's own server beside it.
command -v p11-kit >/dev/null || missing+=(p11-kit)
exists() { [ -e "$1" ]; }
exists /usr/lib/*/pkcs11/p11-kit-client.so || missing+=(p11-kit-modules)
exists /usr/lib/*/engines-3/pkcs11.so || missing+=(libengine-pkcs11-openssl)
command -v pkcs11-tool >/dev/null || missing+=(opensc)
command -v certtool >/dev/null || missing+=(gnutls-bin)
command -v openssl >/dev/null || missing+=(openssl)
command -v ssh-add >/dev/null || missing+=(openssh-client)
command -v git >/dev/null || missing+=(git)
command -v javac >/dev/null || missing+=(default-jdk-headless)
if [ "${1:-}" = system ]; then
	command -v pkcsslotd >/dev/null || missing+=(opencryptoki)
	command -v debootstrap >/dev/null || missing+=(debootstrap)
	command -v rpm >/dev/null || missing+=(rpm)
	command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
fi

if ! command -v go >/dev/null; then
	echo "deps: Go is missing. Install Go 1.26 or later from https://go.dev/dl/ and put it on PATH." >&2
	exit 1
fi
needed=$(sed -n 's/^go //p' "$(dirname "$0")/../go.mod")
have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//')
if [ "$(printf '%s\n' "$needed" "${have:-0}" | sort -V | head -1)" != "$needed" ]; then
	echo "deps: Go $needed or later is needed, this is ${have:-unknown}. Install it from https://go.dev/dl/ and put it on PATH." >&2
	exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	as_root=(sudo -n)
	if ! sudo -n true 2>/dev/null; then
		echo "deps: these packages are missing and this user cannot install them. Run:" >&2
		echo "    sudo apt-get install -y ${missing[*]}      (or the same as root)" >&2
		exit 1
	fi
fi
echo "deps: installing ${missing[*]}"
trap 'echo "deps: installing ${missing[*]} failed, see above; install them by hand and repeat" >&2' ERR
"${as_root[@]}" apt-get update -q >/dev/null
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
