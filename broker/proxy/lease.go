package proxy

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// lease is a session of the device in the hands of one client.
type lease struct {
	pool    *pool
	device  *backend.Device
	met     int // pool.met of then
	session cryptoki.Session
	who     authz.Identity

	// Under pool.mu, while parked:
	parked bool
	fed    bool      // with data, so the operation cannot be begun again
	since  time.Time // when it was parked
	taken  bool      // from its operation
}

// soon is how long an operation that only was initialised keeps its session while
// others wait. The call that uses it follows within microseconds, and to open a session
// and begin again costs the device more than to wait for it.
const soon = 20 * time.Millisecond

// release brings a session back. One that has an operation on it, or died, is closed.
func (l *lease) release(clean bool) {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.parked {
		p.unpark(l)
	}
	if l.taken {
		return
	}
	l.taken = true
	p.unlend(l.who)
	if !clean || p.met != l.met {
		shut(l.session)
		if p.met == l.met && !p.hand(nil) {
			p.open--
		}
		return
	}
	if !p.hand(l.session) {
		p.idle = append(p.idle, l.session)
	}
}

// park lets others have the session if they need it more.
func (l *lease) park(fed bool) {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.taken {
		return
	}
	l.parked, l.fed, l.since = true, fed, time.Now()
	p.parked = append(p.parked, l)
	if len(p.waiting) > 0 {
		// Who waits has to know when it may be taken away.
		close(p.moved)
		p.moved = make(chan struct{})
	}
}

// claim takes the session back for a call. It reports whether it was still there.
func (l *lease) claim() bool {
	p := l.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.taken {
		return false
	}
	if l.parked {
		p.unpark(l)
	}
	return true
}

// stealable is how long it takes until a parked lease may be taken away.
func (p *pool) stealable() time.Duration {
	const never = time.Hour
	least := never
	for _, l := range p.parked {
		patience := soon
		if l.fed {
			patience = p.limits.OperationIdle
		}
		least = min(least, patience-time.Since(l.since))
	}
	return least
}

// steal takes away the parked lease that may be taken away first. Its right to be open
// goes over.
func (p *pool) steal() *lease {
	best := max(0, slices.IndexFunc(p.parked, func(l *lease) bool { return !l.fed }))
	victim := p.parked[best]
	p.parked = slices.Delete(p.parked, best, best+1)
	victim.parked, victim.taken = false, true
	if victim.fed {
		p.counts.Lost++
	} else {
		p.counts.Resumable++
	}
	p.unlend(victim.who)
	return victim
}

func (p *pool) unpark(l *lease) {
	l.parked = false
	p.parked = slices.DeleteFunc(p.parked, func(other *lease) bool { return other == l })
}

// shut closes a session of which nobody hears any more.
func shut(session cryptoki.Session) { _ = session.Close() }

// do makes a call on the session. An error means that the session is lost.
func (l *lease) do(ctx context.Context, call *cryptoki.Call) (*cryptoki.Answer, error) {
	return l.call(ctx, func(ctx context.Context) (*cryptoki.Answer, error) { return l.session.Do(ctx, call) })
}

// doBoth makes two calls, of which the second is made whatever came of the first.
func (l *lease) doBoth(ctx context.Context, first, second *cryptoki.Call) (a, b *cryptoki.Answer, err error) {
	a, err = l.call(ctx, func(ctx context.Context) (_ *cryptoki.Answer, err error) {
		a, b, err = cryptoki.DoBoth(ctx, l.session, first, second)
		return a, err
	})
	return a, b, err
}

// call bounds a call, and has the device looked at after an answer that calls for it. A
// panic does not keep the session from others.
func (l *lease) call(ctx context.Context, make func(context.Context) (*cryptoki.Answer, error)) (*cryptoki.Answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.device.CallTimeout)
	defer cancel()
	returned := false
	defer func() {
		if !returned {
			l.release(false)
		}
	}()
	answer, err := make(ctx)
	returned = true
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		l.device.Hung()
	case err == nil && seemsLost(answer.RV):
		l.device.Suspect()
	}
	return answer, err
}

// seemsLost reports a return value that calls for a look at the device.
func seemsLost(rv cryptoki.RV) bool {
	switch rv {
	case cryptoki.CKR_DEVICE_REMOVED, cryptoki.CKR_DEVICE_ERROR, cryptoki.CKR_TOKEN_NOT_PRESENT,
		cryptoki.CKR_USER_NOT_LOGGED_IN, cryptoki.CKR_CRYPTOKI_NOT_INITIALIZED:
		return true
	default:
		return false
	}
}
