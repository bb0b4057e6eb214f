package pkcs11

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// pool hands out sessions, one per call in flight: a PKCS#11 session holds one
// operation at a time, and every call into the library blocks a thread.
//
// All calls into the library go through its gate, those of the sessions in
// cryptoki.go too, so whoever has the gate alone knows that the library is idle.
type pool struct {
	module *p11.Ctx
	slot   uint
	logger *slog.Logger
	hints  map[string]string

	places  chan place
	size    int
	gate    gate
	closing chan struct{} // closed when no new call is admitted

	guard guard
}

// place is the right to use one session, and the idle session itself if one is
// open.
type place struct {
	session p11.SessionHandle
	open    bool
}

func newPool(module *p11.Ctx, slot uint, size int, guard guard, config Config) *pool {
	p := &pool{
		module: module, slot: slot, logger: config.Logger, hints: config.Hints, guard: guard,
		places: make(chan place, size), size: size, gate: newGate(), closing: make(chan struct{}),
	}
	for range size {
		p.places <- place{}
	}
	return p
}

// session is what a call works with.
type session struct {
	*p11.Ctx
	handle p11.SessionHandle
	guard  guard // of the pool
	logger *slog.Logger
	// tainted says that the session must be closed after the call: something
	// was left on it that could not be removed.
	tainted bool
}

// do runs fn with a session of its own. fn may run more than once, when a
// session died while it lay idle or the device asks to come back, so fn has to
// begin by looking up what it works on, and a repeat of it must do no harm.
func (p *pool) do(ctx context.Context, fn func(s *session) error) error {
	return p.patiently(ctx, func() error { return p.once(ctx, fn) })
}

func (p *pool) once(ctx context.Context, fn func(s *session) error) error {
	return p.through(ctx, shared, fn)
}

// alone is once while no other call is in the library. Token objects are made and
// destroyed that way: SoftHSM's store hands a session that searches the half
// written file of one that creates, and then both fail or see a wrong key. Such
// calls are rare, so other devices are not treated differently.
func (p *pool) alone(ctx context.Context, fn func(s *session) error) error {
	return p.through(ctx, exclusive, fn)
}

func (p *pool) through(ctx context.Context, passage passage, fn func(s *session) error) error {
	held, err := p.acquire(ctx)
	if err != nil {
		return err
	}
	defer func() { p.places <- held }()
	if err := p.gate.enter(ctx, passage); err != nil {
		return waitEnded(ctx, "a change of the token to finish")
	}
	defer p.gate.leave(passage)
	return p.use(&held, fn)
}

func (p *pool) use(held *place, fn func(s *session) error) error {
	wasIdle := held.open
	err := p.run(held, fn)
	if wasIdle && sessionDied(err) {
		err = p.run(held, fn)
	}
	if err == nil {
		return nil
	}
	return hint(deviceError(err, "use a session"), p.hints)
}

func (p *pool) acquire(ctx context.Context) (place, error) {
	// Asked first, because select chooses at random among what is ready.
	if err := p.admits(ctx); err != nil {
		return place{}, err
	}
	select {
	case held := <-p.places:
		if err := p.admits(ctx); err != nil {
			p.places <- held
			return place{}, err
		}
		return held, nil
	case <-p.closing:
		return place{}, errClosed()
	case <-ctx.Done():
		return place{}, waitEnded(ctx, "a free session")
	}
}

func (p *pool) admits(ctx context.Context) error {
	select {
	case <-p.closing:
		return errClosed()
	default:
	}
	if ctx.Err() != nil {
		return waitEnded(ctx, "a free session")
	}
	return nil
}

func errClosed() error { return hsm.Errorf(hsm.TokenGone, "the token is closed") }

// waitEnded is the error of a call that never reached the device.
func waitEnded(ctx context.Context, what string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return hsm.Errorf(hsm.Busy, "the deadline passed while waiting for %s: nothing was done", what)
	}
	return hsm.Errorf(hsm.Timeout, "the caller gave up while waiting for %s: nothing was done", what)
}

// run opens a session if there is none, runs fn, and closes the session again
// unless it is known to be healthy.
func (p *pool) run(held *place, fn func(s *session) error) error {
	if !held.open {
		handle, err := p.module.OpenSession(p.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		if err != nil {
			return deviceError(err, "open a session")
		}
		*held = place{session: handle, open: true}
	}
	s := &session{Ctx: p.module, handle: held.session, guard: p.guard, logger: p.logger}
	err := s.explain(fn(s))
	if s.tainted || !reusable(err) {
		// An error tells nothing new: the session is given up either way.
		p.guard.removing.Lock()
		_ = p.module.CloseSession(held.session)
		p.guard.removing.Unlock()
		*held = place{}
	}
	return err
}

// reusable reports whether a session that answered with err is as good as new.
// A refusal of the request says nothing against the session; for the rest a new
// one is cheap, and closing it ends whatever operation it still holds.
func reusable(err error) bool {
	if err == nil {
		return true
	}
	switch hsm.ReasonOf(err) {
	case hsm.NotFound, hsm.AlreadyExists, hsm.NotExportable, hsm.AlgorithmUnsupported, hsm.Invalid, hsm.NotPermitted, hsm.Corrupt:
		return true
	default:
		return false
	}
}

func sessionDied(err error) bool {
	switch codeIn(err) {
	case codeName(p11.CKR_SESSION_CLOSED), codeName(p11.CKR_SESSION_HANDLE_INVALID):
		return true
	default:
		return false
	}
}

// patiently repeats call while the device says that it is busy, with growing
// pauses. It gives up with the device's answer when the next pause would outlast
// ctx, and after a few seconds in any case.
func (p *pool) patiently(ctx context.Context, call func() error) error {
	const attempts, first, longest = 10, 20 * time.Millisecond, time.Second
	for attempt, pause := 1, first; ; attempt, pause = attempt+1, min(2*pause, longest) {
		err := call()
		if !saysBusy(err) || attempt == attempts {
			return err
		}
		// Jitter, so that callers who were refused together do not come back
		// together.
		wait := pause/2 + rand.N(pause/2) //nolint:gosec // jitter needs no secrecy
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return err
		}
		select {
		case <-time.After(wait):
		case <-p.closing:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// saysBusy reports whether the device refused a call for now, without having
// begun it.
func saysBusy(err error) bool {
	switch codeIn(err) {
	case codeName(ckrAgain), codeName(ckrBusy), codeName(p11.CKR_SESSION_COUNT):
		return true
	default:
		return false
	}
}

// explain settles CKR_FUNCTION_FAILED, which is a fault of the call while the
// session still answers, and the loss of the token when it does not.
func (s *session) explain(err error) error {
	e, ok := errors.AsType[*hsm.Error](err)
	if !ok || e.Code != codeName(p11.CKR_FUNCTION_FAILED) {
		return err
	}
	if _, gone := s.GetSessionInfo(s.handle); gone == nil {
		return err
	}
	return &hsm.Error{Reason: hsm.TokenGone, Code: e.Code, Detail: e.Detail}
}

// checkLogin proves that the login is in place. Without it private objects are
// invisible, and "not found" would be a lie.
func (s *session) checkLogin() error {
	info, err := s.GetSessionInfo(s.handle)
	if err != nil {
		return deviceError(err, "ask for the state of a session")
	}
	if info.State == p11.CKS_RO_PUBLIC_SESSION || info.State == p11.CKS_RW_PUBLIC_SESSION {
		return hsm.Errorf(hsm.TokenGone, "the login to the token was lost")
	}
	return nil
}

// drain refuses new calls and waits until none is in flight. It may be repeated
// after it timed out.
//
// A call of a session in cryptoki.go has no place, but it asks once more in the gate
// whether it is admitted.
func (p *pool) drain(ctx context.Context) error {
	select {
	case <-p.closing:
	default:
		close(p.closing)
	}
	idle := make([]place, 0, p.size)
	for len(idle) < p.size {
		select {
		case held := <-p.places:
			idle = append(idle, held)
		case <-ctx.Done():
			for _, held := range idle {
				p.places <- held
			}
			return hsm.Errorf(hsm.Timeout, "close token: calls are still inside the PKCS#11 library, at most %d", p.size-len(idle))
		}
	}
	if err := p.gate.enter(ctx, exclusive); err != nil {
		for _, held := range idle {
			p.places <- held
		}
		return hsm.Errorf(hsm.Timeout, "close token: calls of PKCS#11 clients are still inside the PKCS#11 library")
	}
	p.gate.leave(exclusive)
	return nil
}
