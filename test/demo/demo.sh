#!/bin/bash
# Shows kmsbroker end to end on this machine: a key born in an HSM becomes an
# Enabled CMK, a local application encrypts with it, one caller is refused, and a
# crashed HSM plugin is replaced. Ends with "demo: ok".
set -euo pipefail
. "$(dirname "$0")/stage.sh"

say() { printf '\n== %s\n' "$*"; }

say "A SoftHSM token, an emulated Alibaba Cloud KMS and kmsbrokerd"
make_token
start_emulator
start_daemon
echo "KMS emulator at $endpoint, sockets in $stage/run"

say "Generate a key in the HSM and import it: kmsbrokerctl key import payments --backend hsm"
admin key import payments --backend hsm --alias alias/payments --expires 90d || fail "the import"
admin -o json key show payments | grep -q '"state": "Enabled"' || fail "the key is not Enabled"

say "An application encrypts and decrypts a file through its socket"
echo "the quick brown fox" >"$stage/plain"
app encrypt --key payments --context purpose=demo --in "$stage/plain" --out "$stage/sealed"
app decrypt --context purpose=demo --in "$stage/sealed" --out "$stage/opened"
cmp "$stage/plain" "$stage/opened" || fail "the file came back different"
echo "encrypted to $(wc -c <"$stage/sealed") bytes, decrypted, and equal"

say "The HSM plugin is killed; the next import works"
pid=$(admin -o json backend show hsm | sed -n 's/^ *"pid": \([0-9]*\),*$/\1/p')
kill -KILL "$pid"
admin key import vault --backend hsm >/dev/null || fail "the import after the crash"
echo "plugin process $pid was killed, now: $(admin -o json backend show hsm | sed -n 's/^ *"pid": \([0-9]*\),*$/\1/p')"

say "A caller without a grant is refused"
status=0
app encrypt --key vault --in "$stage/plain" || status=$?
[ "$status" -eq 4 ] || fail "encrypting without a grant ended with status $status, not 4"

say "All keys"
admin key list
leave
echo
echo "demo: ok"
