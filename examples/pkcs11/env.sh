# What the recipes here need to know, unless the environment says otherwise.

# The socket that p11-kit-client.so connects to.
: "${P11_KIT_SERVER_ADDRESS:=unix:path=/run/kmsbroker/pkcs11.sock}"

# Where the distribution has put p11-kit-client.so.
if [ -z "${MODULE:-}" ]; then
	for MODULE in /usr/lib/*/pkcs11/p11-kit-client.so /usr/lib64/pkcs11/p11-kit-client.so; do
		[ -e "$MODULE" ] && break
	done
fi

# Tools insist on a PIN. The broker does not look at it: it knows who calls.
: "${PIN:=0000}"

export P11_KIT_SERVER_ADDRESS MODULE PIN
