#!/bin/sh
# deb: remove; rpm: 0. An upgrade leaves the service running.
set -e
[ "$1" = remove ] || [ "$1" = 0 ] || exit 0
if [ -d /run/systemd/system ]; then
	# The sockets first, those of clusters too: a caller would start the service again.
	systemctl stop 'kmsbrokerd-*.socket' kmsbrokerd.service
fi
if [ "$1" = 0 ]; then # an rpm has no purge
	find /etc/systemd/system -type l -name 'kmsbrokerd*' -delete
fi
