# Sourced by demo.sh and dev.sh: a SoftHSM token, an emulated Alibaba Cloud KMS
# and the daemon, all in one temporary directory, gone when the script ends.

bin=$1
stage=$(mktemp -d "${TMPDIR:-/tmp}/kmsbroker.XXXXXX")
emulator_pid= daemon_pid=

# leave runs at every end of the script, also at Ctrl-C.
leave() {
	trap - EXIT
	[ -z "$daemon_pid" ] || { kill "$daemon_pid" 2>/dev/null && wait "$daemon_pid" 2>/dev/null; } || true
	[ -z "$emulator_pid" ] || { kill "$emulator_pid" 2>/dev/null && wait "$emulator_pid" 2>/dev/null; } || true
	rm -rf "$stage"
}
trap leave EXIT
trap 'exit 130' INT TERM

fail() {
	echo "demo: failed: $*" >&2
	[ ! -s "$stage/kmsbrokerd.log" ] || sed 's/^/    kmsbrokerd: /' "$stage/kmsbrokerd.log" >&2
	exit 1
}

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

make_token() {
	mkdir "$stage/tokens"
	export SOFTHSM2_CONF=$stage/softhsm2.conf
	printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$stage/tokens" >"$SOFTHSM2_CONF"
	# A throw-away token for a throw-away directory. softhsm2-util can only be
	# given PINs as arguments; a real PIN never goes onto a command line.
	pin=$(random 4)
	(umask 077 && echo "$pin" >"$stage/pin")
	softhsm2-util --init-token --free --label demo --so-pin "$(random 4)" --pin "$pin" >/dev/null
}

start_emulator() {
	ALIBABA_CLOUD_ACCESS_KEY_ID=demo$(random 8)
	ALIBABA_CLOUD_ACCESS_KEY_SECRET=$(random 16)
	(umask 077 && printf 'access_key_id = "%s"\naccess_key_secret = "%s"\n' \
		"$ALIBABA_CLOUD_ACCESS_KEY_ID" "$ALIBABA_CLOUD_ACCESS_KEY_SECRET" >"$stage/credentials.toml")
	mkfifo "$stage/ready"
	ALIBABA_CLOUD_ACCESS_KEY_ID=$ALIBABA_CLOUD_ACCESS_KEY_ID ALIBABA_CLOUD_ACCESS_KEY_SECRET=$ALIBABA_CLOUD_ACCESS_KEY_SECRET \
		"$bin/kmsbrokerctl" emulator --listen 127.0.0.1:0 >"$stage/ready" 2>"$stage/emulator.log" &
	emulator_pid=$!
	read -r _ endpoint <"$stage/ready" || fail "the emulator did not start: $(cat "$stage/emulator.log")"
}

start_daemon() {
	cat >"$stage/kmsbrokerd.toml" <<-EOF
		state_dir   = "$stage/state"
		runtime_dir = "$stage/run"
		plugin_dir  = "$bin/plugins"

		[kms]
		region           = "cn-hangzhou"
		endpoint         = "$endpoint"
		credentials_file = "$stage/credentials.toml"

		[backend.hsm]
		plugin   = "softhsm"
		pin_file = "$stage/pin"
		# The emulator is not Alibaba Cloud: without this line no key goes there.
		allow_foreign_endpoint = true
		settings    = { token_label = "demo" }
		environment = { SOFTHSM2_CONF = "$SOFTHSM2_CONF" }

		[[grant]]
		keys       = ["payments"]
		operations = ["encrypt", "decrypt", "generate-data-key"]
		users      = [$(id -u)]
	EOF
	"$bin/kmsbrokerd" --config "$stage/kmsbrokerd.toml" 2>"$stage/kmsbrokerd.log" &
	daemon_pid=$!
	control=$stage/run/admin/control.sock
	application=$stage/run/kms.sock
	for _ in $(seq 200); do
		[ -S "$application" ] && return
		kill -0 "$daemon_pid" 2>/dev/null || break
		sleep 0.05
	done
	fail "kmsbrokerd did not start"
}

admin() { "$bin/kmsbrokerctl" --socket "$control" "$@"; }
app() { "$bin/kmsbrokerctl" --socket "$application" "$@"; }
