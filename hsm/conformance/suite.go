package conformance

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// How long things may take before they are given up. They are far above what a
// distant HSM needs: a Luna HA group may take 20 s to give up a member.
const (
	openTime   = 2 * time.Minute
	closeTime  = time.Minute
	checkTime  = 5 * time.Minute
	removeTime = 2 * time.Minute
	// grace is for calls that should have ended with their context.
	grace = 30 * time.Second
)

// suite is one run.
type suite struct {
	config  Config
	rsa     *wrappingKeys
	witness *witness

	opening sync.Mutex // held while token changes
	token   hsm.Token  // nil when none is open
	stopped error      // why no token is opened any more

	describing sync.Mutex
	info       *hsm.Info // the first answer of Describe

	// foreign counts the keys of others at the start, by what they look like.
	foreign    map[string]int
	foreignErr error
	earlier    []hsm.KeyID
	// believed: the token's check values agree with what it wraps.
	believed bool
	// offered: a wrong PIN was.
	offered bool

	mu sync.Mutex
	// tracked has the IDs of all keys that the suite made or tried to make, and
	// whether they may still be on the token.
	tracked map[hsm.KeyID]bool
}

func (s *suite) run(ctx context.Context) *Report {
	r := &Report{
		Schema: Schema, Suite: Version, Verdict: VerdictPassed,
		RunBy: s.config.RunBy, Plugin: s.config.Plugin, SHA256: s.config.PluginSHA256,
		Started: s.config.Now().UTC(), Destructive: s.config.Destructive,
	}
	for _, c := range checks() {
		result, blocked := s.perform(ctx, c)
		r.add(result)
		switch {
		case result.Status == Failed:
			r.Verdict = VerdictFailed
		case blocked && r.Verdict == VerdictPassed:
			r.Verdict = VerdictIncomplete
		}
		s.config.Progress(result)
	}
	s.close(ctx)
	if s.info != nil {
		r.Device = newDevice(s.info)
	}
	r.LeftBehind, r.Earlier = s.pending(), s.earlier
	r.Ended = s.config.Now().UTC()
	return r
}

// perform makes one check and cleans up behind it.
func (s *suite) perform(ctx context.Context, c check) (result Result, isBlocked bool) {
	s.witness.begin()
	t := &trial{suite: s, id: c.ID}
	began := s.config.Now()
	err := s.attempt(ctx, c, t)
	took := s.config.Now().Sub(began)
	s.remove(ctx)

	result = Result{Check: c.Check, Status: Passed, Detail: t.noted(), Milliseconds: took.Milliseconds()}
	if err != nil {
		o, ok := errors.AsType[*outcome](err)
		if !ok {
			o = &outcome{status: Failed, detail: explain(err, "unexpected answer"), code: codeOf(err)}
		}
		if o.status == Failed && ctx.Err() != nil && c.when != atEnd {
			o = &outcome{status: NotRun, detail: "the run was interrupted", blocked: true}
		}
		result.Status, result.Detail, result.Code, isBlocked = o.status, o.detail, o.code, o.blocked
	}
	if result.Code == "" {
		result.Code = s.witness.lastCode()
	}
	result.Detail, result.Code = s.withhold(result.Detail), s.withhold(result.Code)
	if result.Status == Failed {
		// What the check found may have hurt the token; the next one gets another.
		s.close(ctx)
	}
	return result, isBlocked
}

// withhold keeps a detail out of the report that would carry the PIN into it,
// and makes the words of a backend fit to print.
func (s *suite) withhold(text string) string {
	if s.config.Leaks != nil && s.config.Leaks(text) {
		return "withheld, because it contains the PIN"
	}
	const longest = 2048
	return printable(text, longest)
}

func (s *suite) attempt(ctx context.Context, c check, t *trial) error {
	if c.when == atEnd {
		ctx = context.WithoutCancel(ctx)
	}
	if ctx.Err() != nil {
		return blocked(nil, "the run was interrupted")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if c.when == withToken {
		token, err := s.ensure(ctx)
		if err != nil {
			return blocked(err, "the token does not open")
		}
		t.token = token
	}
	return within(checkTime+grace, func() error { return c.run(ctx, t) })
}

// ensure returns the open token, and opens one when there is none.
func (s *suite) ensure(ctx context.Context) (hsm.Token, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.token == nil {
		if err := s.open(ctx, s.config.Open); err != nil {
			return nil, err
		}
	}
	return s.token, nil
}

// open is the only caller of Config.Open. It includes a login, so nothing is
// opened after one that failed.
func (s *suite) open(ctx context.Context, with func(ctx context.Context) (hsm.Token, error)) error {
	if s.stopped != nil {
		return s.stopped
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	var token hsm.Token
	err := within(openTime+grace, func() (err error) {
		token, err = with(ctx)
		return err
	})
	s.witness.saw("Open", err)
	if err != nil {
		s.stopped = err
		return err
	}
	s.token = &observed{Token: token, witness: s.witness}
	return nil
}

// close closes the open token, if there is one.
func (s *suite) close(ctx context.Context) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if s.token == nil {
		return
	}
	token := s.token
	s.token = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	// What Close owes is the business of its own checks.
	_ = within(closeTime+grace, func() error { return token.Close(ctx) })
}

// within runs fn, and fails when it has not returned after limit. fn then keeps
// its goroutine, because nothing can end it.
func within(limit time.Duration, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- guarded(fn) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return failed("a call did not return within %v, although its context ended before", limit)
	}
}

// guarded turns a panic of a backend in this process into a failure. The value
// of a panic may be secret; that of the runtime is not.
func guarded(fn func() error) (err error) {
	defer func() {
		switch value := recover().(type) {
		case nil:
		case runtime.Error:
			err = failed("panic: %v", value)
		default:
			err = failed("panic with a %T", value)
		}
	}()
	return fn()
}
