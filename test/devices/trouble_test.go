package devices

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// TestTroubleDuringLogin: an attempt whose outcome nobody knows is repeated once.
// After another one an administrator decides, because a device counts what is
// offered to it.
func TestTroubleDuringLogin(t *testing.T) {
	const deviceError = 0x30
	for name, spoil := range map[string]func(d *device, times int){
		"crash": func(d *device, times int) {
			for range times {
				d.Crash("C_Login")
			}
		},
		"lost answer": func(d *device, times int) { d.Lose("C_Login", deviceError, times) },
	} {
		for times := 1; times <= 2; times++ {
			t.Run(fmt.Sprintf("%s %d", name, times), func(t *testing.T) {
				d := newDevice(t, hsmsim.Luna)
				spoil(d, times)
				b := supervise(t, d, 5*time.Second)
				status := b.await(t, backend.Ready, backend.Blocked)
				logins := 2
				switch {
				case times == 1 && status.State != backend.Ready:
					t.Errorf("after one attempt without an answer: %+v", status)
				case times == 2 && (status.State != backend.Blocked || !errors.Is(status.Err, hsm.LoginUnclear)):
					t.Errorf("after two attempts without an answer: %+v", status)
				case times == 2:
					if n := d.Count("C_Login"); n != logins {
						t.Errorf("%d logins before anybody allowed a third", n)
					}
					if err := b.RetryLogin(); err != nil {
						t.Fatal(err)
					}
					b.ready(t, 0)
					logins++
				}
				if err := b.Token().Health(t.Context()); err != nil {
					t.Errorf("in the end: %v", err)
				}
				if n := d.Count("C_Login"); n != logins {
					t.Errorf("%d logins, want %d", n, logins)
				}
				if n := d.Failures("co"); n != 0 {
					t.Errorf("%d wrong PINs were counted", n)
				}
			})
		}
	}
}
