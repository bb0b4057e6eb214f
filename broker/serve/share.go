package serve

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// What one share of a door holds. The most that a call keeps in memory is its
// message, so a share is at most maxCalls of these.
const (
	maxCalls         = 512              // under way; each connection has at most maxStreams
	maxStrangers     = 1024             // connections of all strangers together
	maxStrangerCalls = 128              // of all strangers together
	callTime         = 60 * time.Second // from the first byte of a call to its answer
)

// Shares divides what a door that everybody can reach holds between its callers.
// A uid that some grant names has a share of its own. All others have one
// together, because an account can be thousands of uids (newuidmap(1)), and none
// of them gets more than a refusal anyway.
type Shares struct {
	named    func(authz.Caller) bool
	service  string // whose calls end after callTime
	refused  func(what string)
	stopping context.Context // ends the calls of other services
	callTime time.Duration

	mu   sync.Mutex
	used map[owner]*use
}

type owner struct {
	uid      uint32
	stranger bool // with uid 0
}

type use struct{ connections, calls int }

// What is refused, for Observers.
const (
	RefusedConnection = "connection"
	RefusedCall       = "call"
)

// NewShares makes the shares of a door. The named are those for whom there is a
// grant. Calls of the service may take a minute: who sends a byte a second does not
// keep a place. Those of other services, which may be streams without end, go on
// until ctx ends, so that they do not keep the server from stopping.
func NewShares(ctx context.Context, named func(authz.Caller) bool, service string, refused func(what string)) *Shares {
	return &Shares{named: named, service: "/" + service + "/", refused: refused, stopping: ctx, callTime: callTime, used: map[owner]*use{}}
}

// connect gives a new connection its owner. Those of a uid are counted by
// [LimitPerUID] already.
func (s *Shares) connect(conn net.Conn, caller authz.Caller) (net.Conn, owner, error) {
	o := owner{uid: caller.UID}
	if !s.named(caller) {
		o = owner{stranger: true}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.used[o]
	if u == nil {
		u = &use{}
		s.used[o] = u
	}
	if o.stranger && u.connections == maxStrangers {
		s.refused(RefusedConnection)
		return nil, o, errStrangers
	}
	u.connections++
	return &ownedConn{Conn: conn, release: sync.OnceFunc(func() { s.disconnect(o) })}, o, nil
}

// errStrangers ends a handshake; the client sees its connection closed.
var errStrangers = failure.New(failure.Throttled, "CONNECTIONS", "too many connections of users without a grant")

func (s *Shares) disconnect(o owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.used[o]
	u.connections--
	s.forget(o, u)
}

// forget drops a use that is none any more.
func (s *Shares) forget(o owner, u *use) {
	if u.connections == 0 && u.calls == 0 {
		delete(s.used, o)
	}
}

// begin is asked before anything of a call but its headers is read.
func (s *Shares) begin(ctx context.Context, info *tap.Info) (context.Context, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, nil // CallerOf will refuse
	}
	caller, ok := from.AuthInfo.(callerInfo)
	if !ok {
		return ctx, nil
	}
	if err := s.enter(caller.owner); err != nil {
		return nil, Status(err)
	}
	var limited context.Context
	var cancel context.CancelFunc
	release := func() bool { return true }
	if strings.HasPrefix(info.FullMethodName, s.service) {
		limited, cancel = context.WithTimeout(ctx, s.callTime)
	} else {
		limited, cancel = context.WithCancel(ctx)
		release = context.AfterFunc(s.stopping, cancel)
	}
	// The context of the stream ends with it, and not before its handler.
	context.AfterFunc(ctx, func() { release(); cancel(); s.leave(caller.owner) })
	return limited, nil
}

func (s *Shares) enter(o owner) error {
	most, whose := maxCalls, "this user has"
	if o.stranger {
		most, whose = maxStrangerCalls, "users without a grant have"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.used[o]
	if u == nil || u.calls == most {
		s.refused(RefusedCall)
		return failure.New(failure.Throttled, "CALLS", "%s %d calls under way, which is all that is allowed", whose, most).
			WithHint("wait for answers before calling again")
	}
	u.calls++
	return nil
}

func (s *Shares) leave(o owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.used[o]
	u.calls--
	s.forget(o, u)
}

type ownedConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *ownedConn) Close() error {
	c.release()
	return c.Conn.Close()
}
