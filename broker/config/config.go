package config

import (
	"log/slog"
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
	Audit      Audit
	Alibaba    Alibaba
	Kubernetes []Kubernetes // in the order of the file
	Envelope   Envelope
	Tracing    Tracing
	// UnitWithoutPIDFD: on a kernel without SO_PEERPIDFD a caller's unit is looked up
	// by its PID, which another process can have by then.
	UnitWithoutPIDFD bool
}

// Sockets are absolute paths.
type Sockets struct {
	Control     string
	Application string
	Metrics     string // "" for none
	Alibaba     string // "" for none
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
