package proxy

// Status is how the clients share a token.
type Status struct {
	Name           string // of the backend
	Clients        int    // that have a session on the token
	ClientSessions int    // of theirs, which cost the token nothing
	// Of the sessions that the device has open, or is opening:
	Open   int
	Parked int // between two calls of an operation
	Idle   int // nobody has them
	Most   int // that there may be, 0 while there is no device
	// Waiting are the calls that wait for one.
	Waiting int
	Counts  Counts
}

// Lent are the sessions of the device that a call is made on.
func (s *Status) Lent() int { return s.Open - s.Parked - s.Idle }

// Counts is what has happened on a token since the daemon was started.
type Counts struct {
	Late uint64 // calls that waited for a session in vain
	// Operations whose session was given to a call that waited:
	Resumable uint64 // which begin again on another
	Lost      uint64 // which fail with their next call
}

// Status tells how each token is shared, in the order of their slots.
func (p *Proxy) Status() []Status {
	all := make([]Status, len(p.tokens))
	for i, t := range p.tokens {
		all[i] = t.pool.status()
		all[i].Name = t.name
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, t := range p.tokens {
		all[i].Clients, all[i].ClientSessions = t.clients, t.sessions
	}
	return all
}

func (p *pool) status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Waiting: len(p.waiting), Counts: p.counts}
	if p.device != nil && !isClosed(p.device.Gone) {
		s.Open, s.Parked, s.Idle, s.Most = p.open, len(p.parked), len(p.idle), p.most
	}
	return s
}
