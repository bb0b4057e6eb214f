// Package proxy is the core of the PKCS#11 proxy: it gives each client an application
// of its own, as a PKCS#11 library would, on tokens that all clients share.
//
// A device knows one application, the plugin, which is logged in. What a client has
// is kept here: its sessions and whether it is logged in, its handles, which objects
// it may see, its session objects. A session of the device is lent to a client for as
// long as an operation needs it and no longer, see pool.go, so a client that does
// nothing costs the device nothing.
//
// What a client may do is decided before the device is asked, and recorded before the
// client is answered. Where neither is at stake the device answers for itself, also to
// what is wrong: a handle that the client does not have reaches it as 0, which no
// device knows either.
package proxy

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
)

// Backend is a configured token.
type Backend interface {
	// Device gives the token of the current plugin process. It fails quickly while
	// there is none.
	Device(ctx context.Context) (*backend.Device, error)
}

// Config is what a Proxy is made of.
type Config struct {
	// Tokens are the backends in the order of their slots.
	Tokens []Token
	// Reserved reports whether objects with this label or CKA_ID are the broker's own.
	Reserved func(label string, id []byte) bool
	Limits   Limits
	Now      func() time.Time
	Log      *slog.Logger
}

// Token is a backend by its name.
type Token struct {
	Name    string
	Backend Backend
}

// Limits bound what clients take from each other.
type Limits struct {
	SessionWait   time.Duration // how long a call waits for a session of the device
	OperationIdle time.Duration // how long an operation that was fed data keeps one between two calls
	MaxSessions   int           // of the clients of one user together
}

// Client is who an application belongs to, and what it may do.
type Client struct {
	// Policy is the one that holds at this moment.
	Policy func() *authz.Policy
	Caller authz.Caller
	// Ready says why nothing can be recorded, so that nothing is done either.
	Ready func() error
	// Record writes to the audit trail. Nothing that fails to be recorded is answered.
	Record func(event audit.Event) error
}

// Proxy is the tokens that clients share. Its methods may be called concurrently.
type Proxy struct {
	config Config
	tokens []*token

	mu       sync.Mutex
	sessions map[authz.Identity]int // of clients
	objects  map[authz.Identity]int // session objects of clients
}

// maxObjects bounds the session objects of one user, which take up memory of the device
// that all share.
const maxObjects = 4096

// New makes a Proxy. It needs no end: what it holds of a device ends with the plugin.
func New(config Config) *Proxy {
	p := &Proxy{config: config, sessions: map[authz.Identity]int{}, objects: map[authz.Identity]int{}}
	for i, t := range config.Tokens {
		p.tokens = append(p.tokens, newToken(t, uint64(i+1), config))
	}
	return p
}

// take counts a session of a client, its first on the token or not, if there may be one
// more.
func (p *Proxy) take(who authz.Identity, t *token, first bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions[who] >= p.config.Limits.MaxSessions {
		return false
	}
	p.sessions[who]++
	t.sessions++
	if first {
		t.clients++
	}
	return true
}

// give is the opposite of take.
func (p *Proxy) give(who authz.Identity, t *token, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions[who]--; p.sessions[who] == 0 {
		delete(p.sessions, who)
	}
	t.sessions--
	if last {
		t.clients--
	}
}

// own counts session objects of a client, if there may be as many more.
func (p *Proxy) own(who authz.Identity, objects int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.objects[who]+objects > maxObjects {
		return false
	}
	p.objects[who] += objects
	return true
}

// disown is the opposite of own.
func (p *Proxy) disown(who authz.Identity, objects int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.objects[who] -= objects; p.objects[who] <= 0 {
		delete(p.objects, who)
	}
}
