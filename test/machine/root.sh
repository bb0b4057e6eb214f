#!/bin/bash
# Makes the Debian root that machines boot, unless it is there already, and prints
# its path: root.sh CACHE. It is kept under the checksum of this file, so that
# another recipe makes another root. Needs root and debootstrap.
set -euo pipefail

cache=$(mkdir -p "$1" && cd "$1" && pwd)
root=$cache/$(sha256sum <"$0" | cut -c1-16)

exec 9>"$cache/lock"
flock 9
if [ ! -d "$root" ]; then
	echo "root.sh: making a Debian root in $root, which takes a minute or two" >&2
	find "$cache" -mindepth 1 -maxdepth 1 -type d -exec rm -rf --one-file-system {} +
	# systemd for user units too: libpam-systemd and dbus-user-session.
	if ! debootstrap --variant=minbase \
		--include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,softhsm2 \
		bookworm "$cache/new" http://deb.debian.org/debian >"$cache/log" 2>&1; then
		tail -20 "$cache/log" "$cache/new/debootstrap/debootstrap.log" >&2 || true
		echo "root.sh: debootstrap failed, see above; it needs deb.debian.org" >&2
		exit 1
	fi
	# Machines have no network, and live too short for what is done once a day.
	chroot "$cache/new" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer
	echo machine >"$cache/new/etc/hostname"
	rm -f "$cache/new"/var/cache/apt/archives/*.deb
	mv "$cache/new" "$root"
fi
echo "$root"
