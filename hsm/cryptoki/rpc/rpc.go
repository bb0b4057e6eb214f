// Package rpc is p11-kit's protocol: PKCS#11 calls and their answers as messages on a
// stream. p11-kit-client.so of any distribution speaks it, and so do the daemon and
// its plugins with each other.
//
// The protocol has no specification. What is written here was read in p11-kit's
// sources, releases 0.24.0 to 0.26.4, and is tested against them.
//
// A stream begins with a byte of each side, its version. Then the client sends
// requests and the server answers each:
//
//	frame    code u32, length of options u32, length of body u32, options, body
//	request  function u32, signature, parameters
//	answer   function u32, signature, results; or 0, "u", return value
//
// Integers are big-endian, a CK_ULONG has 64 bits, and strings of bytes follow their
// length as u32, 0xffffffff for NULL. The signature repeats what the function number
// says. Code is the client's, and comes back with the answer.
package rpc

import (
	"errors"
	"fmt"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// Version is a version of the protocol.
//
//	0  p11-kit before 0.25: few mechanisms with parameters
//	1  C_InitToken with a padded label
//	2  from 0.25.6: another encoding of mechanisms, C_DeriveKey with its parameter
type Version byte

// Latest is the highest version that is spoken here.
const Latest Version = 2

// Bounds on what is accepted. p11-kit had overflows and unbounded recursion here
// (CVE-2020-29361 to 29363, CVE-2026-13757).
const (
	// MaxBody bounds the body of a frame, and the room for an answer, in bytes.
	MaxBody = 4 << 20
	// maxOptions bounds what no version uses.
	maxOptions = 4 << 10
	// maxAttributes bounds the attributes of a message, nested ones included.
	maxAttributes = 1024
	// maxDepth bounds how deep attributes nest. p11-kit admits as many.
	maxDepth = 8
)

// errMalformed is the reason of all errors of parsing.
var errMalformed = errors.New("malformed p11-kit message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
}

// handshake is what a client sends with C_Initialize.
const handshake = "PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"

// CheckInitialize reports whether C_Initialize was called by a client of this
// protocol.
func CheckInitialize(call *cryptoki.Call) bool { return string(call.Data[0]) == handshake }

// null is the length of a string of bytes that is NULL.
const null = 0xffffffff
