package pin

import (
	"context"
	"errors"
	"runtime"
	"sync"
)

// Tries is how many PINs in a row may be wrong.
const Tries = 10

// mostCallers bounds the callers that are counted apart. An account with a range of
// subordinate uids can be very many; those beyond share one count.
const mostCallers = 4096

// What a PIN that is given can be.
var (
	ErrWrong  = errors.New("the application PIN is wrong")
	ErrLocked = errors.New("too many wrong application PINs in a row: no more are tried before the policy is reloaded")
)

// Guard compares PINs with hashes. After [Tries] wrong ones in a row from a caller it
// compares that caller's PINs with that hash no more, and those of others still. What
// it has counted is forgotten with it. It may be used concurrently.
type Guard struct {
	// slots are taken while a PIN is hashed: half of the processors at the most.
	slots   chan struct{}
	matches func(hash string, given []byte) (bool, error)

	mu      sync.Mutex
	callers map[string]*caller
	rest    caller
}

type caller struct {
	turn  chan struct{}  // taken by the one of its calls that goes on
	calls int            // that have or want the turn
	wrong map[string]int // in a row, by hash
}

// NewGuard makes a guard that has seen no PINs.
func NewGuard() *Guard {
	return &Guard{
		slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), matches: matches,
		callers: map[string]*caller{}, rest: newCaller(),
	}
}

func newCaller() caller { return caller{turn: make(chan struct{}, 1), wrong: map[string]int{}} }

// Check compares a PIN with hashes, of which who knows at least one, and returns those
// that it belongs to. It is wrong when it belongs to none, and then counts against all
// of them; one that is empty or longer than [Longest] counts against none, as nobody
// guesses that. The calls of one caller go on one after the other, so that many
// connections try no more than one does.
//
// The errors are [ErrWrong], [ErrLocked] when no hash is left to compare with, that
// of ctx when it ends during the wait, and others for what is no hash.
func (g *Guard) Check(ctx context.Context, who string, hashes []string, given []byte) (known []string, err error) {
	if len(given) == 0 || len(given) > Longest {
		return nil, ErrWrong
	}
	c := g.enter(who)
	defer g.leave(who, c)
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	open := g.open(c, hashes)
	if len(open) == 0 {
		return nil, ErrLocked
	}
	for _, hash := range open {
		ok, err := g.compare(ctx, hash, given)
		if err != nil {
			return nil, err
		}
		if ok {
			known = append(known, hash)
		}
	}
	g.count(c, open, known)
	if len(known) == 0 {
		return nil, ErrWrong
	}
	return known, nil
}

// compare takes a slot for as long as it hashes.
func (g *Guard) compare(ctx context.Context, hash string, given []byte) (bool, error) {
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return g.matches(hash, given)
}

func (g *Guard) enter(who string) *caller {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.callers[who]
	switch {
	case c != nil:
	case len(g.callers) >= mostCallers:
		c = &g.rest
	default:
		made := newCaller()
		c = &made
		g.callers[who] = c
	}
	c.calls++
	return c
}

// leave forgets a caller of whom there is nothing to know.
func (g *Guard) leave(who string, c *caller) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.calls--
	if c.calls == 0 && len(c.wrong) == 0 && g.callers[who] == c {
		delete(g.callers, who)
	}
}

// open returns the hashes that the caller may still try.
func (g *Guard) open(c *caller, hashes []string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var open []string
	for _, hash := range hashes {
		if c.wrong[hash] < Tries {
			open = append(open, hash)
		}
	}
	return open
}

// count begins anew for hashes that the PIN belongs to. If there are none, it was
// wrong for all that were compared.
func (g *Guard) count(c *caller, compared, known []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, hash := range known {
		delete(c.wrong, hash)
	}
	if len(known) == 0 {
		for _, hash := range compared {
			c.wrong[hash]++
		}
	}
}
