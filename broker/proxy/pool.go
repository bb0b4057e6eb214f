package proxy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// pool lends the sessions of a device. Who finds none waits; a session that comes back
// goes to the user who has the fewest, and to the one who waits longest among these.
//
// Between two calls of one operation a lease is parked. It is taken away when others
// wait: at once from an operation that only was initialised, which is done again later,
// and after a time from one that was fed data, which is lost.
type pool struct {
	backend Backend
	limits  Limits

	mu      sync.Mutex
	device  *backend.Device // whose sessions these are, nil at first
	met     int             // devices so far: what was lent before the last is none of these
	idle    []cryptoki.Session
	open    int // sessions there are, lent or idle or being opened
	most    int // that there may be
	waiting []*waiter
	parked  []*lease // the oldest first
	lent    map[authz.Identity]int
	moved   chan struct{} // closed when something is parked while others wait
	counts  Counts
}

// waiter waits for a session, or for the right to open one.
type waiter struct {
	who   authz.Identity
	ready chan right // of one
}

// right is a session of a device, or the right to open one.
type right struct {
	device  *backend.Device
	met     int
	session cryptoki.Session // nil: to be opened
}

var (
	errQueue = errors.New("no session of the token became free in time")
	errGone  = errors.New("the device went away while a session was waited for")
	errMoved = errors.New("the device was replaced after a handle was looked up")
)

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func newPool(b Backend, limits Limits) *pool {
	return &pool{backend: b, limits: limits, lent: map[authz.Identity]int{}, moved: make(chan struct{})}
}

// acquire lends a session. It fails with errQueue, with the return value of the device
// that opens none, or with the error of a backend that is away.
func (p *pool) acquire(ctx context.Context, who authz.Identity) (*lease, error) {
	ctx, cancel := context.WithTimeout(ctx, p.limits.SessionWait)
	defer cancel()
	for {
		got, err := p.take(ctx, who)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if got.session == nil {
			if got.session, err = got.open(ctx); err != nil {
				if p.refused(got, who, err) {
					continue
				}
				return nil, err
			}
		}
		return &lease{pool: p, device: got.device, met: got.met, session: got.session, who: who}, nil
	}
}

// open opens the session that there is a right to. It takes as long as any call, however
// long the right to it was waited for.
func (r right) open(ctx context.Context) (cryptoki.Session, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.device.CallTimeout)
	defer cancel()
	return r.device.OpenSession(ctx)
}

// acquireOn is acquire for a call with handles of this device, which in another process
// of the plugin are those of other objects. Where there are none it is nil.
func (p *pool) acquireOn(ctx context.Context, who authz.Identity, device *backend.Device) (*lease, error) {
	l, err := p.acquire(ctx, who)
	if err == nil && device != nil && l.device != device {
		l.release(true)
		return nil, errMoved
	}
	return l, err
}

// take gets a session or the right to open one, and waits for it if need be.
func (p *pool) take(ctx context.Context, who authz.Identity) (right, error) {
	if err := p.meetCurrent(ctx); err != nil {
		return right{}, err // locked no more
	}
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		session := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.lent[who]++
		return p.right(session), nil
	}
	if p.open < p.most {
		p.open++
		p.lent[who]++
		return p.right(nil), nil
	}
	w := &waiter{who: who, ready: make(chan right, 1)}
	p.waiting = append(p.waiting, w)
	for {
		patience := p.stealable()
		if patience <= 0 {
			shut(p.steal().session)
			p.hand(nil) // to whose turn it is
			patience = p.stealable()
		}
		if got, ok := p.await(ctx, w, max(0, patience)); ok {
			return got, nil
		}
		switch {
		case ctx.Err() != nil:
			p.drop(w)
			p.counts.Late++
			return right{}, errQueue
		case isClosed(p.device.Gone):
			p.drop(w)
			return right{}, errGone
		}
	}
}

// right is one to a session of the present device.
func (p *pool) right(session cryptoki.Session) right { return right{p.device, p.met, session} }

// await waits without the lock, until something comes, something is parked, the device is
// gone or patience ends.
func (p *pool) await(ctx context.Context, w *waiter, patience time.Duration) (got right, ok bool) {
	gone, moved := p.device.Gone, p.moved
	p.mu.Unlock()
	timer := time.NewTimer(patience)
	select {
	case got = <-w.ready:
		ok = true
	case <-timer.C:
	case <-moved:
	case <-gone:
	case <-ctx.Done():
	}
	timer.Stop()
	p.mu.Lock()
	if ok {
		return got, true
	}
	select {
	case got = <-w.ready: // at the last moment
		return got, true
	default:
		return right{}, false
	}
}

// meetCurrent locks the pool when it is about the current device.
func (p *pool) meetCurrent(ctx context.Context) error {
	for {
		device, err := p.backend.Device(ctx)
		if err != nil {
			return err
		}
		p.mu.Lock()
		if !isClosed(device.Gone) {
			p.meet(device)
			return nil
		}
		// Replaced in between, perhaps by one that is known here already.
		p.mu.Unlock()
	}
}

// meet forgets the sessions of a device that is no more.
func (p *pool) meet(device *backend.Device) {
	if p.device == device {
		return
	}
	for _, session := range p.idle {
		shut(session)
	}
	p.device, p.idle, p.open, p.most = device, nil, 0, device.MaxSessions()
	p.met++
	for _, l := range p.parked {
		l.parked, l.taken = false, true
		shut(l.session)
		p.unlend(l.who)
	}
	p.parked = nil
	// Whoever waits opens a session of the new one.
	for len(p.waiting) > 0 && p.open < p.most {
		p.open++
		p.hand(nil)
	}
}

func (p *pool) drop(w *waiter) {
	p.waiting = slices.DeleteFunc(p.waiting, func(other *waiter) bool { return other == w })
}

func (p *pool) unlend(who authz.Identity) {
	if p.lent[who]--; p.lent[who] <= 0 {
		delete(p.lent, who)
	}
}

// hand gives a session, or the right to open one, to the waiter whose turn it is. It
// reports whether somebody waited.
func (p *pool) hand(session cryptoki.Session) bool {
	if len(p.waiting) == 0 {
		return false
	}
	next := 0
	for i, w := range p.waiting {
		if p.lent[w.who] < p.lent[p.waiting[next].who] {
			next = i
		}
	}
	w := p.waiting[next]
	p.lent[w.who]++
	w.ready <- p.right(session)
	p.waiting = slices.Delete(p.waiting, next, next+1)
	return true
}

// refused gives back the right to open a session that the device would not open. When
// it has too few, there are fewer from now on, and if there are any at all refused reports
// that it is worth while to wait for one.
func (p *pool) refused(r right, who authz.Identity, err error) (wait bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unlend(who)
	if p.met != r.met || isClosed(r.device.Gone) {
		return isClosed(r.device.Gone)
	}
	p.open--
	if errors.Is(err, cryptoki.CKR_SESSION_COUNT) {
		p.most = max(1, p.open)
		wait = p.open > 0
	}
	if p.open < p.most && p.hand(nil) {
		p.open++
	}
	return wait
}
