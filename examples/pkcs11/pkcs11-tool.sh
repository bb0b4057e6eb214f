#!/bin/sh
# OpenSC's pkcs11-tool: makes an RSA key in the HSM, writes its public half to
# DIR/public.der, and signs what it reads into DIR/signature.
#
#   echo message | pkcs11-tool.sh TOKEN KEY DIR
set -eu
token=${1:?usage: pkcs11-tool.sh TOKEN KEY DIR} key=$2 dir=$3
. "$(dirname "$0")/env.sh"

# --pin is seen by who lists processes, which does not matter for a PIN that is none.
tool() { pkcs11-tool --module "$MODULE" --token-label "$token" --login --pin "$PIN" "$@"; }

tool --keypairgen --key-type rsa:2048 --label "$key" --id 01 --usage-sign
tool --read-object --type pubkey --label "$key" --output-file "$dir/public.der"
tool --sign --mechanism SHA256-RSA-PKCS --label "$key" --output-file "$dir/signature"
tool --list-objects
