#!/bin/sh
# GnuTLS: makes an elliptic curve key in the HSM and a certificate request for it,
# DIR/request.pem.
#
#   p11tool.sh TOKEN KEY DIR
set -eu
token=${1:?usage: p11tool.sh TOKEN KEY DIR} key=$2 dir=$3
. "$(dirname "$0")/env.sh"
export GNUTLS_PIN="$PIN"

p11tool --provider "$MODULE" --login --generate-privkey ecdsa --curve secp256r1 --label "$key" --id 02 \
	--outfile "$dir/public.pem" "pkcs11:token=$token"
p11tool --provider "$MODULE" --login --test-sign "pkcs11:token=$token;object=$key;type=private"
p11tool --provider "$MODULE" --generate-random 32 --outfile "$dir/random" "pkcs11:token=$token"
printf 'cn = "%s"\ndns_name = "%s.example"\nsigning_key\n' "$key" "$key" >"$dir/request.template"
certtool --provider "$MODULE" --generate-request --template "$dir/request.template" --outfile "$dir/request.pem" \
	--load-privkey "pkcs11:token=$token;object=$key;type=private" --load-pubkey "pkcs11:token=$token;object=$key;type=public"
p11tool --provider "$MODULE" --login --list-all "pkcs11:token=$token"
