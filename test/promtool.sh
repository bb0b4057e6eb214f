#!/bin/bash
# Prints the path of promtool: the one on the PATH, or the one of Debian's package, which
# is unpacked in CACHE and not installed: promtool.sh CACHE. It needs no root.
set -euo pipefail
if command -v promtool; then exit 0; fi
mkdir -p "$1"
cd "$1"
exec 9>promtool.lock
flock 9
if [ ! -x promtool ]; then
	new=$(mktemp -d "$PWD/promtool.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	chmod 755 "$new"
	if ! (cd "$new" && { apt-get download prometheus || { [ "$(id -u)" -eq 0 ] && apt-get update -q && apt-get download prometheus; }; }) >"$new.log" 2>&1; then
		cat "$new.log" >&2
		echo "promtool.sh: install promtool (Debian's package prometheus has it) and put it on the PATH" >&2
		exit 1
	fi
	rm -f "$new.log"
	dpkg-deb -x "$new"/prometheus_*.deb "$new/root"
	mv "$new/root/usr/bin/promtool" promtool
fi
echo "$PWD/promtool"
