package audit

import "time"

// headInterval is how often the head goes to the registry and the journal while
// applications move it. Administrative records move it there at once.
const headInterval = time.Minute

// keepHead tells the head to the registry, and to the journal, which may leave
// the machine. The writer never waits for either.
func (l *Log) keepHead() {
	defer close(l.kept)
	ticker := time.NewTicker(headInterval)
	defer ticker.Stop()
	var told Head
	for {
		ended := false
		select {
		case <-l.moved:
		case <-ticker.C:
		case <-l.done:
			ended = true
		}
		if head := l.Head(); head != told {
			l.tell(head)
			told = head
		}
		if ended {
			return
		}
	}
}

func (l *Log) tell(head Head) {
	l.Logger.Info("audit head", "head", head.String())
	if err := l.Registry.SetAuditHead(head); err != nil {
		l.Logger.Warn("audit head not kept in the registry", "error", err)
	}
}

// Stats are counters since Open, and how the trail is.
type Stats struct {
	Records           uint64 // written
	Bytes             uint64
	Commits           uint64 // groups that were written
	Failures          uint64 // groups that were not
	Refused           uint64 // calls that were not answered for want of a record
	Unrecorded        uint64 // calls that were answered all the same
	SuppressedDenials uint64 // calls that are counted in LogDenials records
	Pending           int    // records on their way
	Err               error  // as Log.Err
}

// Stats returns a snapshot.
func (l *Log) Stats() Stats {
	err := l.Err()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Pending, s.Err = len(l.pending), err
	return s
}

func (l *Log) count(change func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.stats)
}
