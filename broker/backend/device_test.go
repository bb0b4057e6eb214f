package backend

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/hsmtest"
)

func TestDeviceIsThatOfTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: healthy}
		b := supervise(t, l)
		first, err := b.Device(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if again, err := b.Device(t.Context()); err != nil || again != first {
			t.Errorf("another device of the same process: %v", err)
		}
		l.last().Kill() // which the supervisor has not seen yet
		if !isClosed(first.Gone) {
			t.Error("the device of a dead process is not gone")
		}
		second, err := b.Device(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if second == first || second.Device.(*sessions).of != l.last() || isClosed(second.Gone) {
			t.Error("not the device of the next process")
		}
	})
}

func TestCallersGetOneDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := supervise(t, &launcher{next: healthy})
		devices := make(chan *Device, 8)
		for range cap(devices) {
			go func() {
				d, _ := b.Device(t.Context())
				devices <- d
			}()
		}
		first := <-devices
		for range cap(devices) - 1 {
			if d := <-devices; d == nil || d != first {
				t.Errorf("got %p and %p", first, d)
			}
		}
	})
}

func TestDeviceIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := supervise(t, &launcher{next: func(int) (*process, error) {
			p := newProcess(hsmtest.New())
			p.unwilling = true
			return p, nil
		}})
		if _, err := b.Device(t.Context()); !errors.Is(err, hsm.NotPermitted) {
			t.Errorf("an unwilling plugin: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := supervise(t, &launcher{next: func(int) (*process, error) { return nil, hsm.Errorf(hsm.TokenGone, "away") }})
		synctest.Wait()
		if _, err := b.Device(t.Context()); !errors.Is(err, hsm.TokenGone) {
			t.Errorf("no process: %v", err)
		}
	})
}

// A call that does not end, or one that is answered as if the device were gone, has
// the process looked at.
func TestDeviceIsWatched(t *testing.T) {
	t.Run("hung", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := &launcher{next: healthy}
			b := supervise(t, l)
			d, err := b.Device(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			d.Hung()
			if !isClosed(d.Gone) {
				t.Error("the process was not killed")
			}
			if _, err := b.Device(t.Context()); err != nil {
				t.Fatal(err)
			}
			d.Hung() // which is history
			if current, err := b.Device(t.Context()); err != nil || isClosed(current.Gone) {
				t.Error("the next process was killed")
			}
		})
	})
	t.Run("suspect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := &launcher{next: healthy}
			b := supervise(t, l)
			d, err := b.Device(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			before, began := l.last().token.Calls("Health"), time.Now()
			d.Suspect()
			synctest.Wait()
			if n := l.last().token.Calls("Health"); n != before+1 || time.Since(began) != 0 {
				t.Errorf("%d checks of the device, after %v", n-before, time.Since(began))
			}
		})
	})
}

func TestDeviceIsWaitedForWithinReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: func(attempt int) (*process, error) {
			if attempt > 0 {
				time.Sleep(startTimeout)
				return nil, hsm.Errorf(hsm.TokenGone, "HSM unreachable")
			}
			return healthy(attempt)
		}}
		b := supervise(t, l)
		if _, err := b.Device(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.last().Kill()
		synctest.Wait()
		began := time.Now()
		if _, err := b.Device(t.Context()); !errors.Is(err, hsm.TokenGone) || time.Since(began) != replaceWait {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		time.Sleep(time.Second)
		if _, err := b.Device(ctx); err == nil {
			t.Error("a device of nothing")
		}
	})
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
