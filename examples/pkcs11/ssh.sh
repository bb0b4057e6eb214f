#!/bin/sh
# The OpenSSH client with keys that are in the HSM. `ssh-keygen -D "$MODULE"` prints
# them as authorized_keys wants them.
#
#   ssh.sh [OPTION]... HOST [COMMAND]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
export SSH_ASKPASS="$here/askpass.sh" SSH_ASKPASS_REQUIRE=force
exec ssh -o PKCS11Provider="$MODULE" -o IdentityFile=none "$@"
