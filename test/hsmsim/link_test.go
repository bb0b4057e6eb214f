package hsmsim_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

func TestBehaviour18InjectedCodes(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	for _, code := range []uint{
		p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_DEVICE_ERROR, p11.CKR_TOKEN_NOT_PRESENT,
		p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_USER_NOT_LOGGED_IN, ckrAgain, ckrBusy,
	} {
		d.sim.Inject("C_GenerateRandom", code, 2)
		for range 2 {
			_, err := d.GenerateRandom(session, 1)
			want(t, "injected", err, code)
		}
		_, err := d.GenerateRandom(session, 1)
		want(t, "after it is used up", err, p11.CKR_OK)
	}
	d.sim.Inject("C_GenerateRandom", ckrBusy, hsmsim.Always)
	for range 5 {
		_, err := d.GenerateRandom(session, 1)
		want(t, "sticky", err, ckrBusy)
	}
	d.sim.Reset()
	_, err := d.GenerateRandom(session, 1)
	want(t, "after Reset", err, p11.CKR_OK)
	d.sim.Inject("*", p11.CKR_DEVICE_ERROR, 1)
	_, err = d.GetSessionInfo(session)
	want(t, "any function", err, p11.CKR_DEVICE_ERROR)
	d.sim.Inject("C_Initialize", p11.CKR_DEVICE_ERROR, 1)
	want(t, "C_Finalize", d.Finalize(), p11.CKR_OK)
	want(t, "C_Initialize", d.Initialize(), p11.CKR_DEVICE_ERROR)
	want(t, "C_Initialize again", d.Initialize(), p11.CKR_OK)
}

// Concurrent calls use up exactly what was ordered.
func TestBehaviour18CountsAcrossThreads(t *testing.T) {
	d := start(t, hsmsim.Luna)
	slot := d.slot()
	d.sim.Inject("C_GetTokenInfo", ckrBusy, 20)
	var mu sync.Mutex
	busy := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if _, err := d.GetTokenInfo(slot); isCode(err, ckrBusy) {
					mu.Lock()
					busy++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if busy != 20 {
		t.Errorf("%d of 80 calls were refused, want 20", busy)
	}
}

func TestBehaviour19LinkDown(t *testing.T) {
	for setting, code := range map[string]uint{"0xB3": p11.CKR_SESSION_HANDLE_INVALID, "0x30": p11.CKR_DEVICE_ERROR} {
		t.Run(setting, func(t *testing.T) {
			d := start(t, hsmsim.Luna, hsmsim.Set("lost_code", setting), hsmsim.Set("receive_timeout_ms", "50"))
			session := d.login()
			slot := d.slot()
			before := d.slots(true)
			d.sim.LinkDown()
			began := time.Now()
			_, err := d.GenerateRandom(session, 1)
			want(t, "the call that finds out", err, p11.CKR_DEVICE_ERROR)
			if waited := time.Since(began); waited < 50*time.Millisecond {
				t.Errorf("it waited %v, want at least the receive timeout", waited)
			}
			_, err = d.GenerateRandom(session, 1)
			want(t, "a later call", err, code)
			want(t, "C_Logout", d.Logout(session), code)
			_, err = d.OpenSession(slot, readWrite)
			want(t, "C_OpenSession", err, p11.CKR_TOKEN_NOT_PRESENT)
			_, err = d.GetTokenInfo(slot)
			want(t, "C_GetTokenInfo", err, p11.CKR_TOKEN_NOT_PRESENT)
			if after := d.slots(true); !slices.Equal(before, after) {
				t.Errorf("slots %v became %v", before, after)
			}
		})
	}
}

func TestBehaviour20Reinit(t *testing.T) {
	d := start(t, hsmsim.Luna, hsmsim.Set("receive_timeout_ms", "20"))
	session := d.login()
	key := d.generate(session, p11.NewAttribute(p11.CKA_LABEL, "stays"))
	d.wrapper(session, 2048)
	d.sim.LinkDown()
	_, err := d.GenerateRandom(session, 1)
	want(t, "down", err, p11.CKR_DEVICE_ERROR)
	d.sim.LinkUp()
	_, err = d.GenerateRandom(session, 1)
	want(t, "back without C_Initialize", err, p11.CKR_SESSION_HANDLE_INVALID)
	_, err = d.OpenSession(0, readWrite)
	want(t, "C_OpenSession without C_Initialize", err, p11.CKR_TOKEN_NOT_PRESENT)

	// SoftHSM numbers its handles anew; those of before must not come to life.
	d.again()
	before := session
	session = d.open()
	_, err = d.GenerateRandom(before, 1)
	want(t, "old session", err, p11.CKR_SESSION_HANDLE_INVALID)
	if state, err := d.GetSessionInfo(session); err != nil || state.State != p11.CKS_RW_PUBLIC_SESSION {
		t.Errorf("the login survived: %+v, %v", state, err)
	}
	want(t, "C_Login", d.Login(session, p11.CKU_USER, d.sim.PIN), p11.CKR_OK)
	if n := d.count(session, p11.NewAttribute(p11.CKA_LABEL, "stays")); n != 1 {
		t.Errorf("%d token objects, want 1", n)
	}
	_, err = d.attribute(session, key, p11.CKA_LABEL)
	want(t, "old object handle", err, p11.CKR_OBJECT_HANDLE_INVALID)
	if n := d.count(session, p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY)); n != 0 {
		t.Errorf("%d session objects survived", n)
	}
}

// A device that is still away when the library is initialised needs another
// C_Initialize.
func TestBehaviour20ReinitTooEarly(t *testing.T) {
	d := start(t, hsmsim.Luna, hsmsim.Set("receive_timeout_ms", "20"))
	slot := d.slot()
	d.sim.LinkDown()
	d.again()
	_, err := d.GetTokenInfo(d.slots(true)[0])
	want(t, "down", err, p11.CKR_TOKEN_NOT_PRESENT)
	d.sim.LinkUp()
	_, err = d.OpenSession(slot, readWrite)
	want(t, "back", err, p11.CKR_TOKEN_NOT_PRESENT)
	d.again()
	d.login()
}

// A link that came back before anybody called has cut the sessions off too.
func TestBehaviour20UnnoticedDrop(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	d.sim.LinkDown()
	d.sim.LinkUp()
	_, err := d.GenerateRandom(session, 1)
	want(t, "first call", err, p11.CKR_DEVICE_ERROR)
	_, err = d.GenerateRandom(session, 1)
	want(t, "second call", err, p11.CKR_SESSION_HANDLE_INVALID)
	d.again()
	d.login()
}

func TestBehaviour21IdleDrop(t *testing.T) {
	d := start(t, hsmsim.Luna, hsmsim.Set("receive_timeout_ms", "20"))
	session := d.login()
	slot := d.slot()
	d.sim.IdleDrop("C_OpenSession")
	_, err := d.GenerateRandom(session, 1)
	want(t, "another function", err, p11.CKR_OK)
	_, err = d.OpenSession(slot, readWrite)
	want(t, "C_OpenSession", err, p11.CKR_CRYPTOKI_NOT_INITIALIZED)
	_, err = d.GenerateRandom(session, 1)
	want(t, "afterwards", err, p11.CKR_CRYPTOKI_NOT_INITIALIZED)
	d.again()
	d.login()
}

func TestBehaviour21DuringWrite(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	d.sim.Lose("C_GenerateKey", p11.CKR_DEVICE_ERROR, 1)
	_, err := d.tryGenerate(session, p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_LABEL, "twin"))
	want(t, "C_GenerateKey", err, p11.CKR_DEVICE_ERROR)
	if n := d.count(session, p11.NewAttribute(p11.CKA_LABEL, "twin")); n != 1 {
		t.Errorf("%d keys were made, want 1", n)
	}
	d.generate(session)
}

func TestBehaviour22HAOnly(t *testing.T) {
	d := start(t, hsmsim.LunaHA, hsmsim.Set("failover_ms", "50"), hsmsim.Set("receive_timeout_ms", "20"))
	if got := d.slots(false); !slices.Equal(got, []uint{0}) {
		t.Fatalf("slots %v, want the virtual one alone", got)
	}
	session := d.login()
	key := d.generate(session)
	d.sim.MemberDown(1)
	began := time.Now()
	_, err := d.attribute(session, key, p11.CKA_LABEL)
	want(t, "the call that fails over", err, p11.CKR_OK)
	if waited := time.Since(began); waited < 50*time.Millisecond {
		t.Errorf("failover took %v", waited)
	}
	d.sim.MemberUp(1)
	d.sim.MemberDown(2)
	_, err = d.attribute(session, key, p11.CKA_LABEL)
	want(t, "the other member", err, p11.CKR_OK)

	d.sim.MemberDown(1)
	_, err = d.attribute(session, key, p11.CKA_LABEL)
	want(t, "no member", err, p11.CKR_DEVICE_ERROR)
	d.sim.MemberUp(1)
	d.sim.MemberUp(2)
	_, err = d.attribute(session, key, p11.CKA_LABEL)
	want(t, "members back without C_Initialize", err, p11.CKR_SESSION_HANDLE_INVALID)
	d.again()
	d.login()
}

func TestBehaviour22HAMembersVisible(t *testing.T) {
	d := start(t, hsmsim.LunaHA, hsmsim.Set("ha_only", "0"), hsmsim.Set("failover_ms", "1"))
	describe := func() (serials []string) {
		for i, id := range d.slots(true) {
			info, err := d.GetTokenInfo(id)
			if err != nil || info.Label != d.sim.Label || id != uint(i) {
				t.Errorf("slot %d: %+v, %v", id, info, err)
			}
			serials = append(serials, info.SerialNumber)
		}
		return serials
	}
	all := append(slices.Clone(d.sim.MemberSerials), d.sim.Serial)
	if got := describe(); !slices.Equal(got, all) {
		t.Fatalf("serials %v, want %v", got, all)
	}
	if info, err := d.GetSlotInfo(2); err != nil || info.SlotDescription != "HA Virtual Card Slot" {
		t.Errorf("slot 2: %+v, %v", info, err)
	}
	session := d.login()
	d.sim.MemberDown(1)
	if got := describe(); !slices.Equal(got, all[1:]) {
		t.Errorf("serials with member 1 away: %v, want %v", got, all[1:])
	}
	if state, err := d.GetSessionInfo(session); err != nil || state.SlotID != 1 {
		t.Errorf("the session of the renumbered slot: %+v, %v", state, err)
	}
	d.sim.MemberUp(1)
	if got := describe(); !slices.Equal(got, all) {
		t.Errorf("serials with all members: %v, want %v", got, all)
	}
}

func TestBehaviour22HALabel(t *testing.T) {
	d := start(t, hsmsim.LunaHA, hsmsim.GroupLabel("the-group"), hsmsim.Set("ha_only", "0"))
	member, err := d.GetTokenInfo(0)
	if err != nil {
		t.Fatal(err)
	}
	group, err := d.GetTokenInfo(2)
	if err != nil || group.Label != "the-group" || group.Label != d.sim.Label || member.Label == group.Label {
		t.Errorf("the member is %q and the group %q, %v", member.Label, group.Label, err)
	}
}

func TestBehaviour24HangAndSlow(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	d.sim.Hang("C_GenerateRandom")
	done := make(chan error, 1)
	go func() {
		_, err := d.GenerateRandom(session, 1)
		done <- err
	}()
	if err := d.sim.Await(t.Context(), "C_GenerateRandom", "hang"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.GetSessionInfo(session); err != nil {
		t.Errorf("another call while one hangs: %v", err)
	}
	select {
	case err := <-done:
		t.Fatalf("the call came back while it should hang: %v", err)
	default:
	}
	d.sim.Unhang("C_GenerateRandom")
	want(t, "C_GenerateRandom after Unhang", <-done, p11.CKR_OK)

	d.sim.Slow(50 * time.Millisecond)
	began := time.Now()
	_, err := d.GenerateRandom(session, 1)
	want(t, "slow", err, p11.CKR_OK)
	if waited := time.Since(began); waited < 50*time.Millisecond {
		t.Errorf("a slow call took %v", waited)
	}
}

// A call that is under way when the link goes gets no answer any more.
func TestBehaviour19InFlight(t *testing.T) {
	d := start(t, hsmsim.Luna, hsmsim.Set("receive_timeout_ms", "20"))
	session := d.login()
	d.sim.Slow(300 * time.Millisecond)
	before := d.sim.Count("C_GenerateRandom")
	done := make(chan error, 1)
	go func() {
		_, err := d.GenerateRandom(session, 1)
		done <- err
	}()
	d.sim.LinkDown()
	want(t, "in flight", <-done, p11.CKR_DEVICE_ERROR)
	if n := d.sim.Count("C_GenerateRandom") - before; n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

// Many sessions wrap at once and each gets its own answer.
func TestConcurrentWraps(t *testing.T) {
	d := start(t, hsmsim.Luna)
	main := d.login()
	private := newRSA(t, 2048)
	slot := d.slot()
	errs := make(chan error, 16)
	for worker := range 16 {
		go func() { errs <- wrapOften(d, slot, worker, publicTemplate(&private.PublicKey, canWrap())) }()
	}
	for range 16 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := d.count(main, p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY)); n != 0 {
		t.Errorf("%d public keys are left", n)
	}
}

func wrapOften(d *device, slot uint, worker int, template []*p11.Attribute) error {
	session, err := d.OpenSession(slot, readWrite)
	if err != nil {
		return err
	}
	defer d.CloseSession(session)
	for range 10 {
		key, err := d.tryGenerate(session, p11.NewAttribute(p11.CKA_EXTRACTABLE, true), p11.NewAttribute(p11.CKA_ID, []byte{byte(worker)}))
		if err != nil {
			return err
		}
		public, err := d.CreateObject(session, template)
		if err != nil {
			return err
		}
		blob, err := d.WrapKey(session, oaep(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, nil), public, key)
		if err != nil {
			return err
		}
		if len(blob) != 256 {
			return fmt.Errorf("a blob of %d bytes", len(blob))
		}
		for _, object := range []p11.ObjectHandle{public, key} {
			if err := d.DestroyObject(session, object); err != nil {
				return err
			}
		}
	}
	return nil
}
