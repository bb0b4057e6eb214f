#!/bin/sh
# deb: configure [OLD-VERSION]; rpm: 1 for an installation, 2 for an upgrade.
set -e
[ "$1" = configure ] || [ "$1" = 1 ] || [ "$1" = 2 ] || exit 0
systemd-sysusers kmsbroker.conf
systemd-tmpfiles --create kmsbroker.conf || true
[ -d /run/systemd/system ] || exit 0
sockets="kmsbrokerd-control.socket kmsbrokerd-application.socket kmsbrokerd-alibaba.socket kmsbrokerd-metrics.socket"
systemctl daemon-reload
if [ "$1" = 2 ] || [ -n "${2:-}" ]; then
	# Its callers wait in the sockets, which systemd keeps.
	systemctl try-restart kmsbrokerd.service || echo "kmsbroker: kmsbrokerd did not start again: journalctl -u kmsbrokerd" >&2
else
	systemctl enable --quiet --now $sockets
	systemctl enable --quiet kmsbrokerd.service
	systemctl start kmsbrokerd.service || echo "kmsbroker: kmsbrokerd did not start: journalctl -u kmsbrokerd" >&2
fi
