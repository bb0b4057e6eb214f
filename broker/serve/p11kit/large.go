package p11kit

import (
	"context"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/authz"
)

const (
	// maxLarge is how many large calls of one user are in memory at once, each up to
	// rpc.MaxBody and as much again for the answer.
	maxLarge = 8
	// largeTime is how long another one waits for its turn.
	largeTime = 30 * time.Second
)

// whose is who shares a line: a user, or all strangers, who may be one account with
// thousands of uids.
type whose struct {
	uid      uint32
	stranger bool
}

func (s *Server) whose(caller authz.Caller) whose {
	if s.Shares.Stranger(caller) {
		return whose{stranger: true}
	}
	return whose{uid: caller.UID}
}

// large has the large calls of each user stand in a line of their own.
type large struct {
	stop context.Context // ends the wait

	mu    sync.Mutex
	wait  time.Duration
	lines map[whose]*line
}

type line struct {
	places chan struct{}
	users  int // in it or waiting
}

// enter takes a place, which must be left.
func (l *large) enter(who whose) (leave func(), ok bool) {
	line, wait := l.join(who)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case line.places <- struct{}{}:
		return func() {
			<-line.places
			l.quit(who, line)
		}, true
	case <-timer.C:
	case <-l.stop.Done():
	}
	l.quit(who, line)
	return nil, false
}

func (l *large) join(who whose) (*line, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines == nil {
		l.lines = map[whose]*line{}
	}
	if l.lines[who] == nil {
		l.lines[who] = &line{places: make(chan struct{}, maxLarge)}
	}
	l.lines[who].users++
	return l.lines[who], l.wait
}

func (l *large) quit(who whose, line *line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if line.users--; line.users == 0 {
		delete(l.lines, who)
	}
}
