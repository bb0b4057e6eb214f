#!/bin/sh
# An application in shell: it encrypts what it reads with a key of kmsbroker, and
# decrypts it again. The kernel tells the broker who calls.
#
#   echo secret | kms.sh KEY [SOCKET]
set -eu
key=${1:?usage: kms.sh KEY [SOCKET]}
socket=${2:-/run/kmsbroker/alibaba.sock}

# call ACTION FIELD [NAME=VALUE]... prints a field of the answer. Values come from
# standard input, one in a line, where they are secret: arguments can be read by others.
call() {
	action=$1 field=$2
	shift 2
	for parameter; do
		set -- "$@" --data-urlencode "$parameter"
		shift
	done
	answer=$(curl --silent --show-error --max-time 60 --unix-socket "$socket" http://localhost/ \
		--data-urlencode "Action=$action" --data-urlencode Version=2016-01-20 "$@")
	case $answer in
	*'"Code"'*)
		echo "error: $answer" >&2
		return 1
		;;
	esac
	printf %s "$answer" | sed -n "s/.*\"$field\" *: *\"\([^\"]*\)\".*/\1/p"
}

context='EncryptionContext={"purpose":"example"}'
# curl reads the plaintext from its standard input (name@-).
blob=$(base64 -w0 | call Encrypt CiphertextBlob "KeyId=$key" "$context" Plaintext@-)
plaintext=$(call Decrypt Plaintext "CiphertextBlob=$blob" "$context") # a failure in a pipe would be lost
printf %s "$plaintext" | base64 -d
