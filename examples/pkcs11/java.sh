#!/bin/sh
# Java with the provider that every JDK has. Prints a signature of what it reads.
#
#   echo message | java.sh KEY >signature
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/env.sh"
exec java "$here/java/Sign.java" "$@"
