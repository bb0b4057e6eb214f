package hsmsim_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

func TestBehaviour01Info(t *testing.T) {
	d := start(t, hsmsim.Luna)
	info, err := d.GetInfo()
	if err != nil {
		t.Fatal(err)
	}
	if info.ManufacturerID != "SafeNet" || info.LibraryDescription != "Chrystoki" || info.CryptokiVersion != (p11.Version{Major: 2, Minor: 20}) {
		t.Errorf("got %+v", info)
	}
}

func TestBehaviour01Configuration(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, file string){
		"no file": func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
		"no LibUNIX64": func(t *testing.T, file string) {
			if err := os.WriteFile(file, []byte("Chrystoki2 = {\n   LibUNIX = /x.so;\n}\nMisc = {\n   LibUNIX64 = /x.so;\n}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"unknown option": func(t *testing.T, file string) {
			if err := os.WriteFile(filepath.Join(filepath.Dir(file), "hsmsim.conf"), []byte("no_such_option = 1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := load(t, hsmsim.New(t, hsmsim.Luna))
			spoil(t, filepath.Join(d.sim.Dir, "Chrystoki.conf"))
			want(t, "C_Initialize", d.Initialize(), p11.CKR_GENERAL_ERROR)
		})
	}
}

func TestBehaviour02SlotList(t *testing.T) {
	d := start(t, hsmsim.Luna, hsmsim.Set("empty_slots", "2"), hsmsim.Partition("second"))
	if got := d.slots(true); !slices.Equal(got, []uint{0, 1}) {
		t.Errorf("slots with a token: %v, want 0 and 1", got)
	}
	all := d.slots(false)
	if !slices.Equal(all, []uint{0, 1, 2, 3}) {
		t.Fatalf("all slots: %v, want 0 to 3", all)
	}
	empty := all[2]
	_, err := d.GetTokenInfo(empty)
	want(t, "C_GetTokenInfo of an empty slot", err, p11.CKR_TOKEN_NOT_PRESENT)
	_, err = d.OpenSession(empty, readWrite)
	want(t, "C_OpenSession with an empty slot", err, p11.CKR_TOKEN_NOT_PRESENT)
	_, err = d.GetTokenInfo(17)
	want(t, "C_GetTokenInfo of no slot", err, p11.CKR_SLOT_ID_INVALID)
}

func TestBehaviour03TokenInfo(t *testing.T) {
	for _, test := range []struct {
		dress hsmsim.Dress
		model string
		major byte
		minor byte
	}{
		{hsmsim.Luna, "LunaSA 7.2.0", 7, 71},
		{hsmsim.LunaFIPS, "LunaSA 7.2.0", 7, 71},
		{hsmsim.LunaOldFirmware, "Luna K6", 6, 24},
		{hsmsim.LunaHA, "LunaVirtual", 7, 71},
		{hsmsim.DPoD, "Cryptovisor7", 7, 71},
	} {
		t.Run(string(test.dress), func(t *testing.T) {
			d := start(t, test.dress, hsmsim.Set("latency_max_ms", "0"), hsmsim.Set("latency_min_ms", "0"), hsmsim.Set("max_sessions", "42"))
			info, err := d.GetTokenInfo(d.slot())
			if err != nil {
				t.Fatal(err)
			}
			if info.Model != test.model || info.ManufacturerID != "SafeNet" || info.Label != d.sim.Label {
				t.Errorf("got %+v", info)
			}
			if info.FirmwareVersion != (p11.Version{Major: test.major, Minor: test.minor}) {
				t.Errorf("firmware %v", info.FirmwareVersion)
			}
			if digits := strings.TrimLeft(info.SerialNumber, "0123456789"); digits != "" || len(info.SerialNumber) < 13 {
				t.Errorf("serial %q is not made of 13 digits", info.SerialNumber)
			}
			if info.MinPinLen != 7 || info.MaxPinLen != 255 || info.MaxSessionCount != 42 || info.MaxRwSessionCount != 42 {
				t.Errorf("limits: %+v", info)
			}
			const flags = p11.CKF_LOGIN_REQUIRED | p11.CKF_USER_PIN_INITIALIZED | p11.CKF_TOKEN_INITIALIZED | p11.CKF_RNG
			if info.Flags != flags {
				t.Errorf("flags %#x, want %#x", info.Flags, flags)
			}
		})
	}
}

func TestBehaviour08Refusals(t *testing.T) {
	d := start(t, hsmsim.Luna)
	want(t, "C_InitToken", d.InitToken(d.slot(), d.sim.SOPIN, "x"), ckrOperationNotAllowed)
	session := d.login()
	want(t, "C_InitPIN as Crypto Officer", d.InitPIN(session, "another-pin"), ckrOperationNotAllowed)
	_, err := d.DigestEncryptUpdate(session, []byte("x"))
	want(t, "C_DigestEncryptUpdate", err, p11.CKR_FUNCTION_NOT_SUPPORTED)
	_, err = d.DecryptDigestUpdate(session, []byte("x"))
	want(t, "C_DecryptDigestUpdate", err, p11.CKR_FUNCTION_NOT_SUPPORTED)
	_, err = d.SignEncryptUpdate(session, []byte("x"))
	want(t, "C_SignEncryptUpdate", err, p11.CKR_FUNCTION_NOT_SUPPORTED)
	_, err = d.DecryptVerifyUpdate(session, []byte("x"))
	want(t, "C_DecryptVerifyUpdate", err, p11.CKR_FUNCTION_NOT_SUPPORTED)
	_, err = d.VerifyRecover(session, []byte("x"))
	want(t, "C_VerifyRecover", err, p11.CKR_FUNCTION_NOT_SUPPORTED)

	// The binding discards the answer of C_WaitForSlotEvent.
	<-d.WaitForSlotEvent(p11.CKF_DONT_BLOCK)
	if err := d.sim.Await(t.Context(), "C_WaitForSlotEvent", "0x00000054"); err != nil {
		t.Error(err)
	}
}

func TestBehaviour13Mechanisms(t *testing.T) {
	for dress, rsaWraps := range map[hsmsim.Dress]bool{hsmsim.Luna: true, hsmsim.LunaFIPS: false} {
		t.Run(string(dress), func(t *testing.T) {
			d := start(t, dress)
			slot := d.slot()
			mechanisms, err := d.GetMechanismList(slot)
			if err != nil {
				t.Fatal(err)
			}
			// The binding asks for the size with a NULL list and takes either answer.
			if err := d.sim.Await(t.Context(), "C_GetMechanismList", "0x00000150"); err != nil {
				t.Error(err)
			}
			for _, wanted := range []uint{p11.CKM_RSA_PKCS, p11.CKM_RSA_PKCS_OAEP, ckmLunaAESKW, ckmLunaAESKWP} {
				if !slices.ContainsFunc(mechanisms, func(m *p11.Mechanism) bool { return m.Mechanism == wanted }) {
					t.Errorf("mechanism 0x%X is not listed", wanted)
				}
			}
			for mechanism, wraps := range map[uint]bool{p11.CKM_RSA_PKCS: rsaWraps, p11.CKM_RSA_PKCS_OAEP: true, ckmLunaAESKWP: true} {
				info, err := d.GetMechanismInfo(slot, []*p11.Mechanism{p11.NewMechanism(mechanism, nil)})
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Flags&p11.CKF_WRAP != 0; got != wraps {
					t.Errorf("mechanism 0x%X: CKF_WRAP is %t, want %t", mechanism, got, wraps)
				}
			}
		})
	}
}

// Luna's key wrapping under AES works as well as it is listed.
func TestBehaviour13AESKeyWrap(t *testing.T) {
	d := start(t, hsmsim.LunaFIPS)
	session := d.login()
	target := d.generate(session)
	kek := d.generate(session, canWrap(), p11.NewAttribute(p11.CKA_UNWRAP, true))
	for mechanism, size := range map[uint]int{ckmLunaAESKW: 40, ckmLunaAESKWP: 40} {
		m := []*p11.Mechanism{p11.NewMechanism(mechanism, nil)}
		blob, err := d.WrapKey(session, m, kek, target)
		if err != nil || len(blob) != size {
			t.Fatalf("mechanism 0x%X: %d bytes, %v", mechanism, len(blob), err)
		}
		again, err := d.UnwrapKey(session, m, kek, blob, []*p11.Attribute{
			p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
			p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
			p11.NewAttribute(p11.CKA_TOKEN, false),
			p11.NewAttribute(p11.CKA_EXTRACTABLE, true),
		})
		if err != nil {
			t.Fatalf("mechanism 0x%X: %v", mechanism, err)
		}
		// Key wrapping has no randomness: the same key gives the same blob.
		if second, err := d.WrapKey(session, m, kek, again); err != nil || !slices.Equal(second, blob) {
			t.Errorf("mechanism 0x%X: another key came back: %v", mechanism, err)
		}
	}
}

func TestBehaviour17Sessions(t *testing.T) {
	d := start(t, hsmsim.Luna)
	first := d.login()
	second := d.open()
	state, err := d.GetSessionInfo(second)
	if err != nil || state.State != p11.CKS_RW_USER_FUNCTIONS || state.SlotID != d.slot() {
		t.Errorf("the login is not shared: %+v, %v", state, err)
	}
	key := d.generate(first)
	for _, handle := range []uint{uint(first), uint(second), uint(key)} {
		if handle < 1<<16 || handle > math.MaxUint32 {
			t.Errorf("handle %d is small", handle)
		}
	}
	if second == first+1 {
		t.Error("session handles count up")
	}
	want(t, "C_CloseSession", d.CloseSession(first), p11.CKR_OK)
	want(t, "C_CloseSession", d.CloseSession(second), p11.CKR_OK)
	want(t, "C_CloseSession twice", d.CloseSession(second), p11.CKR_SESSION_HANDLE_INVALID)
	third := d.open()
	state, err = d.GetSessionInfo(third)
	if err != nil || state.State != p11.CKS_RW_PUBLIC_SESSION {
		t.Errorf("the last session did not log out: %+v, %v", state, err)
	}
	want(t, "C_Login after the last session logged out", d.Login(third, p11.CKU_USER, d.sim.PIN), p11.CKR_OK)
	want(t, "C_CloseAllSessions", d.CloseAllSessions(d.slot()), p11.CKR_OK)
	_, err = d.GetSessionInfo(third)
	want(t, "C_GetSessionInfo after C_CloseAllSessions", err, p11.CKR_SESSION_HANDLE_INVALID)
}

// Neither the log nor the device's files have a PIN in them.
func TestCallLogHasNoSecrets(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.open()
	want(t, "C_Login", d.Login(session, p11.CKU_USER, "a-wrong-pin"), p11.CKR_PIN_INCORRECT)
	want(t, "C_Login", d.Login(session, p11.CKU_USER, d.sim.PIN), p11.CKR_OK)
	if n := d.sim.Count("C_Login"); n != 2 {
		t.Errorf("%d logins are in the call log, want 2", n)
	}
	last := d.sim.Calls()[len(d.sim.Calls())-1]
	if last.Function != "C_Login" || last.Handle != uint(session) || last.PID != os.Getpid() || last.Answer != "0x00000000" {
		t.Errorf("the login is logged as %+v", last)
	}
	roles, err := filepath.Glob(filepath.Join(filepath.Dir(env(d.sim, "SOFTHSM2_CONF")), "tokens.*.roles"))
	if err != nil || len(roles) != 1 {
		t.Fatalf("role files: %v, %v", roles, err)
	}
	for _, path := range []string{env(d.sim, "HSMSIM_LOG"), roles[0]} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if text := string(content); strings.Contains(text, d.sim.PIN) || strings.Contains(text, "a-wrong-pin") {
			t.Errorf("%s has a PIN in it", path)
		}
	}
}

func TestBehaviour24InitializeTwice(t *testing.T) {
	d := start(t, hsmsim.Luna)
	want(t, "second C_Initialize", d.Initialize(), p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)
	want(t, "C_Finalize", d.Finalize(), p11.CKR_OK)
	want(t, "second C_Finalize", d.Finalize(), p11.CKR_CRYPTOKI_NOT_INITIALIZED)
	_, err := d.GetSlotList(true)
	want(t, "C_GetSlotList after C_Finalize", err, p11.CKR_CRYPTOKI_NOT_INITIALIZED)
}

func TestBehaviour24Banner(t *testing.T) {
	for value, printed := range map[string]string{"0": "", "1": "Luna HSM client library\n"} {
		stdout, stderr, state := inChild(t, hsmsim.New(t, hsmsim.Luna, hsmsim.Set("banner", value)), "load")
		if stdout != printed || !state.Success() {
			t.Errorf("banner = %s: printed %q, %s, %s", value, stdout, state, stderr)
		}
	}
}

func TestBehaviour24Crash(t *testing.T) {
	sim := hsmsim.New(t, hsmsim.Luna)
	sim.Crash("C_GenerateRandom")
	stdout, _, state := inChild(t, sim, "use", sim.PIN)
	if status, ok := state.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGSEGV {
		t.Errorf("the process ended with %s, want SIGSEGV", state)
	}
	if stdout != "" || sim.Pending("crash") {
		t.Errorf("printed %q, crash pending: %t", stdout, sim.Pending("crash"))
	}
	if err := sim.Await(t.Context(), "C_GenerateRandom", "crash"); err != nil {
		t.Error(err)
	}
	if stdout, stderr, state := inChild(t, sim, "use", sim.PIN); stdout != "random\n" {
		t.Errorf("after the restart: %q, %s, %s", stdout, state, stderr)
	}
}

func TestBehaviour23FinalizeUnderACall(t *testing.T) {
	sim := hsmsim.New(t, hsmsim.Luna)
	sim.Hang("C_GenerateRandom")
	_, stderr, state := inChild(t, sim, "finalize", env(sim, "HSMSIM_LOG"))
	if status, ok := state.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGABRT {
		t.Errorf("the process ended with %s, want SIGABRT", state)
	}
	if !strings.Contains(stderr, "C_Finalize while 1 calls are in the library") {
		t.Errorf("stderr: %s", stderr)
	}
}
