package authz

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
)

// Caller is who makes a call: the process on the other side of a Unix socket, with
// the credentials it had when it connected, or an application that signed with an
// access key of the broker's.
type Caller struct {
	// App is the name of the application. The kernel said nothing of such a caller:
	// it has nothing of what follows, and its zeros are nobody's.
	App    string
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

// Identity is whose a call is, for what is counted and shared out: the calls of all
// processes of a user are those of one caller.
type Identity struct {
	App string
	UID uint32 // of a caller that is no App
}

// Identity returns whose the caller's calls are.
func (c *Caller) Identity() Identity {
	if c.App != "" {
		return Identity{App: c.App}
	}
	return Identity{UID: c.UID}
}

// String returns "app web" or "uid 1000".
func (i Identity) String() string {
	if i.App != "" {
		return "app " + i.App
	}
	return fmt.Sprintf("uid %d", i.UID)
}

var appName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$`)

// CheckApp refuses what cannot be the name of an application.
func CheckApp(name string) error {
	if !appName.MatchString(name) {
		return fmt.Errorf("%.80q is not 1 to 48 letters, digits, dots, dashes or underscores that begin with a letter or digit", name)
	}
	return nil
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
	if c.App != "" {
		return c.Identity().String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "uid %d, gid %d, pid %d", c.UID, c.GID, c.PID)
	if c.Unit.Name != "" {
		b.WriteString(", unit " + c.Unit.Name)
	}
	return b.String()
}

// LogValue implements slog.LogValuer.
func (c Caller) LogValue() slog.Value {
	if c.App != "" {
		return slog.GroupValue(slog.String("app", c.App))
	}
	return slog.GroupValue(
		slog.Uint64("uid", uint64(c.UID)),
		slog.Uint64("gid", uint64(c.GID)),
		slog.Int("pid", int(c.PID)),
		slog.String("unit", c.Unit.String()))
}
