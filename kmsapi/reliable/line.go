package reliable

import (
	"context"
	"slices"
)

type callerKey struct{}

// WithCaller says on whose behalf calls are made. Callers share what there is
// evenly, whatever each of them asks for; calls without a caller count as those
// of one. The name is kept only while a call of it waits.
func WithCaller(ctx context.Context, caller string) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

func callerOf(ctx context.Context) string {
	caller, _ := ctx.Value(callerKey{}).(string)
	return caller
}

// line is calls that wait for something scarce: one queue for each caller, served
// in turn. Its owner guards it.
type line struct {
	queues []*queue // none is empty; the first is served next
	length int
}

type queue struct {
	caller string
	turns  []*turn
}

// turn is a call that waits; granted is closed when it may go on.
type turn struct {
	granted chan struct{}
}

func (l *line) of(caller string) int {
	return slices.IndexFunc(l.queues, func(q *queue) bool { return q.caller == caller })
}

// ahead is how many calls are served before the next one of caller, if nobody
// else comes or leaves.
func (l *line) ahead(caller string) int {
	own, behind := len(l.queues), 0
	if i := l.of(caller); i >= 0 {
		own, behind = i, len(l.queues[i].turns)
	}
	n := behind
	for i, q := range l.queues {
		switch {
		case i < own:
			n += min(len(q.turns), behind+1)
		case i > own:
			n += min(len(q.turns), behind)
		}
	}
	return n
}

// join adds a call at the end of its caller's queue.
func (l *line) join(caller string) *turn {
	t := &turn{granted: make(chan struct{})}
	i := l.of(caller)
	if i < 0 {
		i = len(l.queues)
		l.queues = append(l.queues, &queue{caller: caller})
	}
	l.queues[i].turns = append(l.queues[i].turns, t)
	l.length++
	return t
}

// serve grants the next call its turn, and puts its caller at the end of the
// line.
func (l *line) serve() {
	q := l.queues[0]
	close(q.turns[0].granted)
	q.turns[0] = nil
	q.turns = q.turns[1:]
	l.queues = l.queues[1:]
	if len(q.turns) > 0 {
		l.queues = append(l.queues, q)
	}
	l.length--
}

// leave removes a call that was not granted its turn; false if it was.
func (l *line) leave(caller string, t *turn) bool {
	i := l.of(caller)
	if i < 0 {
		return false
	}
	q := l.queues[i]
	j := slices.Index(q.turns, t)
	if j < 0 {
		return false
	}
	q.turns = slices.Delete(q.turns, j, j+1)
	if len(q.turns) == 0 {
		l.queues = slices.Delete(l.queues, i, i+1)
	}
	l.length--
	return true
}
