#!/bin/bash
# Starts what the demo starts, imports the key "payments", and stays up.
set -euo pipefail
. "$(dirname "$0")/stage.sh"

make_token
start_emulator
start_daemon
admin key import payments --backend hsm --alias alias/payments >/dev/null
cat <<EOF

kmsbroker is up. Ctrl-C ends it and removes everything.

    control socket      $control
    application socket  $application
    KMS endpoint        $endpoint (access key in $stage/credentials.toml)
    log                 $stage/kmsbrokerd.log

Try:

    $bin/kmsbrokerctl --socket $control status
    echo hello | $bin/kmsbrokerctl --socket $application encrypt --key payments
    $bin/kmsbrokerctl --socket $control key import another --backend hsm

EOF
wait "$daemon_pid"
