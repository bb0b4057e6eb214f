package backend

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/hsmtest"
)

// TestStoppedProcessIsReplaced: nobody calls and no health check is due for long,
// but the process does not answer.
func TestStoppedProcessIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: func(attempt int) (*process, error) {
			p := newProcess(hsmtest.New())
			p.stopped = attempt == 0
			if p.stopped {
				p.token.FailWith(func(call string) error {
					if call == "Health" {
						<-p.exited
					}
					return nil
				})
			}
			return p, nil
		}}
		b := supervise(t, l)
		time.Sleep(pingInterval + pingTimeout + minBackoff)
		synctest.Wait()
		if s := b.Status(); s.State != Ready || s.Restarts != 1 || l.attempts() != 2 {
			t.Errorf("%d processes, %+v", l.attempts(), s)
		}
	})
}

// TestSlowDeviceIsLeftAlone: its health checks take almost as long as a call may.
func TestSlowDeviceIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: healthy}
		b := supervise(t, l)
		synctest.Wait()
		l.last().token.FailWith(func(string) error { time.Sleep(callTimeout - time.Second); return nil })
		time.Sleep(time.Hour)
		if s := b.Status(); s.Restarts != 0 || s.State != Ready {
			t.Errorf("%+v", s)
		}
	})
}

// TestServesBeforeItIsDescribedAgain: only the first process is asked what the
// device can do before it serves, and what a later one says replaces it.
func TestServesBeforeItIsDescribedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 3 * time.Second
		describeSlowly := func(call string) error {
			if call == "Describe" {
				time.Sleep(slow)
			}
			return nil
		}
		l := &launcher{next: func(attempt int) (*process, error) {
			p := newProcess(hsmtest.New(hsm.WrappingAlgorithms()[attempt]))
			p.token.FailWith(describeSlowly)
			return p, nil
		}}
		b := supervise(t, l)
		algorithms := func() []hsm.WrappingAlgorithm { return b.Status().Info.WrappingAlgorithms }

		synctest.Wait()
		if s := b.Status(); s.State != Starting || s.Info != nil {
			t.Errorf("before its first description: %+v", s)
		}
		time.Sleep(slow)
		synctest.Wait()
		if s := b.Status(); s.State != Ready || !slices.Equal(algorithms(), hsm.WrappingAlgorithms()[:1]) {
			t.Errorf("after its first description: %+v", s)
		}
		l.last().Kill()
		time.Sleep(minBackoff)
		synctest.Wait()
		if s := b.Status(); s.State != Ready || !slices.Equal(algorithms(), hsm.WrappingAlgorithms()[:1]) {
			t.Errorf("after a restart: %+v", s)
		}
		time.Sleep(slow)
		synctest.Wait()
		if !slices.Equal(algorithms(), hsm.WrappingAlgorithms()[1:2]) {
			t.Errorf("after the second description: %v", algorithms())
		}
	})
}

// TestReturnDuringALongAttempt: the attempt that was begun a moment too early is
// not followed by a pause.
func TestReturnDuringALongAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const inVain = maxBackoffGone
		var back atomic.Bool
		l := &launcher{}
		l.next = func(int) (*process, error) {
			if !back.Load() {
				time.Sleep(inVain)
				return nil, hsm.Errorf(hsm.NotFound, "no token of that label")
			}
			return newProcess(hsmtest.New()), nil
		}
		b := supervise(t, l)
		// Attempts follow each other without a pause, so one is under way.
		time.Sleep(time.Minute)
		back.Store(true)
		time.Sleep(inVain + minBackoff)
		synctest.Wait()
		if err := b.Token().Health(t.Context()); err != nil {
			t.Errorf("after the device's return: %v", err)
		}
	})
}

// TestLongListIsLeftAlone: a list may take longer than a call, though not for
// ever.
func TestLongListIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: healthy}
		b := supervise(t, l)
		synctest.Wait()
		first := l.last()
		list := func(takes time.Duration, err error) {
			first.token.FailWith(func(call string) error {
				if call != "Keys" {
					return nil
				}
				time.Sleep(takes)
				return err
			})
		}
		list(listCalls*callTimeout-time.Second, nil)
		if _, err := b.Token().Keys(t.Context()); err != nil || l.attempts() != 1 {
			t.Errorf("%d processes, %v", l.attempts(), err)
		}
		list(listCalls*callTimeout+time.Second, hsm.Errorf(hsm.Timeout, "no answer"))
		if _, err := b.Token().Keys(t.Context()); !errors.Is(err, hsm.Timeout) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		select {
		case <-first.exited:
		default:
			t.Error("the process was not killed")
		}
	})
}
