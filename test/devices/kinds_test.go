package devices

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/conformance"
	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// open opens the device's token in a plugin of its own until the test ends.
func (d *device) open(t *testing.T) (hsm.Token, error) {
	t.Helper()
	o := &one{launch: d.launch}
	t.Cleanup(o.kill)
	return o.open(t.Context())
}

func (d *device) mustOpen(t *testing.T) hsm.Token {
	t.Helper()
	token, err := d.open(t)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func generate(t *testing.T, token hsm.Token) hsm.KeyID {
	t.Helper()
	id := hsm.NewKeyID()
	if _, err := token.GenerateKey(t.Context(), hsm.KeySpec{ID: id, Label: "kind"}); err != nil {
		t.Fatal(err)
	}
	return id
}

// TestDescription: what each device tells of itself.
func TestDescription(t *testing.T) {
	for _, test := range []struct {
		dress    hsmsim.Dress
		fips     bool
		firmware string
	}{
		{hsmsim.Luna, false, "7.7.1"}, {hsmsim.LunaFIPS, true, "7.7.1"}, {hsmsim.LunaOldFirmware, false, "6.2.4"}, {hsmsim.DPoD, true, "7.7.1"},
	} {
		info, err := newDevice(t, test.dress).mustOpen(t).Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.FIPS == nil || *info.FIPS != test.fips || info.Firmware != test.firmware || info.Role != hsm.CryptoOfficer {
			t.Errorf("%s: %+v", test.dress, info)
		}
		if len(info.Policies) > 0 && !slices.ContainsFunc(info.Policies, func(p hsm.Policy) bool { return p.Number == 5 && p.Value == 1 }) {
			t.Errorf("%s: policies %+v", test.dress, info.Policies)
		}
	}
}

// TestCryptoUser looks and changes nothing, and the suite says so of each check.
func TestCryptoUser(t *testing.T) {
	officer := newDevice(t, hsmsim.Luna)
	id := generate(t, officer.mustOpen(t))
	user := newDeviceWith(t, hsmsim.Luna, map[string]string{"role": string(hsm.CryptoUser)})
	token := user.mustOpen(t)
	if _, err := token.Keys(t.Context()); err != nil {
		t.Errorf("list: %v", err)
	}
	if err := token.Health(t.Context()); err != nil {
		t.Errorf("health: %v", err)
	}
	_, generated := token.GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "x"})
	_, wrapped := token.Wrap(t.Context(), hsm.WrapRequest{Key: id, Algorithm: hsm.OAEPSHA256, PublicKey: wrappingKey(t)})
	_, sealed := token.SealKey(t.Context(), id)
	for what, err := range map[string]error{"generate": generated, "wrap": wrapped, "seal": sealed, "destroy": token.DestroyKey(t.Context(), id)} {
		if !errors.Is(err, hsm.NotPermitted) || !strings.Contains(err.Error(), "Crypto User") {
			t.Errorf("%s: %v", what, err)
		}
	}
	suite := &one{launch: user.launch}
	defer suite.kill()
	report := conformance.Run(t.Context(), conformance.Config{Open: suite.open})
	if report.Verdict != conformance.VerdictPassed || report.Totals.NotSupported == 0 {
		t.Errorf("%s: %+v", report.Verdict, report.Totals)
	}
	for _, r := range report.Results {
		if r.Status == conformance.Failed {
			t.Error(r)
		}
	}
}

// TestGroup: the virtual slot of a group is taken and none of its members; one of
// these may fail, and after all have the group is found again.
func TestGroup(t *testing.T) {
	d := newDevice(t, hsmsim.LunaHA, hsmsim.Set("ha_only", "0"))
	b := supervise(t, d, 10*time.Second)
	b.ready(t, 0)
	if serial := b.Status().Info.Serial; serial != d.Serial {
		t.Errorf("the token has the serial %s, the group %s", serial, d.Serial)
	}
	d.MemberDown(1)
	generate(t, b.Token())
	d.MemberDown(2)
	if _, err := b.Token().GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "x"}); !errors.Is(err, hsm.TokenGone) && !errors.Is(err, hsm.Timeout) {
		t.Errorf("without members: %v", err)
	}
	d.MemberUp(1)
	d.MemberUp(2)
	b.serves(t)

	member := newDeviceWith(t, hsmsim.LunaHA, nil, hsmsim.Set("ha_only", "0"))
	refused := newMember(t, member)
	if _, err := refused.open(t); !errors.Is(err, hsm.Misconfigured) || !strings.Contains(err.Error(), "group") {
		t.Errorf("a member by its serial: %v", err)
	}
}

// newMember is another plugin for the same device that names a member.
func newMember(t *testing.T, d *device) *device {
	t.Helper()
	other := *d
	other.launch = relaunch(d, map[string]string{"token_label": "", "token_serial": d.MemberSerials[0]})
	return &other
}

// serves waits until the token does.
func (s *supervised) serves(t *testing.T) {
	t.Helper()
	const patience = 20 * time.Second
	var err error
	for begin := time.Now(); time.Since(begin) < patience; {
		if err = s.Token().Health(t.Context()); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("not served within %v: %v", patience, err)
}

// TestSlowService: DPoD's own latency and a token that has expired cost time and
// nothing else.
func TestSlowService(t *testing.T) {
	d := newDevice(t, hsmsim.DPoD)
	b := supervise(t, d, 5*time.Second)
	b.ready(t, 0)
	d.JWTExpired()
	id := generate(t, b.Token())
	for range 3 {
		generate(t, b.Token())
	}
	if keys, err := b.Token().Keys(t.Context()); err != nil || len(keys) != 4 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	if _, err := b.Token().Wrap(t.Context(), hsm.WrapRequest{Key: id, Algorithm: hsm.OAEPSHA256, PublicKey: wrappingKey(t)}); err != nil {
		t.Error(err)
	}
	if n := b.Status().Restarts; n != 0 {
		t.Errorf("%d restarts", n)
	}
}

// TestSlotsComeAndGo: a service that appears is found, and one that was deleted is
// said to be away and not never there.
func TestSlotsComeAndGo(t *testing.T) {
	d := newDevice(t, hsmsim.DPoD, hsmsim.Set("latency_min_ms", "0"), hsmsim.Set("latency_max_ms", "1"))
	d.Hide(d.Label)
	b := supervise(t, d, 5*time.Second)
	if err := b.Token().Health(t.Context()); err == nil {
		t.Error("a slot that is not there serves")
	}
	d.Show(d.Label)
	b.serves(t)
	b.stop()
	d.Delete(d.Label)
	if _, err := d.open(t); err == nil || !strings.Contains(err.Error(), "deleted") && !strings.Contains(err.Error(), "CKR_TOKEN_NOT_PRESENT") {
		t.Errorf("a deleted service: %v", err)
	}
}

// TestTroubleDuringLogin: an attempt whose outcome nobody knows is repeated once, and
// then an administrator decides.
func TestTroubleDuringLogin(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(*device, int)
	}{
		{"crash", func(d *device, n int) {
			for range n {
				d.Crash("C_Login")
			}
		}},
		{"lost link", func(d *device, n int) { d.Lose("C_Login", 0x30, n) }},
	} {
		for times, blocked := range map[int]bool{1: false, 2: true} {
			d := newDevice(t, hsmsim.Luna)
			b := superviseBroken(t, d, func() { test.spoil(d, times) })
			b.settled(t)
			status := b.Status()
			if blocked && (status.State != backend.Blocked || hsm.ReasonOf(status.Err) != hsm.LoginUnclear) || !blocked && status.State != backend.Ready {
				t.Errorf("%s, %d times: %+v", test.name, times, status)
			}
			if n := d.Count("C_Login"); n > 2 {
				t.Errorf("%s, %d times: %d logins", test.name, times, n)
			}
			b.stop()
		}
	}
}

func superviseBroken(t *testing.T, d *device, prepare func()) *supervised {
	t.Helper()
	prepare()
	return supervise(t, d, 5*time.Second)
}

// settled waits until the backend is ready or blocked.
func (s *supervised) settled(t *testing.T) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case status := <-s.news:
			if status.State == backend.Ready || status.State == backend.Blocked {
				return
			}
		case <-timeout:
			t.Fatalf("neither ready nor blocked: %+v", s.Status())
		}
	}
}

// TestLimits: many callers share few sessions, and a full token says so.
func TestLimits(t *testing.T) {
	few := newDevice(t, hsmsim.Luna, hsmsim.Set("max_sessions", "3")).mustOpen(t)
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for range 5 {
				if err := few.Health(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	for _, dress := range []hsmsim.Dress{hsmsim.Luna, hsmsim.DPoD} {
		full := newDevice(t, dress, hsmsim.Set("max_objects", "2")).mustOpen(t)
		var err error
		for range 4 {
			if _, err = full.GenerateKey(t.Context(), hsm.KeySpec{ID: hsm.NewKeyID(), Label: "x"}); err != nil {
				break
			}
		}
		if !errors.Is(err, hsm.StorageFull) {
			t.Errorf("%s: a full token: %v", dress, err)
		}
	}
}

// TestLibraryIsFound: without a setting, through the client's own configuration.
func TestLibraryIsFound(t *testing.T) {
	d := newDeviceWith(t, hsmsim.Luna, map[string]string{"library": ""})
	if err := d.mustOpen(t).Health(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestInitTokenIsRefused where a security officer makes partitions with the vendor's
// own tool.
func TestInitTokenIsRefused(t *testing.T) {
	for _, dress := range []hsmsim.Dress{hsmsim.Luna, hsmsim.DPoD} {
		d := newDevice(t, dress)
		_, err := backend.InitToken(t.Context(), d.config, "new", []byte("1234-officer"), []byte("1234-user"))
		if !errors.Is(err, hsm.NotPermitted) || !strings.Contains(err.Error(), "lunacm") {
			t.Errorf("%s: %v", dress, err)
		}
	}
}
