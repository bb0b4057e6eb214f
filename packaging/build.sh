#!/bin/bash
# Makes the deb and the rpm of what is in BIN, with the times of the commit, so that
# two builds of one commit are the same bytes.
#
#   packaging/build.sh BIN NFPM OUT
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1 nfpm=$2 out=$3
umask 022
version=${VERSION:-$("$bin/kmsbrokerd" --version | cut -d' ' -f2)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
ARCH=$(go env GOARCH)
STAGE=$(mktemp -d)
trap 'rm -rf "$STAGE"' EXIT
export SOURCE_DATE_EPOCH ARCH STAGE VERSION=$version

install -D -t "$STAGE/usr/bin" "$bin/kmsbrokerd" "$bin/kmsbrokerctl"
install -D -t "$STAGE/usr/libexec/kmsbroker/plugins" "$bin"/plugins/{softhsm,luna,dpod}
(cd "$STAGE/usr/libexec/kmsbroker/plugins" && sha256sum -- * >../SHA256SUMS && mv ../SHA256SUMS .)
install -D -m 644 -t "$STAGE/usr/lib/systemd/system" packaging/systemd/*.{service,socket}
install -D -m 644 packaging/systemd/kmsbroker.sysusers "$STAGE/usr/lib/sysusers.d/kmsbroker.conf"
install -D -m 644 packaging/systemd/kmsbroker.tmpfiles "$STAGE/usr/lib/tmpfiles.d/kmsbroker.conf"

man=$STAGE/usr/share/man
mkdir -p "$man/man1" "$man/man5" "$man/man7" "$man/man8"
go run -tags man ./cmd/kmsbrokerctl man --source "kmsbroker $version" "$man" \
	"kmsbrokerd.8=docs/kmsbrokerd.md+$bin/kmsbrokerd" kmsbrokerd.toml.5=docs/configuration.md kmsbroker-envelope.5=docs/envelope.md \
	kmsbroker-softhsm.7=plugins/softhsm/README.md kmsbroker-luna.7=plugins/luna/README.md kmsbroker-dpod.7=plugins/dpod/README.md
find "$man" -type f -exec gzip -9n {} +

share=$STAGE/usr/share
install -d "$share/bash-completion/completions" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
"$bin/kmsbrokerctl" completion bash >"$share/bash-completion/completions/kmsbrokerctl"
"$bin/kmsbrokerctl" completion zsh >"$share/zsh/vendor-completions/_kmsbrokerctl"
"$bin/kmsbrokerctl" completion fish >"$share/fish/vendor_completions.d/kmsbrokerctl.fish"

doc=$share/doc/kmsbroker
install -d "$doc"
cp -r README.md docs "$doc/"
install -m 644 LICENSE "$doc/copyright"
cp -r examples/applications "$doc/examples"
rm -rf "$doc/examples/node/node_modules"
cp -r packaging/prometheus packaging/grafana "$doc/"
find "$STAGE" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

mkdir -p "$out"
rm -f "$out"/*.deb "$out"/*.rpm
for packager in deb rpm; do
	"$nfpm" package --config packaging/nfpm.yaml --packager "$packager" --target "$out"
done
ls -1 "$out"
