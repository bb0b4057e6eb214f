package serve

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// What one share of a door holds. The most that a call keeps in memory is its
// message, so a share is at most maxCalls of these.
const (
	maxCalls         = 512     // under way; each connection has at most maxStreams
	maxStrangers     = 1024    // connections of all strangers together
	maxStrangerCalls = 128     // of all strangers together
	maxAllCalls      = 1 << 13 // of everybody
)

// CallTime is what a call may take from its first byte to its answer.
const CallTime = 60 * time.Second

// Shares divides what a door that everybody can reach holds between its callers.
// A uid that some grant names has a share of its own, and so has an application
// that an administrator gave a key. All others have one together, because an account
// can be thousands of uids (newuidmap(1)), and none of them gets more than a refusal
// anyway.
type Shares struct {
	named    func(authz.Caller) bool
	service  string // whose calls end after CallTime
	refused  func(what string)
	stopping context.Context // ends the calls of other services
	callTime time.Duration
	exempt   int32 // a PID, 0 is none

	mu   sync.Mutex
	used map[owner]*use
	room *Room
	all  int // calls
}

// Room is what all doors together have for connections: three quarters of the
// descriptors that the process may have. The rest is for all else that it does.
type Room struct {
	most int64
	used atomic.Int64
}

// NewRoom measures the room there is.
func NewRoom() *Room { return &Room{most: openFiles() / 4 * 3} }

// enter takes a place, which must be left.
func (r *Room) enter(exempt bool) bool {
	if r.used.Add(1) > r.most && !exempt {
		r.used.Add(-1)
		return false
	}
	return true
}

func (r *Room) leave() { r.used.Add(-1) }

type owner struct {
	who      authz.Identity
	stranger bool // with no who
	exempt   bool // likewise
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
func NewShares(ctx context.Context, room *Room, named func(authz.Caller) bool, service string, refused func(what string)) *Shares {
	return &Shares{
		room: room, named: named, service: "/" + service + "/", refused: refused, stopping: ctx, callTime: CallTime, used: map[owner]*use{},
	}
}

// KeepRoomFor lets a process in however crowded the door is, for the daemon to find
// out whether it answers. It is called before the door is open.
func (s *Shares) KeepRoomFor(pid int) *Shares {
	s.exempt = int32(pid)
	return s
}

// openFiles is how many descriptors the process may have.
func openFiles() int64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // what every Linux gives
	}
	return int64(min(limit.Cur, 1<<20))
}

// connect gives a new connection its owner. Those of a uid are counted by
// [LimitPerUID] already.
func (s *Shares) connect(conn net.Conn, caller authz.Caller) (net.Conn, error) {
	return s.own(conn, s.owner(caller))
}

// own counts a connection until it is closed.
func (s *Shares) own(conn net.Conn, o owner) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.of(o)
	if o.stranger && u.connections >= maxStrangers || !s.room.enter(o.exempt) {
		s.forget(o, u)
		s.refused(RefusedConnection)
		return nil, errCrowded
	}
	u.connections++
	return &ownedConn{Conn: conn, release: sync.OnceFunc(func() { s.disconnect(o) })}, nil
}

// errCrowded ends a handshake; the client sees its connection closed.
var errCrowded = failure.New(failure.Throttled, "CONNECTIONS", "too many connections")

func (s *Shares) owner(caller authz.Caller) owner {
	switch {
	case s.exempt != 0 && caller.PID == s.exempt:
		return owner{exempt: true}
	case !s.named(caller):
		return owner{stranger: true}
	}
	return owner{who: caller.Identity()}
}

func (s *Shares) of(o owner) *use {
	u := s.used[o]
	if u == nil {
		u = &use{}
		s.used[o] = u
	}
	return u
}

func (s *Shares) disconnect(o owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.used[o]
	u.connections--
	s.room.leave()
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
	// Asked anew each time, because the policy may have been reloaded.
	t := &ticket{owner: s.owner(caller.caller)}
	if err := s.enter(t.owner); err != nil {
		return nil, Status(err)
	}
	var limited context.Context
	var cancel context.CancelFunc
	release := func() bool { return true }
	if strings.HasPrefix(info.FullMethodName, s.service) || t.owner.stranger {
		limited, cancel = context.WithTimeout(ctx, s.callTime)
	} else {
		limited, cancel = context.WithCancel(ctx)
		release = context.AfterFunc(s.stopping, cancel)
	}
	context.AfterFunc(ctx, func() {
		release()
		cancel()
		// A stream that is reset ends its context, and not its handler.
		if t.state.CompareAndSwap(waiting, ended) {
			s.leave(t.owner)
		}
	})
	return context.WithValue(limited, ticketKey{}, t), nil
}

// ticket is the place of a call. It is given back by the handler, or by the end of
// the stream if there never was one.
type ticket struct {
	owner owner
	state atomic.Int32
}

const (
	waiting int32 = iota // for its message
	handled              // by its handler, which gives the place back
	ended                // without a handler
)

type ticketKey struct{}

// handling takes over the place of a call, which is given back by what it returns.
// Where there are no shares that is nothing.
func (s *Shares) handling(ctx context.Context) (done func()) {
	t, ok := ctx.Value(ticketKey{}).(*ticket)
	if !ok || !t.state.CompareAndSwap(waiting, handled) {
		return func() {}
	}
	return func() { s.leave(t.owner) }
}

func (s *Shares) enter(o owner) error {
	most, whose := maxCalls, o.who.String()+" has"
	if o.stranger {
		most, whose = maxStrangerCalls, "callers without a grant, or not known yet, have"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.of(o)
	if s.all >= maxAllCalls && !o.exempt {
		most, whose = maxAllCalls, "all callers together have"
	} else if u.calls < most {
		u.calls++
		s.all++
		return nil
	}
	s.forget(o, u)
	s.refused(RefusedCall)
	return failure.New(failure.Throttled, "CALLS", "%s %d calls under way, which is all that is allowed", whose, most).
		WithHint("wait for answers before calling again")
}

func (s *Shares) leave(o owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.used[o]
	u.calls--
	s.all--
	s.forget(o, u)
}

type ownedConn struct {
	net.Conn
	release func()
}

// SyscallConn lets gRPC wait for what comes without keeping a buffer for it.
func (c *ownedConn) SyscallConn() (syscall.RawConn, error) {
	raw, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return raw.SyscallConn()
}

// Close implements net.Conn.
func (c *ownedConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// Stranger reports whether a caller has no share of its own.
func (s *Shares) Stranger(caller authz.Caller) bool { return s.owner(caller).stranger }

// Admit asks the kernel who has connected, for a door that speaks neither gRPC nor
// HTTP, and gives the connection its share.
func (s *Shares) Admit(conn net.Conn, units Units) (net.Conn, authz.Caller, error) {
	caller, err := PeerOf(conn, units)
	if err != nil {
		return nil, caller, err
	}
	owned, err := s.connect(conn, caller)
	return owned, caller, err
}
