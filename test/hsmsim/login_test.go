package hsmsim_test

import (
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

func TestBehaviour04Roles(t *testing.T) {
	for name, test := range map[string]struct {
		user uint
		pin  func(*hsmsim.Sim) string
		code uint
	}{
		"security officer":       {p11.CKU_SO, func(s *hsmsim.Sim) string { return s.SOPIN }, p11.CKR_OK},
		"crypto officer":         {p11.CKU_USER, func(s *hsmsim.Sim) string { return s.PIN }, p11.CKR_OK},
		"crypto user":            {ckuCryptoUser, func(s *hsmsim.Sim) string { return s.CUPIN }, p11.CKR_OK},
		"crypto officer's PIN":   {ckuCryptoUser, func(s *hsmsim.Sim) string { return s.PIN }, p11.CKR_PIN_INCORRECT},
		"limited crypto officer": {ckuLimitedCryptoOfficer, func(*hsmsim.Sim) string { return "3456-limited" }, p11.CKR_USER_PIN_NOT_INITIALIZED},
		"context specific":       {p11.CKU_CONTEXT_SPECIFIC, func(s *hsmsim.Sim) string { return s.PIN }, p11.CKR_USER_TYPE_INVALID},
		"old limited user":       {0x08000001, func(s *hsmsim.Sim) string { return s.PIN }, p11.CKR_USER_TYPE_INVALID},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, hsmsim.Luna)
			session := d.open()
			want(t, "C_Login", d.Login(session, test.user, test.pin(d.sim)), test.code)
		})
	}
}

func TestBehaviour04OneRoleAtATime(t *testing.T) {
	d := start(t, hsmsim.Luna, hsmsim.Set("lco_pin", "3456-limited"))
	session := d.login()
	want(t, "same role", d.Login(session, p11.CKU_USER, d.sim.PIN), p11.CKR_USER_ALREADY_LOGGED_IN)
	want(t, "other role", d.Login(session, ckuCryptoUser, d.sim.CUPIN), p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN)
	want(t, "C_Logout", d.Logout(session), p11.CKR_OK)
	want(t, "C_Logout twice", d.Logout(session), p11.CKR_USER_NOT_LOGGED_IN)
	want(t, "limited crypto officer", d.Login(session, ckuLimitedCryptoOfficer, "3456-limited"), p11.CKR_OK)
}

func TestBehaviour04CryptoUserWithoutPIN(t *testing.T) {
	d := start(t, hsmsim.Luna, hsmsim.Set("cu_pin", ""))
	want(t, "C_Login", d.Login(d.open(), ckuCryptoUser, d.sim.CUPIN), p11.CKR_USER_PIN_NOT_INITIALIZED)
}

// Ten wrong PINs in ten processes: the device remembers.
func TestBehaviour05LockoutAcrossProcesses(t *testing.T) {
	sim := hsmsim.New(t, hsmsim.Luna)
	for attempt := 1; attempt <= 10; attempt++ {
		answer := "0xA0\n"
		if attempt == 10 {
			answer = "0xA4\n"
		}
		if stdout, stderr, state := inChild(t, sim, "login", "wrong-pin"); stdout != answer {
			t.Fatalf("attempt %d: %q, %s, %s; want %q", attempt, stdout, state, stderr, answer)
		}
		if n := sim.Failures("co"); n != attempt {
			t.Fatalf("after attempt %d the device has counted %d", attempt, n)
		}
	}
	if stdout, _, _ := inChild(t, sim, "login", sim.PIN); stdout != "0xA4\n" {
		t.Errorf("the right PIN after the lock: %q", stdout)
	}
	d := load(t, sim)
	d.initialize()
	defer d.Finalize()
	want(t, "crypto user after the lock", d.Login(d.open(), ckuCryptoUser, sim.CUPIN), p11.CKR_PIN_LOCKED)
	info, err := d.GetTokenInfo(d.slot())
	if err != nil || info.Flags&p11.CKF_USER_PIN_LOCKED == 0 {
		t.Errorf("flags %#x, %v: want CKF_USER_PIN_LOCKED", info.Flags, err)
	}
}

func TestBehaviour05SuccessResets(t *testing.T) {
	sim := hsmsim.New(t, hsmsim.Luna, hsmsim.Set("policy.20", "3"), hsmsim.Set("locked_code", "0x80000007"))
	stdout, stderr, _ := inChild(t, sim, "login", "wrong-1", "wrong-2", sim.PIN)
	if stdout != "0xA0\n0xA0\n0x0\n" || sim.Failures("co") != 0 {
		t.Fatalf("%q, %s, %d failures", stdout, stderr, sim.Failures("co"))
	}
	stdout, _, _ = inChild(t, sim, "login", "wrong-1", "wrong-2", "wrong-3", sim.PIN)
	if stdout != "0xA0\n0xA0\n0x80000007\n0x80000007\n" {
		t.Errorf("policy 20 at 3 and the vendor's code: %q", stdout)
	}
}

func TestBehaviour05CryptoUserLocksAlone(t *testing.T) {
	d := start(t, hsmsim.Luna, hsmsim.Set("policy.20", "2"))
	session := d.open()
	want(t, "first", d.Login(session, ckuCryptoUser, "wrong-pin"), p11.CKR_PIN_INCORRECT)
	want(t, "second", d.Login(session, ckuCryptoUser, "wrong-pin"), p11.CKR_PIN_LOCKED)
	want(t, "right", d.Login(session, ckuCryptoUser, d.sim.CUPIN), p11.CKR_PIN_LOCKED)
	want(t, "crypto officer", d.Login(session, p11.CKU_USER, d.sim.PIN), p11.CKR_OK)
}

func TestBehaviour05SecurityOfficerZeroizes(t *testing.T) {
	d := start(t, hsmsim.Luna)
	d.generate(d.login())
	d.again()
	session := d.open()
	for attempt := 1; attempt < 10; attempt++ {
		want(t, "C_Login", d.Login(session, p11.CKU_SO, "wrong-pin"), p11.CKR_PIN_INCORRECT)
	}
	want(t, "tenth", d.Login(session, p11.CKU_SO, "wrong-pin"), ckrSOLoginThreshold)
	want(t, "crypto officer", d.Login(session, p11.CKU_USER, d.sim.PIN), p11.CKR_USER_PIN_NOT_INITIALIZED)
	want(t, "security officer", d.Login(session, p11.CKU_SO, d.sim.SOPIN), p11.CKR_USER_PIN_NOT_INITIALIZED)
	info, err := d.GetTokenInfo(d.slot())
	if err != nil || info.Flags&(p11.CKF_TOKEN_INITIALIZED|p11.CKF_USER_PIN_INITIALIZED) != 0 {
		t.Errorf("flags %#x, %v", info.Flags, err)
	}
	if err := d.Finalize(); err != nil {
		t.Fatal(err)
	}
	if n := storedObjects(t, d.sim); n != 0 {
		t.Errorf("%d objects survived", n)
	}
}

func TestBehaviour05SecurityOfficerResets(t *testing.T) {
	for policy, code := range map[string]uint{"0": ckrOperationNotAllowed, "1": p11.CKR_OK} {
		d := start(t, hsmsim.Luna, hsmsim.Set("policy.20", "1"), hsmsim.Set("hsm_policy.15", policy))
		session := d.open()
		want(t, "lock", d.Login(session, p11.CKU_USER, "wrong-pin"), p11.CKR_PIN_LOCKED)
		want(t, "security officer", d.Login(session, p11.CKU_SO, d.sim.SOPIN), p11.CKR_OK)
		want(t, "C_InitPIN with HSM policy 15 = "+policy, d.InitPIN(session, "a-new-pin"), code)
		if code == p11.CKR_OK {
			want(t, "C_Logout", d.Logout(session), p11.CKR_OK)
			want(t, "new PIN", d.Login(session, p11.CKU_USER, "a-new-pin"), p11.CKR_OK)
			_, err := d.tryGenerate(session)
			want(t, "C_GenerateKey under a PIN that another set", err, p11.CKR_PIN_EXPIRED)
		}
		want(t, "C_Finalize", d.Finalize(), p11.CKR_OK)
	}
}

func TestBehaviour06PINExpired(t *testing.T) {
	d := start(t, hsmsim.Luna, hsmsim.Set("co_pin_expired", "1"))
	session := d.open()
	info, err := d.GetTokenInfo(d.slot())
	if err != nil || info.Flags&p11.CKF_USER_PIN_TO_BE_CHANGED == 0 {
		t.Errorf("flags %#x, %v: want CKF_USER_PIN_TO_BE_CHANGED", info.Flags, err)
	}
	want(t, "C_Login", d.Login(session, p11.CKU_USER, d.sim.PIN), p11.CKR_OK)
	_, err = d.tryGenerate(session)
	want(t, "C_GenerateKey", err, p11.CKR_PIN_EXPIRED)
	want(t, "C_FindObjectsInit", d.FindObjectsInit(session, nil), p11.CKR_PIN_EXPIRED)
	_, err = d.CreateObject(session, publicTemplate(&newRSA(t, 2048).PublicKey))
	want(t, "C_CreateObject", err, p11.CKR_PIN_EXPIRED)
	want(t, "too short a PIN", d.SetPIN(session, d.sim.PIN, "short"), p11.CKR_PIN_LEN_RANGE)
	want(t, "too long a PIN", d.SetPIN(session, d.sim.PIN, strings.Repeat("x", 256)), p11.CKR_PIN_LEN_RANGE)
	want(t, "wrong old PIN", d.SetPIN(session, "wrong-pin", "a-new-pin"), p11.CKR_PIN_INCORRECT)
	want(t, "C_SetPIN", d.SetPIN(session, d.sim.PIN, "a-new-pin"), p11.CKR_OK)
	d.generate(session)
	d.again()
	session = d.open()
	want(t, "old PIN", d.Login(session, p11.CKU_USER, d.sim.PIN), p11.CKR_PIN_INCORRECT)
	want(t, "new PIN", d.Login(session, p11.CKU_USER, "a-new-pin"), p11.CKR_OK)
	if n := d.count(session, p11.NewAttribute(p11.CKA_TOKEN, true)); n != 1 {
		t.Errorf("%d keys under the new PIN, want 1", n)
	}
}

func TestBehaviour07CryptoUser(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	d.generate(session, p11.NewAttribute(p11.CKA_LABEL, "officer's"))
	want(t, "C_Logout", d.Logout(session), p11.CKR_OK)
	want(t, "C_Login", d.Login(session, ckuCryptoUser, d.sim.CUPIN), p11.CKR_OK)

	if err := d.FindObjectsInit(session, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, "officer's")}); err != nil {
		t.Fatal(err)
	}
	keys, _, err := d.FindObjects(session, 10)
	if err != nil || len(keys) != 1 {
		t.Fatalf("the crypto user finds %d keys, %v", len(keys), err)
	}
	want(t, "C_FindObjectsFinal", d.FindObjectsFinal(session), p11.CKR_OK)
	_, err = d.attribute(session, keys[0], p11.CKA_LABEL)
	want(t, "C_GetAttributeValue", err, p11.CKR_OK)
	public, private := d.wrapper(session, 2048)
	blob, err := d.WrapKey(session, oaep(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, nil), public, keys[0])
	if err != nil {
		t.Errorf("C_WrapKey: %v", err)
	} else {
		openOAEP(t, private, blob, p11.CKM_SHA256, nil)
	}

	_, err = d.tryGenerate(session)
	want(t, "C_GenerateKey", err, ckrUserNotAuthorized)
	_, err = d.CreateObject(session, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_DATA), p11.NewAttribute(p11.CKA_TOKEN, true),
	})
	want(t, "C_CreateObject on the token", err, ckrUserNotAuthorized)
	want(t, "C_SetAttributeValue", d.SetAttributeValue(session, keys[0], []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, "x")}), ckrUserNotAuthorized)
	want(t, "C_DestroyObject of a token object", d.DestroyObject(session, keys[0]), ckrUserNotAuthorized)
	want(t, "C_DestroyObject of a session object", d.DestroyObject(session, public), p11.CKR_OK)
}
