package config

import (
	"log/slog"
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
)

// Config is a configuration that has been checked: defaults are in place, paths
// are absolute, users and groups are numbers.
type Config struct {
	StateDir   string
	RuntimeDir string
	PluginDir  string
	LogLevel   slog.Level
	KMS        KMS
	Sockets    Sockets
	Backends   []Backend // in the order of the file
	Grants     []authz.Grant
	Objects    []authz.ObjectGrant // of [[pkcs11]]
	Proxy      Proxy
	Audit      Audit
	Alibaba    Alibaba
	Kubernetes []Kubernetes // in the order of the file
	Envelope   Envelope
	Tracing    Tracing
	// UnitWithoutPIDFD: on a kernel without SO_PEERPIDFD a caller's unit is looked up
	// by its PID, which another process can have by then.
	UnitWithoutPIDFD bool
}

// NamesUnits reports whether there are grants to units.
func (c *Config) NamesUnits() bool {
	return slices.ContainsFunc(c.Grants, func(g authz.Grant) bool { return len(g.Units) > 0 }) ||
		slices.ContainsFunc(c.Objects, func(g authz.ObjectGrant) bool { return len(g.Units) > 0 })
}

// Sockets are absolute paths.
type Sockets struct {
	Control     string
	Application string
	Metrics     string // "" for none
	Alibaba     string // "" for none
	PKCS11      string // "" for none
	AdminGID    int    // group that owns the sockets for control and metrics, -1 for none
}

// Backend is one configured HSM token.
type Backend struct {
	Name                 string
	Plugin               string // a file name in PluginDir, or an absolute path
	SHA256               string // lower-case hex, "" is what the plugin directory's manifest says
	PINFile              string // "" when an administrator enters the PIN
	AllowForeignEndpoint bool
	CallTimeout          time.Duration // of each call to the device
	Settings             map[string]string
	Environment          map[string]string
}
