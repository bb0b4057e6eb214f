# Runs a machine and outlives the test that wanted it, so that nothing is left
# even if that is killed: keeper.sh NAME ARGUMENT..., with the arguments of
# systemd-nspawn(1). The machine runs until it powers itself off or standard input
# ends. The mount namespace has to be private already.
set -u
name=$1
shift
exec 3<&0

# What nspawn keeps here and forgets when it is killed.
mkdir -p /run/systemd/nspawn
mount -t tmpfs nspawn /run/systemd/nspawn || exit 1

# Where systemd does not run, nobody else makes a control group for the machine,
# and nobody removes it. nspawn uses the same path in the hierarchy of systemd's
# own, where there still is one.
hierarchies=()
place() { true; }
if [ ! -d /run/systemd/system ]; then
	mapfile -t hierarchies < <(findmnt -rn -t cgroup2 -o TARGET; findmnt -rn -t cgroup -O name=systemd -o TARGET)
	group=${hierarchies[0]:?no cgroup2 is mounted}/$name
	mkdir "$group" || exit 1
	place() { echo "$BASHPID" >"$group/cgroup.procs"; }
	set -- --keep-unit "$@"
fi

(place && exec systemd-nspawn "$@" 3<&- </dev/null 2>&1) &
machine=$!
cat <&3 >/dev/null &
asker=$!
wait -n "$machine" "$asker"

if kill -TERM "$machine" 2>/dev/null; then
	sleep 30 &
	patience=$!
	wait -n "$machine" "$patience"
	kill -KILL "$machine" 2>/dev/null
	kill "$patience" 2>/dev/null
fi
kill "$asker" 2>/dev/null
wait

for hierarchy in "${hierarchies[@]}"; do
	for _ in {1..100}; do
		[ ! -d "$hierarchy/$name" ] || find "$hierarchy/$name" -depth -type d -exec rmdir {} + 2>/dev/null
		[ -d "$hierarchy/$name" ] || continue 2
		sleep 0.1
	done
	echo "keeper: $hierarchy/$name is left over" >&2
done
