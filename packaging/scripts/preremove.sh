#!/bin/sh
# deb: remove; rpm: 0. An upgrade leaves the service running.
set -e
[ "$1" = remove ] || [ "$1" = 0 ] || exit 0
[ -d /run/systemd/system ] || exit 0
systemctl disable --quiet --now kmsbrokerd-control.socket kmsbrokerd-application.socket kmsbrokerd-alibaba.socket \
	kmsbrokerd-metrics.socket kmsbrokerd.service
