#!/bin/sh
# git commit, signed with a key that is in the HSM, by way of an ssh-agent. KEY is the
# label of the key on the token.
#
#   git.sh KEY [OPTION OF git commit]...
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
export SSH_ASKPASS="$here/askpass.sh" SSH_ASKPASS_REQUIRE=force

# The agent lives as long as this script. It loads the module itself, from folders that
# it trusts (-P).
if [ -z "${SSH_AGENT_PID:-}" ]; then
	exec ssh-agent -P "/usr/lib*/*,$MODULE" "$0" "$@"
fi
key=${1:?usage: git.sh KEY [OPTION OF git commit]...}
shift
ssh-add -q -s "$MODULE"
public=$(ssh-add -L | awk -v key="$key" '$3 == key { print $1, $2; exit }')
git -c gpg.format=ssh -c "user.signingkey=key::$public" commit -S "$@"
