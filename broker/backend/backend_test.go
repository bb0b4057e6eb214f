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

func TestReplacesADeadProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: healthy}
		b := supervise(t, l)
		if err := b.Token().Health(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.last().Kill()
		synctest.Wait()
		if s := b.Status(); s.State != Restarting || s.Restarts != 1 || s.PID != 0 {
			t.Errorf("after the death: %+v", s)
		}
		if _, err := b.Token().Keys(t.Context()); err != nil {
			t.Errorf("the call did not wait for the next process: %v", err)
		}
		if l.attempts() != 2 || b.Status().State != Ready {
			t.Errorf("%d attempts, %+v", l.attempts(), b.Status())
		}
	})
}

func TestRepeatsACallWhoseTokenWentAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: healthy}
		b := supervise(t, l)
		synctest.Wait()
		gone := hsm.Errorf(hsm.TokenGone, "link lost")
		l.last().token.FailWith(func(string) error { return gone })
		key, err := b.Token().GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "x"})
		if err != nil || key == nil {
			t.Fatalf("GenerateKey: %v", err)
		}
		if l.attempts() != 2 {
			t.Errorf("%d processes were started, want 2", l.attempts())
		}
	})
}

func TestOtherErrorsAreNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: healthy}
		b := supervise(t, l)
		if _, err := b.Token().Key(t.Context(), hsm.NewKeyID()); !errors.Is(err, hsm.NotFound) {
			t.Errorf("Key: %v", err)
		}
		if calls := l.last().token.Calls("Key"); calls != 1 {
			t.Errorf("the token was asked %d times", calls)
		}
	})
}

// TestWrongPINIsTriedOnce lets an hour pass and calls in vain: no second login.
func TestWrongPINIsTriedOnce(t *testing.T) {
	for _, reason := range []hsm.Reason{hsm.PINIncorrect, hsm.PINLocked, hsm.PINExpired, hsm.PINMissing} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &launcher{next: func(int) (*process, error) { return nil, hsm.Errorf(reason, "no") }}
				b := supervise(t, l)
				time.Sleep(time.Hour)
				if err := b.Token().Health(t.Context()); !errors.Is(err, reason) {
					t.Errorf("Health: %v", err)
				}
				if l.attempts() != 1 || b.Status().State != Blocked {
					t.Errorf("%d login attempts, state %s", l.attempts(), b.Status().State)
				}
			})
		})
	}
}

func TestAbsentTokenIsTriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		absent := hsm.Errorf(hsm.NotFound, "no token of that label")
		l := &launcher{next: func(attempt int) (*process, error) {
			if attempt < 5 {
				return nil, absent
			}
			return newProcess(hsmtest.New()), nil
		}}
		b := supervise(t, l)
		synctest.Wait()
		if s := b.Status(); !errors.Is(s.Err, hsm.NotFound) {
			t.Errorf("status: %+v", s)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := b.Status(); s.State != Ready || l.attempts() != 6 {
			t.Errorf("state %s after %d attempts", s.State, l.attempts())
		}
	})
}

func TestCallerWaitsOnlySoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: func(int) (*process, error) {
			time.Sleep(startTimeout)
			return nil, hsm.Errorf(hsm.TokenGone, "HSM unreachable")
		}}
		b := supervise(t, l)
		start := time.Now()
		err := b.Token().Health(t.Context())
		if !errors.Is(err, hsm.TokenGone) || time.Since(start) != readyWait {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Token().Health(ctx); !errors.Is(err, hsm.Timeout) {
			t.Errorf("with a deadline: %v", err)
		}
	})
}

func TestUnhealthyProcessIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: healthy}
		b := supervise(t, l)
		synctest.Wait()
		first := l.last()
		first.token.FailWith(func(string) error { return hsm.Errorf(hsm.Timeout, "no answer") })
		time.Sleep(2 * healthInterval)
		synctest.Wait()
		select {
		case <-first.exited:
		default:
			t.Error("the silent process was not killed")
		}
		if b.Status().State != Ready || l.attempts() != 2 {
			t.Errorf("state %s after %d attempts", b.Status().State, l.attempts())
		}
	})
}

func TestHungProcessIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: healthy}
		b := supervise(t, l)
		synctest.Wait()
		first := l.last()
		release := make(chan struct{})
		defer close(release)
		// One call hangs inside the library; the health check still passes.
		first.token.FailWith(func(call string) error {
			if call == "Key" {
				select {
				case <-release:
				case <-first.exited:
				case <-time.After(callTimeout + time.Second):
				}
				return hsm.Errorf(hsm.Timeout, "no answer")
			}
			return nil
		})
		if _, err := b.Token().Key(t.Context(), hsm.NewKeyID()); !errors.Is(err, hsm.Timeout) {
			t.Errorf("Key: %v", err)
		}
		synctest.Wait()
		if err := b.Token().Health(t.Context()); err != nil {
			t.Errorf("after the replacement: %v", err)
		}
		if l.attempts() != 2 {
			t.Errorf("%d processes were started, want 2", l.attempts())
		}
	})
}

// TestCircuit: when the device is away, a caller learns it at once.
func TestCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := true
		l := &launcher{next: func(int) (*process, error) {
			if away {
				return nil, hsm.Errorf(hsm.TokenGone, "HSM unreachable")
			}
			return newProcess(hsmtest.New()), nil
		}}
		b := supervise(t, l)
		time.Sleep(time.Hour)
		start := time.Now()
		if err := b.Token().Health(t.Context()); !errors.Is(err, hsm.TokenGone) || time.Since(start) > 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		l.mu.Lock()
		away = false
		l.mu.Unlock()
		time.Sleep(maxBackoffGone)
		synctest.Wait()
		if err := b.Token().Health(t.Context()); err != nil {
			t.Errorf("a second after the device's return: %v", err)
		}
	})
}

func TestRetryLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: func(attempt int) (*process, error) {
			if attempt == 0 {
				return nil, hsm.Errorf(hsm.PINIncorrect, "no")
			}
			return newProcess(hsmtest.New()), nil
		}}
		b := supervise(t, l)
		synctest.Wait()
		if err := b.RetryLogin(); err != nil {
			t.Fatal(err)
		}
		if err := b.Token().Health(t.Context()); err != nil || l.attempts() != 2 {
			t.Errorf("after %d attempts: %v", l.attempts(), err)
		}
	})
}

// TestAwaitStart: it waits for the first attempt of every backend and no longer.
func TestAwaitStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := make(chan struct{})
		slow := func(int) (*process, error) {
			<-begin
			return nil, hsm.Errorf(hsm.TokenGone, "away")
		}
		set := NewSet(supervise(t, &launcher{next: healthy}), supervise(t, &launcher{next: slow}))
		started := make(chan struct{})
		go func() { defer close(started); set.AwaitStart(t.Context()) }()
		synctest.Wait()
		select {
		case <-started:
			t.Error("returned before the second backend had been tried")
		default:
		}
		close(begin)
		<-started
	})
}

// TestHangingReplacement: a device that hangs lets no start fail for a long time,
// and costs callers milliseconds all the same.
func TestHangingReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: func(attempt int) (*process, error) {
			if attempt > 0 {
				time.Sleep(startTimeout)
			}
			return newProcess(hsmtest.New()), nil
		}}
		b := supervise(t, l)
		synctest.Wait()
		l.last().Kill()
		synctest.Wait()
		for _, want := range []time.Duration{replaceWait, 0, 0} {
			start := time.Now()
			if err := b.Token().Health(t.Context()); !errors.Is(err, hsm.TokenGone) || time.Since(start) != want {
				t.Errorf("after %v, want %v: %v", time.Since(start), want, err)
			}
		}
		time.Sleep(startTimeout)
		synctest.Wait()
		if err := b.Token().Health(t.Context()); err != nil {
			t.Errorf("after the device's return: %v", err)
		}
	})
}

// TestHealthThatIsNoIllness: a busy device keeps its process, and so does one that
// answers once what nobody understands.
func TestHealthThatIsNoIllness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &launcher{next: healthy}
		b := supervise(t, l)
		synctest.Wait()
		checks := 0
		l.last().token.FailWith(func(call string) error {
			if call != "Health" {
				return nil
			}
			switch checks++; {
			case checks < 10:
				return hsm.Errorf(hsm.Busy, "come back later")
			case checks%2 == 0:
				return hsm.Errorf(hsm.Internal, "0x80000999")
			default:
				return nil
			}
		})
		time.Sleep(30 * healthInterval)
		synctest.Wait()
		if checks < 20 || b.Status().Restarts != 0 {
			t.Errorf("%d restarts after %d checks", b.Status().Restarts, checks)
		}
		l.last().token.FailWith(func(string) error { return hsm.Errorf(hsm.Internal, "0x80000999") })
		time.Sleep(3 * healthInterval)
		synctest.Wait()
		if b.Status().Restarts != 1 {
			t.Errorf("%d restarts of a device that answers nonsense", b.Status().Restarts)
		}
	})
}

// TestDestroyRepeated: when the first attempt lost its answer, that the key is gone
// is success.
func TestDestroyRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := hsmtest.New()
		l := &launcher{next: func(int) (*process, error) { return newProcess(token), nil }}
		b := supervise(t, l)
		synctest.Wait()
		id := hsm.NewKeyID()
		if _, err := b.Token().GenerateKey(t.Context(), hsm.KeySpec{ID: id, Label: "x"}); err != nil {
			t.Fatal(err)
		}
		lost := false
		token.FailWith(func(call string) error {
			if call != "DestroyKey" || lost {
				return nil
			}
			lost = true
			if err := token.DestroyKey(t.Context(), id); err != nil {
				t.Error(err)
			}
			return hsm.Errorf(hsm.TokenGone, "the answer was lost")
		})
		if err := b.Token().DestroyKey(t.Context(), id); err != nil {
			t.Errorf("the key is still there: %v", err)
		}
		if err := b.Token().DestroyKey(t.Context(), hsm.NewKeyID()); !errors.Is(err, hsm.NotFound) {
			t.Errorf("a key that never was: %v", err)
		}
	})
}

// TestEnteredPINExpired: Luna takes an expired PIN and says so with the next call. It
// is forgotten, so that after the officer has changed it nobody logs in with it.
func TestEnteredPINExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		prompted := NewPromptedPIN()
		l := &launcher{next: func(int) (*process, error) {
			token := hsmtest.New()
			token.FailWith(func(call string) error {
				if call == "Describe" {
					return hsm.Errorf(hsm.PINExpired, "change it")
				}
				return nil
			})
			return newProcess(token), nil
		}}
		b := superviseWith(t, l, prompted)
		synctest.Wait()
		if err := b.Login(t.Context(), []byte("1234")); !errors.Is(err, hsm.PINExpired) {
			t.Fatalf("Login: %v", err)
		}
		if prompted.known() {
			t.Error("the PIN is kept")
		}
		if err := b.RetryLogin(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := b.Status().State; s != WaitingForPIN || l.attempts() != 1 {
			t.Errorf("state %s after %d attempts", s, l.attempts())
		}
	})
}
