// Package plugin carries the wrap interface of package hsm into processes of
// their own, over hashicorp/go-plugin and gRPC.
//
// A vendor library is foreign C code that may crash, hang or print what it
// likes; here it costs the calls in flight and nothing else. A plugin's main
// calls [Serve]. The daemon calls [Start], which executes exactly the bytes whose
// checksum it was given, and believes nothing that the process says: every
// answer is checked before it becomes a value of package hsm.
//
// The contract for plugins in any language is hsmv1/hsm.proto.
package plugin

import (
	"time"

	goplugin "github.com/hashicorp/go-plugin"
)

const (
	// protocolVersion changes when hsm.proto changes incompatibly.
	protocolVersion = 1
	// pluginName is the name under which go-plugin dispenses the service.
	pluginName = "token"
	// errorDomain marks the ErrorInfo of hsm.proto.
	errorDomain = "kmsbroker.hsm.v1"

	// maxMessage bounds a gRPC message in bytes, in both directions. The
	// largest that is needed carries keysPerMessage keys.
	maxMessage = 256 << 10
	// maxInFlight bounds the calls to one process at once. It is above the
	// sessions that a plugin uses, so that short calls need not queue twice.
	maxInFlight = 32
	// defaultDeadline applies to calls that bring none. A Luna HA group may
	// take more than 20 s to give up a dead member.
	defaultDeadline = 30 * time.Second
	// maxFiles bounds the descriptors of a plugin: one that is FD_SETSIZE or more
	// overflows the fd_set of a library that uses select(2), and Go's runtime has
	// raised the limit that protects such libraries as far as it can.
	maxFiles = 1024
	// closeTime is what a plugin gets to log out after SIGTERM.
	closeTime = 2 * time.Second
)

// handshake is checked by both sides. The cookie only keeps people from starting
// a plugin by hand.
func handshake() goplugin.HandshakeConfig {
	return goplugin.HandshakeConfig{
		ProtocolVersion:  protocolVersion,
		MagicCookieKey:   "KMSBROKER_HSM_PLUGIN",
		MagicCookieValue: "b8f1e7a6-wrap-interface",
	}
}
