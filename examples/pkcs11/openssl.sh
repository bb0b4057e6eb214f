#!/bin/sh
# OpenSSL 3 with the engine pkcs11 (Debian: libengine-pkcs11-openssl): with a key that
# is in the HSM, makes a certificate request, a certificate, a signature of what it
# reads, and a CMS message with what it reads. The certificate also goes to the token,
# where Java looks for it.
#
#   echo message | openssl.sh TOKEN KEY DIR
set -eu
token=${1:?usage: openssl.sh TOKEN KEY DIR} key=$2 dir=$3
. "$(dirname "$0")/env.sh"
export PKCS11_MODULE_PATH="$MODULE" # which the engine loads
uri="pkcs11:token=$token;object=$key;type=private;pin-value=$PIN"
cat >"$dir/message"

openssl req -new -engine pkcs11 -keyform engine -key "$uri" -sha256 -subj "/CN=$key" -out "$dir/request.pem"
openssl req -new -x509 -engine pkcs11 -keyform engine -key "$uri" -sha256 -subj "/CN=$key" -days 30 -out "$dir/certificate.pem"
openssl dgst -engine pkcs11 -keyform engine -sign "$uri" -sha256 -out "$dir/signature" "$dir/message"
openssl cms -sign -nodetach -binary -engine pkcs11 -keyform engine -inkey "$uri" -signer "$dir/certificate.pem" \
	-in "$dir/message" -outform PEM -out "$dir/message.cms"

openssl x509 -in "$dir/certificate.pem" -outform DER -out "$dir/certificate.der"
pkcs11-tool --module "$MODULE" --token-label "$token" --login --pin "$PIN" \
	--write-object "$dir/certificate.der" --type cert --label "$key" --id 01
