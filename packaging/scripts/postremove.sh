#!/bin/sh
# deb: remove, upgrade, purge; rpm: 0 or 1.
set -e
if [ "$1" = purge ]; then
	# Units that were enabled, of which there are none any more.
	find /etc/systemd/system -type l -name 'kmsbrokerd*' -delete
	if [ -e /var/lib/kmsbroker ]; then
		# It says which CMK belongs to which HSM key, and what was done with them.
		echo "kmsbroker: /var/lib/kmsbroker stays: the key registry and the audit trail. Remove it yourself when no key needs it." >&2
	fi
	for left in /etc/kmsbroker /etc/systemd/system/kmsbrokerd.service.d; do
		[ ! -e "$left" ] || echo "kmsbroker: $left stays, with what was put there, PINs and access keys perhaps." >&2
	done
fi
[ ! -d /run/systemd/system ] || systemctl daemon-reload
