package plugin

import (
	"path/filepath"
	"strconv"
	"strings"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// maxHandshake bounds the handshake line in bytes; its longest part is a
// certificate of about 800.
const maxHandshake = 4096

// checkHandshake reads the one line that a plugin prints:
//
//	core version | application version | network | address | protocol | certificate
//
// go-plugin reads it again; this goes first for the sake of what it refuses and
// of what it says.
func checkHandshake(line, socketDir string) error {
	parts := strings.Split(line, "|")
	core, coreErr := strconv.Atoi(parts[0])
	if len(parts) < 6 || coreErr != nil {
		return hsm.Errorf(hsm.Misconfigured,
			"it printed %q instead of the go-plugin handshake: is it a plugin of kmsbroker, and does nothing print before it is served?", text(line, maxString))
	}
	if core != goplugin.CoreProtocolVersion {
		return hsm.Errorf(hsm.Misconfigured, "it speaks version %d of the go-plugin protocol, this program version %d", core, goplugin.CoreProtocolVersion)
	}
	version, err := strconv.Atoi(parts[1])
	if err != nil || version != protocolVersion {
		return hsm.Errorf(hsm.Misconfigured, "it speaks version %q of the wrap interface, this program version %d: install the plugin that belongs to it",
			text(parts[1], maxCode), protocolVersion)
	}
	network, address, protocol, certificate := parts[2], parts[3], parts[4], parts[5]
	inside, err := filepath.Rel(socketDir, address)
	switch {
	case network != "unix" || err != nil || !filepath.IsLocal(inside):
		return hsm.Errorf(hsm.Misconfigured, "it listens on %q, not in the directory of PLUGIN_UNIX_SOCKET_DIR", text(network+":"+address, maxString))
	case protocol != string(goplugin.ProtocolGRPC):
		return hsm.Errorf(hsm.Misconfigured, "it speaks %q, not gRPC", text(protocol, maxCode))
	case certificate == "":
		return hsm.Errorf(hsm.Misconfigured, "it offers no TLS certificate (AutoMTLS)")
	default:
		return nil
	}
}
