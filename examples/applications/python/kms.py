#!/usr/bin/env python3
"""An application in Python, with the standard library alone: it encrypts what it
reads with a key of kmsbroker, and decrypts it again.

    echo secret | python3 kms.py KEY [SOCKET]
"""

import base64
import http.client
import json
import socket
import sys
import urllib.parse


class Refused(Exception):
    """What the broker, or KMS behind it, did not do."""


class Broker:
    """Alibaba Cloud's KMS API on a Unix socket. Nothing is signed: the kernel tells
    the broker who calls."""

    def __init__(self, path="/run/kmsbroker/alibaba.sock"):
        self.path = path

    def call(self, action, **parameters):
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(60)
        connection.sock.connect(self.path)
        try:
            form = urllib.parse.urlencode({"Action": action, "Version": "2016-01-20", **parameters})
            connection.request("POST", "/", form, {"Content-Type": "application/x-www-form-urlencoded"})
            answer = json.load(connection.getresponse())
        finally:
            connection.close()
        if "Code" in answer:
            raise Refused(f"{answer['Code']}: {answer['Message']}")
        return answer

    def encrypt(self, key, plaintext, **context):
        """Encrypts up to 6144 bytes, and returns a blob of text."""
        return self.call("Encrypt", KeyId=key, Plaintext=base64.b64encode(plaintext).decode(),
                         EncryptionContext=json.dumps(context))["CiphertextBlob"]

    def decrypt(self, blob, **context):
        return base64.b64decode(self.call("Decrypt", CiphertextBlob=blob, EncryptionContext=json.dumps(context))["Plaintext"])


def main():
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: kms.py KEY [SOCKET]")
    broker = Broker(*sys.argv[2:])
    try:
        blob = broker.encrypt(sys.argv[1], sys.stdin.buffer.read(), purpose="example")
        sys.stdout.buffer.write(broker.decrypt(blob, purpose="example"))
    except (OSError, Refused) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
