// Package authz decides who may do what. A [Caller] is a local process as the
// kernel reports it, a [Grant] lets callers do operations with keys, and a
// [Policy] is the list of grants: what no grant allows is denied.
//
// Administration is not decided here but by the control socket's directory and
// mode; administering a key is not a grant to decrypt with it.
package authz

import (
	"fmt"
	"log/slog"
	"path"
	"slices"
)

// Caller is the process on the other side of a Unix socket, from SO_PEERCRED:
// the credentials it had when it connected.
type Caller struct {
	UID uint32
	GID uint32
	PID int32
}

// String names the caller for messages.
func (c Caller) String() string {
	return fmt.Sprintf("uid %d, gid %d, pid %d", c.UID, c.GID, c.PID)
}

// LogValue implements slog.LogValuer.
func (c Caller) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Uint64("uid", uint64(c.UID)),
		slog.Uint64("gid", uint64(c.GID)),
		slog.Int("pid", int(c.PID)))
}

// Operation is something a grant can allow on a key.
type Operation string

// The operations of the application doors.
const (
	Encrypt                         Operation = "encrypt"
	Decrypt                         Operation = "decrypt"
	GenerateDataKey                 Operation = "generate-data-key"
	GenerateDataKeyWithoutPlaintext Operation = "generate-data-key-without-plaintext"
)

// Operations lists every operation a grant can name.
func Operations() []Operation {
	return []Operation{Encrypt, Decrypt, GenerateDataKey, GenerateDataKeyWithoutPlaintext}
}

// Grant allows callers operations with keys. A caller matches when its uid or
// its gid is listed.
type Grant struct {
	Keys       []string // names or globs in the syntax of path.Match
	Operations []Operation
	UIDs       []uint32
	GIDs       []uint32
}

func (g *Grant) covers(c Caller, op Operation) bool {
	return slices.Contains(g.Operations, op) &&
		(slices.Contains(g.UIDs, c.UID) || slices.Contains(g.GIDs, c.GID))
}

func (g *Grant) names(key string) bool {
	return slices.ContainsFunc(g.Keys, func(pattern string) bool {
		ok, err := path.Match(pattern, key)
		return err == nil && ok // config refuses malformed patterns
	})
}

// Policy is an immutable set of grants.
type Policy struct {
	grants []Grant
}

// NewPolicy makes a policy of grants.
func NewPolicy(grants []Grant) *Policy {
	return &Policy{grants: slices.Clone(grants)}
}

// Allows reports whether some grant lets c do op with key.
func (p *Policy) Allows(c Caller, op Operation, key string) bool {
	return slices.ContainsFunc(p.grants, func(g Grant) bool {
		return g.covers(c, op) && g.names(key)
	})
}
