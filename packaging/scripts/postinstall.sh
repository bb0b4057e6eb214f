#!/bin/sh
# deb: configure [OLD-VERSION]; rpm: 1 for an installation, 2 for an upgrade.
set -e
[ "$1" = configure ] || [ "$1" = 1 ] || [ "$1" = 2 ] || exit 0
units="kmsbrokerd-control.socket kmsbrokerd-application.socket kmsbrokerd-alibaba.socket kmsbrokerd-pkcs11.socket kmsbrokerd-metrics.socket kmsbrokerd.service"
systemd-sysusers kmsbroker.conf
systemd-tmpfiles --create kmsbroker.conf || true
if [ "$1" != 2 ] && [ -z "${2:-}" ]; then
	for unit in $units; do # one that is masked is the administrator's wish
		systemctl enable --quiet "$unit" || echo "kmsbroker: $unit is not enabled" >&2
	done
fi
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
# Callers of a daemon that is restarted wait in the sockets, which systemd keeps. One that
# was removed and is back, or is new, is started if it is enabled.
systemctl try-restart kmsbrokerd.service || echo "kmsbroker: kmsbrokerd did not start again: journalctl -u kmsbrokerd" >&2
for unit in $units; do
	if systemctl is-enabled --quiet "$unit" && ! systemctl is-active --quiet "$unit"; then
		systemctl start "$unit" || echo "kmsbroker: $unit did not start: journalctl -u $unit" >&2
	fi
done
