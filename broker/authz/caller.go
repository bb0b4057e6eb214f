package authz

import (
	"fmt"
	"log/slog"
	"strings"
)

// Caller is the process on the other side of a Unix socket, with the credentials
// it had when it connected.
type Caller struct {
	UID    uint32
	GID    uint32   // its primary group
	Groups []uint32 // its supplementary groups
	PID    int32
	User   string // the name of UID in /etc/passwd, "" if it has none there
	Unit   Unit
}

// Unit is the systemd system unit that a caller runs in.
type Unit struct {
	Name string // such as "payments.service", "" if there is none or it is not known
	// Unknown: it could not be established, so there may be one.
	Unknown bool
	Why     string // there is no Name
}

// String names the unit, or says why there is none.
func (u Unit) String() string {
	switch {
	case u.Name != "":
		return u.Name
	case u.Unknown:
		return "unknown: " + u.Why
	default:
		return "none"
	}
}

// String names the caller for messages.
func (c Caller) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "uid %d, gid %d, pid %d", c.UID, c.GID, c.PID)
	if c.Unit.Name != "" {
		b.WriteString(", unit " + c.Unit.Name)
	}
	return b.String()
}

// LogValue implements slog.LogValuer.
func (c Caller) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Uint64("uid", uint64(c.UID)),
		slog.Uint64("gid", uint64(c.GID)),
		slog.Int("pid", int(c.PID)),
		slog.String("unit", c.Unit.String()))
}
