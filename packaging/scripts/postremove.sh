#!/bin/sh
# deb: remove, upgrade, purge; rpm: 0 or 1.
set -e
if [ "$1" = purge ] && [ -e /var/lib/kmsbroker ]; then
	# It says which CMK belongs to which HSM key, and what was done with them.
	echo "kmsbroker: /var/lib/kmsbroker stays: the key registry and the audit trail. Remove it yourself when no key needs it." >&2
fi
[ ! -d /run/systemd/system ] || systemctl daemon-reload
