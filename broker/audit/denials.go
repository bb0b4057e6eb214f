package audit

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
	"time"
)

// How many calls of one user or application that come to nothing have records of their own:
// some at once, then one in a while. The others are counted.
const (
	denialBurst    = 30
	denialInterval = 10 * time.Second
	summaryDelay   = time.Minute
	// maxDenialUsers bounds the memory and the records that users without any
	// right can cause. Further ones share a count.
	maxDenialUsers = 256
)

// denials keeps callers without rights from filling the disk with the records of
// their refusals.
type denials struct {
	mu    sync.Mutex
	users map[who]*denialCount
	rest  denialCount
}

// who is whose calls are counted together.
type who struct {
	app string
	uid uint32 // of who is no application
}

func (w who) name() (detail, value string) {
	if w.app != "" {
		return DetailApp, w.app
	}
	return DetailUID, strconv.FormatUint(uint64(w.uid), 10)
}

// denialCount is a token bucket and what it did not let through.
type denialCount struct {
	used           float64 // tokens
	at             time.Time
	denied, failed uint64
	from, until    time.Time
}

// suppresses reports that an event is counted instead of being recorded.
func (d *denials) suppresses(e *Event, at time.Time) bool {
	nothing := e.Outcome == Denied || e.Outcome == Failed && e.RequestID == ""
	if !e.Application || !nothing || e.Caller == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.of(who{e.Caller.App, e.Caller.UID}).takes(e, at)
}

func (d *denials) of(caller who) *denialCount {
	if c := d.users[caller]; c != nil {
		return c
	}
	if len(d.users) >= maxDenialUsers {
		return &d.rest
	}
	if d.users == nil {
		d.users = map[who]*denialCount{}
	}
	c := &denialCount{}
	d.users[caller] = c
	return c
}

func (c *denialCount) takes(e *Event, at time.Time) bool {
	c.refill(at)
	if c.used+1 <= denialBurst {
		c.used++
		return true
	}
	if c.denied+c.failed == 0 {
		c.from = at
	}
	c.until = at
	if e.Outcome == Denied {
		c.denied++
	} else {
		c.failed++
	}
	return false
}

func (c *denialCount) refill(at time.Time) {
	c.used = max(0, c.used-at.Sub(c.at).Seconds()/denialInterval.Seconds())
	c.at = at
}

// summaries returns the counts that are due, or all of them, as events, and
// begins new ones.
func (d *denials) summaries(at time.Time, all bool) []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	var events []Event
	for caller, c := range d.users {
		if c.due(at, all) {
			e := c.event()
			detail, value := caller.name()
			e.Details[detail] = value
			events = append(events, e)
		}
		if c.refill(at); c.used == 0 && c.denied+c.failed == 0 {
			delete(d.users, caller)
		}
	}
	slices.SortFunc(events, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.Details[DetailApp], b.Details[DetailApp]), cmp.Compare(a.Details[DetailUID], b.Details[DetailUID]))
	})
	if d.rest.due(at, all) {
		events = append(events, d.rest.event())
	}
	return events
}

func (c *denialCount) due(at time.Time, all bool) bool {
	return c.denied+c.failed > 0 && (all || at.Sub(c.from) >= summaryDelay)
}

// event is the summary of a count, which it resets.
func (c *denialCount) event() Event {
	e := Event{Action: LogDenials, Outcome: Denied, Details: map[string]string{
		DetailDenied: strconv.FormatUint(c.denied, 10),
		DetailFailed: strconv.FormatUint(c.failed, 10),
		DetailFrom:   c.from.UTC().Format(timeLayout),
		DetailUntil:  c.until.UTC().Format(timeLayout),
	}}
	c.denied, c.failed = 0, 0
	return e
}
