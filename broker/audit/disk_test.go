package audit

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// disk is a file whose disk can be silent and can be full.
type disk struct {
	sink
	mu     sync.Mutex
	syncs  int
	fail   error
	room   int           // bytes that a failing write still writes; negative: only the sync fails
	silent chan struct{} // a sync waits until it is closed
}

func (d *disk) set(fail error, room int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail, d.room = fail, room
}

func (d *disk) hold() (release func()) {
	silent := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.silent = silent
	return func() { close(silent) }
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil && d.room >= 0 {
		n, err := d.sink.WriteAt(p[:min(d.room, len(p))], off)
		return n, errors.Join(err, d.fail)
	}
	return d.sink.WriteAt(p, off)
}

func (d *disk) Sync() error {
	d.mu.Lock()
	d.syncs++
	silent, fail := d.silent, d.fail
	d.mu.Unlock()
	if silent != nil {
		<-silent
	}
	return errors.Join(fail, d.sink.Sync())
}

// onDisk runs a test in a bubble, where time passes when all wait, with a trail on
// a disk. Appends order the exchange of the file before its use by the writer.
func onDisk(t *testing.T, change func(*Options), test func(t *testing.T, l *Log, d *disk)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := options(dir)
		o.CommitDelay = 100 * time.Millisecond
		if change != nil {
			change(&o)
		}
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d := &disk{sink: l.segment.file}
		l.segment.file = d
		test(t, l, d)
	})
}

// eventually waits until Err is what it should be.
func untilErr(t *testing.T, l *Log, wanted bool) {
	t.Helper()
	for range 100 {
		if (l.Err() != nil) == wanted {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("after 10 s Err is %v", l.Err())
}

// TestGroups: applications do not wait for the disk, and all records of a while
// share one fsync.
func TestGroups(t *testing.T) {
	onDisk(t, nil, func(t *testing.T, l *Log, d *disk) {
		start := time.Now()
		for i := range 50 {
			if err := l.Append(t.Context(), use(i)); err != nil {
				t.Fatal(err)
			}
		}
		if d.syncs != 0 || l.Head().Seq != 1 || time.Since(start) != 0 {
			t.Errorf("%d fsyncs, head %v, after %v", d.syncs, l.Head(), time.Since(start))
		}
		time.Sleep(l.CommitDelay + time.Nanosecond)
		synctest.Wait()
		if d.syncs != 1 || l.Head().Seq != 51 {
			t.Errorf("%d fsyncs, head %v", d.syncs, l.Head())
		}
		if err := l.Append(t.Context(), event(1)); err != nil || l.Head().Seq != 52 {
			t.Errorf("head %v after an administrative record, %v", l.Head(), err)
		}
		if s := l.Stats(); s.Records != 51 || s.Commits != 2 || s.Pending != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestBeforeAnswer: an application waits for the disk if so configured.
func TestBeforeAnswer(t *testing.T) {
	onDisk(t, func(o *Options) { o.BeforeAnswer = true }, func(t *testing.T, l *Log, d *disk) {
		if err := l.Append(t.Context(), use(1)); err != nil || l.Head().Seq != 2 {
			t.Errorf("head %v, %v", l.Head(), err)
		}
		d.set(syscall.ENOSPC, 0)
		l.reserve.have = 0
		if err := l.Append(t.Context(), use(2)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v", err)
		}
	})
}

// TestFailsClosed: while the disk fails nothing new is acknowledged. Afterwards
// what was acknowledged before is there, and so is the gap.
func TestFailsClosed(t *testing.T) {
	for name, room := range map[string]int{"at once": 0, "within a line": 17, "failing fsync": -1} {
		t.Run(name, func(t *testing.T) {
			onDisk(t, nil, func(t *testing.T, l *Log, d *disk) {
				appendEvents(t, l, 2)
				head := l.Head()
				d.set(syscall.EIO, room)
				if err := l.Append(t.Context(), use(7)); err != nil { // not known yet
					t.Error(err)
				}
				untilErr(t, l, true)
				for _, e := range []Event{use(8), event(9)} {
					err := l.Append(t.Context(), e)
					if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "nothing may be done") {
						t.Errorf("got %v", err)
					}
				}
				if h := l.Head(); h != head || l.Stats().Refused != 2 {
					t.Errorf("head %v becomes %v, stats %+v", head, h, l.Stats())
				}
				d.set(nil, 0)
				untilErr(t, l, false)
				if err := l.Append(t.Context(), event(10)); err != nil {
					t.Error(err)
				}
				s := mustVerify(t, l)
				log := string(read(t, l.Dir))
				if s.Gaps != 1 || !strings.Contains(log, `"refused":"2","unrecorded":"0"`) {
					t.Errorf("%d gaps in\n%s", s.Gaps, log)
				}
				for key, there := range map[string]bool{"key-7": true, "key-8": false, "key-9": false, "key-10": true} {
					if strings.Contains(log, `"`+key+`"`) != there {
						t.Errorf("%s is there: %v", key, !there)
					}
				}
			})
		})
	}
}

// TestUnrecorded: if so configured, applications go on, and how many is recorded.
func TestUnrecorded(t *testing.T) {
	onDisk(t, func(o *Options) { o.Unrecorded = true }, func(t *testing.T, l *Log, d *disk) {
		d.set(syscall.EIO, 0)
		if err := l.Append(t.Context(), event(1)); !errors.Is(err, syscall.EIO) {
			t.Errorf("an administrative record: %v", err)
		}
		for range 3 {
			if err := l.Append(t.Context(), use(1)); err != nil {
				t.Error(err)
			}
		}
		d.set(nil, 0)
		untilErr(t, l, false)
		synctest.Wait()
		if log := string(read(t, l.Dir)); !strings.Contains(log, `"refused":"1","unrecorded":"3"`) {
			t.Error(log)
		}
	})
}

// TestSilentDisk: nobody waits for ever for a disk that does not answer.
func TestSilentDisk(t *testing.T) {
	onDisk(t, nil, func(t *testing.T, l *Log, d *disk) {
		release := d.hold()
		start := time.Now()
		if err := l.Append(t.Context(), event(1)); err == nil || time.Since(start) != patience {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		time.Sleep(time.Second)
		start = time.Now()
		for _, e := range []Event{event(2), use(3)} {
			if err := l.Append(t.Context(), e); err == nil || !strings.Contains(err.Error(), "not answered") {
				t.Errorf("got %v", err)
			}
		}
		if time.Since(start) != 0 || l.Err() == nil {
			t.Errorf("refused after %v, Err is %v", time.Since(start), l.Err())
		}
		release()
		untilErr(t, l, false)
		if err := l.Append(t.Context(), use(4)); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := mustVerify(t, l); s.Gaps != 1 {
			t.Errorf("%d gaps", s.Gaps)
		}
	})
}

// TestQueueIsBounded: a disk that is slow makes callers wait, then refuses them,
// and memory does not grow.
func TestQueueIsBounded(t *testing.T) {
	onDisk(t, nil, func(t *testing.T, l *Log, d *disk) {
		release := d.hold()
		accepted := 0
		start := time.Now()
		for l.Append(t.Context(), use(accepted)) == nil {
			accepted++
		}
		if accepted != maxQueue || time.Since(start) > 2*patience {
			t.Errorf("%d accepted, the next refused after %v", accepted, time.Since(start))
		}
		release()
		untilErr(t, l, false)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := mustVerify(t, l); s.Records < uint64(accepted) {
			t.Errorf("%d of %d", s.Records, accepted)
		}
	})
}

// TestCloseWithoutDisk: a daemon that stops does not hang on a disk.
func TestCloseWithoutDisk(t *testing.T) {
	onDisk(t, nil, func(t *testing.T, l *Log, d *disk) {
		release := d.hold()
		defer release()
		if err := l.Append(t.Context(), use(1)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := l.Close(); err == nil || time.Since(start) != patience {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestCallerGone(t *testing.T) {
	onDisk(t, nil, func(t *testing.T, l *Log, d *disk) {
		release := d.hold()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 2 { // while it waits, and before
			if err := l.Append(ctx, event(1)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
		release()
		if err := l.Append(t.Context(), event(2)); err != nil {
			t.Error(err)
		}
		if s := mustVerify(t, l); s.Records != 3 || s.Gaps != 0 {
			t.Errorf("summary %+v", s)
		}
	})
}

// full is a disk that has room as long as the reserve gives it up.
type full struct {
	sink
	log   *Log
	given int64 // how much of the reserve may be used up
}

func (f *full) WriteAt(p []byte, off int64) (int, error) {
	if f.given >= 0 && f.log.reserve.have > f.log.reserve.want-f.given {
		return 0, syscall.ENOSPC
	}
	return f.sink.WriteAt(p, off)
}

// TestReserve: on a full disk administration goes on with the reserve, and
// applications are refused until it is complete again.
func TestReserve(t *testing.T) {
	onDisk(t, nil, func(t *testing.T, l *Log, _ *disk) {
		f := &full{sink: l.segment.file, log: l, given: 1}
		l.segment.file = f
		info, err := os.Stat(filepath.Join(l.Dir, reserveName))
		if err != nil || info.Sys().(*syscall.Stat_t).Blocks*512 < l.Reserve {
			t.Fatalf("the reserve takes no room: %v, %v", info, err)
		}
		if err := l.Append(t.Context(), use(1)); err != nil { // acknowledged before it is known
			t.Fatal(err)
		}
		if err := l.Append(t.Context(), event(1)); err != nil {
			t.Fatalf("administration on a full disk: %v", err)
		}
		if l.Err() == nil || l.reserve.full() {
			t.Errorf("Err is %v, the reserve has %d", l.Err(), l.reserve.have)
		}
		if err := l.Append(t.Context(), use(2)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("an application on a full disk: %v", err)
		}
		log := string(read(t, l.Dir))
		if !strings.Contains(log, `"action":"decrypt","outcome":"done","key":"key-1"`) || strings.Contains(log, "key-2") {
			t.Error(log)
		}
		time.Sleep(2 * retryDelay) // the disk of this test has room after all
		untilErr(t, l, false)
		if err := l.Append(t.Context(), use(3)); err != nil {
			t.Error(err)
		}
		f.given = -1
		if err := l.Append(t.Context(), event(3)); err != nil {
			t.Error(err)
		}
		if s := mustVerify(t, l); s.Gaps != 1 {
			t.Errorf("%d gaps", s.Gaps)
		}
	})
}

// TestFileTakenAway: a log that nobody will find is no log.
func TestFileTakenAway(t *testing.T) {
	l := open(t, options(t.TempDir()))
	path := paths(t, l.Dir)[0]
	appendEvents(t, l, 1)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), event(1)); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "restart") {
		t.Errorf("removed: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), event(1)); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("replaced: %v", err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, l, 1)
	if s := mustVerify(t, l); s.Gaps != 1 {
		t.Errorf("summary %+v", s)
	}
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), event(1)); err == nil || !strings.Contains(err.Error(), "size") {
		t.Errorf("cut: %v", err)
	}
}

// TestHeadKept: administrative records move the head in the registry at once,
// those of applications within a minute.
func TestHeadKept(t *testing.T) {
	onDisk(t, nil, func(t *testing.T, l *Log, _ *disk) {
		known := func() Head { h, _ := l.Registry.AuditHead(); return h }
		appendEvents(t, l, 1)
		synctest.Wait()
		if known() != l.Head() {
			t.Errorf("after an administrative record: %v, not %v", known(), l.Head())
		}
		if err := l.Append(t.Context(), use(1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if known() == l.Head() {
			t.Error("the head of an application's record was kept at once")
		}
		time.Sleep(headInterval)
		synctest.Wait()
		if known() != l.Head() {
			t.Errorf("after a minute: %v, not %v", known(), l.Head())
		}
	})
}
