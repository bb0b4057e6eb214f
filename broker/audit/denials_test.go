package audit

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// TestDenialFlood: a caller without rights cannot fill the disk, and none of its
// calls is lost from the count. Others are recorded as ever.
func TestDenialFlood(t *testing.T) {
	onDisk(t, nil, func(t *testing.T, l *Log, _ *disk) {
		const flood, seconds = 200, 300
		for range seconds {
			for i := range flood {
				e := Event{Action: "decrypt", Outcome: Denied, Caller: &Caller{UID: 1000, GID: 1000, PID: 1}, Application: true}
				if i%4 == 0 {
					e.Outcome = Failed
				}
				if err := l.Append(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
			for _, e := range []Event{
				{Action: "decrypt", Outcome: Done, Caller: &Caller{UID: 1000}, Application: true},
				{Action: "encrypt", Outcome: Failed, RequestID: "r", Caller: &Caller{UID: 1000}, Application: true},
			} {
				if err := l.Append(t.Context(), e); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
		}
		if err := l.Append(t.Context(), Event{Action: "decrypt", Outcome: Denied, Caller: &Caller{UID: 1001}, Key: "other", Application: true}); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		var own, counted, summaries, useful, others int
		err := Search(l.Dir, Filter{}, func(e Entry) error {
			switch {
			case e.Action == LogDenials:
				summaries++
				if e.Details[DetailUID] != "1000" || e.Details[DetailFrom] > e.Details[DetailUntil] {
					t.Errorf("summary %s", e.Line)
				}
				for _, name := range []string{DetailDenied, DetailFailed} {
					n, err := strconv.Atoi(e.Details[name])
					if err != nil {
						t.Error(err)
					}
					counted += n
				}
			case e.Outcome == Done && e.Action == "decrypt" || e.RequestID != "":
				useful++
			case e.Key == "other":
				others++
			case e.Caller != nil:
				own++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if own+counted != flood*seconds || useful != 2*seconds || others != 1 {
			t.Errorf("%d recorded and %d counted of %d, %d others", own, counted, flood*seconds, others)
		}
		if limit := denialBurst + seconds/int(denialInterval.Seconds()) + 1; own > limit || summaries > seconds/60+1 {
			t.Errorf("%d records of their own, %d summaries", own, summaries)
		}
	})
}

// TestDenialsOfApplications are counted by their names, and not as root's.
func TestDenialsOfApplications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d denials
		callers := []Caller{{}, {App: "batch"}, {App: "web"}}
		for _, caller := range callers {
			for range denialBurst + 2 {
				d.suppresses(&Event{Outcome: Denied, Application: true, Caller: &caller}, time.Now())
			}
		}
		events := d.summaries(time.Now(), true)
		if len(events) != len(callers) {
			t.Fatalf("summaries %+v", events)
		}
		for i, caller := range callers {
			uid := "0"
			if caller.App != "" {
				uid = ""
			}
			if got := events[i].Details; got[DetailDenied] != "2" || got[DetailApp] != caller.App || got[DetailUID] != uid {
				t.Errorf("%+v: %v", caller, got)
			}
		}
	})
}

// TestDenialUsers: the count of users is bounded, those beyond share a count, and
// who has been quiet is forgotten.
func TestDenialUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d denials
		suppressed := 0
		for uid := range uint32(10 * maxDenialUsers) {
			e := Event{Outcome: Denied, Application: true, Caller: &Caller{UID: uid}}
			if d.suppresses(&e, time.Now()) {
				suppressed++
			}
		}
		if len(d.users) != maxDenialUsers || suppressed != 9*maxDenialUsers-denialBurst {
			t.Errorf("%d users, %d suppressed", len(d.users), suppressed)
		}
		events := d.summaries(time.Now(), true)
		if len(events) != 1 || events[0].Details[DetailDenied] != strconv.Itoa(suppressed) || events[0].Details[DetailUID] != "" {
			t.Errorf("summaries %+v", events)
		}
		time.Sleep(denialInterval)
		d.summaries(time.Now(), false)
		if len(d.users) != 0 {
			t.Errorf("%d users after a while", len(d.users))
		}
	})
}
