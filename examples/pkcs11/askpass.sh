#!/bin/sh
# Answers OpenSSH when it asks for a PIN, so that it asks nobody else.
echo "${PIN:-0000}"
