package pkcs11

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func TestWrapOpensInGo(t *testing.T) {
	token := newToken(t)
	key := generate(t, token)
	kcv, err := token.CheckValue(t.Context(), key.ID)
	if err != nil {
		t.Fatal(err)
	}
	info, err := token.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, bits := range []int{2048, 3072, 4096} {
		private, spki := newRSA(t, bits)
		for _, algorithm := range info.WrappingAlgorithms {
			blob, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: key.ID, Algorithm: algorithm, PublicKey: spki})
			if err != nil {
				t.Fatalf("%s under RSA-%d: %v", algorithm, bits, err)
			}
			value, err := unwrap(private, blob, algorithm)
			if err != nil {
				t.Fatalf("%s under RSA-%d does not open: %v", algorithm, bits, err)
			}
			if opened, ok := checkValueOf(value); !ok || opened != kcv {
				t.Errorf("%s under RSA-%d: check value %s, want %s", algorithm, bits, opened, kcv)
			}
		}
	}
	if n := publicKeys(t, token); n != 0 {
		t.Errorf("%d public keys are left over", n)
	}
}

// What Describe reports and what Wrap does are the same thing. SoftHSM 2.6.1
// and 2.7.0 do OAEP with SHA-1 only; later ones may do more.
func TestDescribeAgreesWithWrap(t *testing.T) {
	token := newToken(t)
	key := generate(t, token)
	info, err := token.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(info.WrappingAlgorithms, hsm.OAEPSHA1) {
		t.Errorf("SoftHSM is reported without %s: %v", hsm.OAEPSHA1, info.WrappingAlgorithms)
	}
	_, spki := newRSA(t, 2048)
	for _, algorithm := range hsm.WrappingAlgorithms() {
		_, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: key.ID, Algorithm: algorithm, PublicKey: spki})
		if slices.Contains(info.WrappingAlgorithms, algorithm) {
			if err != nil {
				t.Errorf("%s is reported but fails: %v", algorithm, err)
			}
			continue
		}
		wantReason(t, err, hsm.AlgorithmUnsupported)
	}
	if info.FIPS != nil || info.Role != hsm.CryptoOfficer || info.MaxSessions != 0 || info.Label != "kmsbroker-test" {
		t.Errorf("got %+v", info)
	}
	if n := publicKeys(t, token); n != 0 {
		t.Errorf("%d public keys are left over", n)
	}
	if keys, err := token.Keys(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("the probe left keys on the token: %+v, %v", keys, err)
	}
}

func TestDescribeIsKept(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	shim.arm(t, "C_WrapKey before 0x30")
	_, err := token.Describe(t.Context())
	wantReason(t, err, hsm.TokenGone) // and not "no algorithm works", for ever
	first, err := token.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	calls := shim.calls(t, "C_WrapKey")
	first.WrappingAlgorithms[0] = "spoiled by a caller"
	second, err := token.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if shim.calls(t, "C_WrapKey") != calls {
		t.Error("the second Describe asked the device again")
	}
	if !second.WrappingAlgorithms[0].Valid() {
		t.Error("callers share memory")
	}
}

func TestNotExportable(t *testing.T) {
	token := newToken(t)
	id := hsm.NewKeyID()
	addObject(t, token, p11.NewAttribute(p11.CKA_ID, id.Bytes()), p11.NewAttribute(p11.CKA_EXTRACTABLE, false))
	_, spki := newRSA(t, 2048)
	_, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: id, Algorithm: hsm.OAEPSHA1, PublicKey: spki})
	wantReason(t, err, hsm.NotExportable)
	if n := publicKeys(t, token); n != 0 {
		t.Errorf("%d public keys are left over", n)
	}
}

// A wrapping key that cannot be removed goes with its session.
func TestUndestroyablePublicKey(t *testing.T) {
	_, shim, config := newShim(t)
	config.MaxSessions = 1
	token := openToken(t, config)
	key := generate(t, token)
	_, spki := newRSA(t, 2048)
	shim.arm(t, "C_DestroyObject before 0x1B")
	if _, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki}); err != nil {
		t.Fatal(err)
	}
	if n := publicKeys(t, token); n != 0 {
		t.Errorf("%d public keys are left over", n)
	}
}

// A device that refuses CKA_WRAP at creation lets it be set afterwards.
func TestWrapAttributeSetAfterwards(t *testing.T) {
	_, shim, config := newShim(t)
	token := openToken(t, config)
	key := generate(t, token)
	_, spki := newRSA(t, 2048)
	req := hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: spki}
	shim.arm(t, "C_CreateObject before 0xD1")
	if _, err := token.Wrap(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if n := shim.calls(t, "C_SetAttributeValue"); n != 1 {
		t.Errorf("C_SetAttributeValue was called %d times", n)
	}
	shim.arm(t, "C_CreateObject before 0x8000001A")
	_, err := token.Wrap(t.Context(), req)
	wantReason(t, err, hsm.NotPermitted)
}

func TestWrapRefusesBadKeys(t *testing.T) {
	token := newToken(t)
	key := generate(t, token)
	for name, der := range badPublicKeys(t) {
		t.Run(name, func(t *testing.T) {
			_, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: key.ID, Algorithm: hsm.OAEPSHA1, PublicKey: der})
			wantReason(t, err, hsm.Invalid)
		})
	}
	_, spki := newRSA(t, 2048)
	_, err := token.Wrap(t.Context(), hsm.WrapRequest{Key: key.ID, Algorithm: "RSAES_OAEP_MD5", PublicKey: spki})
	wantReason(t, err, hsm.AlgorithmUnsupported)
}

func badPublicKeys(t testing.TB) map[string][]byte {
	t.Helper()
	marshal := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modulus := func(bits int) *big.Int {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		return n.Add(n, big.NewInt(12345))
	}
	return map[string][]byte{
		"nothing":       nil,
		"garbage":       []byte("MIIBIjANBgkqhkiG9w0B"),
		"trailing data": append(marshal(&rsa.PublicKey{N: modulus(2048), E: 65537}), 0),
		"EC":            marshal(&ec.PublicKey),
		"RSA-1024":      marshal(&rsa.PublicKey{N: modulus(1024), E: 65537}),
		"RSA-8192":      marshal(&rsa.PublicKey{N: modulus(8192), E: 65537}),
		"exponent 3":    marshal(&rsa.PublicKey{N: modulus(2048), E: 3}),
		"even exponent": marshal(&rsa.PublicKey{N: modulus(2048), E: 65538}),
		"PKCS#1":        x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: modulus(2048), E: 65537}),
	}
}

func FuzzParsePublicKey(f *testing.F) {
	for _, der := range badPublicKeys(f) {
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		public, err := parsePublicKey(der)
		if err != nil {
			return
		}
		again, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		var spki struct {
			Algorithm asn1.RawValue
			Key       asn1.BitString
		}
		if _, err := asn1.Unmarshal(again, &spki); err != nil || public.Size() > 512 {
			t.Errorf("accepted a key of %d bytes that does not marshal: %v", public.Size(), err)
		}
	})
}

func TestReasons(t *testing.T) {
	for code, want := range map[uint]hsm.Reason{
		0x02: hsm.Internal, 0x03: hsm.TokenGone, 0x05: hsm.TokenGone, 0x06: hsm.Internal, 0x07: hsm.Invalid,
		0x10: hsm.NotPermitted, 0x11: hsm.Invalid, 0x12: hsm.Invalid, 0x13: hsm.Invalid, 0x1B: hsm.NotPermitted, 0x30: hsm.TokenGone, 0x31: hsm.TokenGone,
		0x32: hsm.TokenGone, 0x54: hsm.AlgorithmUnsupported, 0x60: hsm.TokenGone, 0x62: hsm.AlgorithmUnsupported, 0x63: hsm.Invalid,
		0x68: hsm.NotPermitted, 0x69: hsm.NotExportable, 0x6A: hsm.NotExportable, 0x70: hsm.AlgorithmUnsupported,
		0x71: hsm.AlgorithmUnsupported, 0x82: hsm.TokenGone, 0xA0: hsm.PINIncorrect, 0xA1: hsm.PINIncorrect, 0xA2: hsm.PINIncorrect,
		0xA3: hsm.PINExpired, 0xA4: hsm.PINLocked, 0xB0: hsm.TokenGone, 0xB1: hsm.Busy, 0xB3: hsm.TokenGone,
		0xD0: hsm.Invalid, 0xD1: hsm.Invalid, 0xE0: hsm.TokenGone, 0xE1: hsm.TokenGone, 0xE2: hsm.NotPermitted,
		0x100: hsm.NotPermitted, 0x101: hsm.TokenGone, 0x102: hsm.PINMissing, 0x103: hsm.NotPermitted, 0x104: hsm.NotPermitted,
		0x105: hsm.NotPermitted, 0x113: hsm.TokenGone, 0x114: hsm.AlgorithmUnsupported, 0x115: hsm.Invalid, 0x190: hsm.TokenGone,
		0x80000005: hsm.TokenGone, 0x80000006: hsm.Busy, 0x80000023: hsm.TokenGone, 0x8000007D: hsm.NotPermitted,
		0x80000114: hsm.NotPermitted, 0x80000136: hsm.NotPermitted,
		0x80000007: hsm.PINLocked, 0x8000001A: hsm.NotPermitted, 0x8000001B: hsm.StorageFull, 0x8000001C: hsm.PINLocked,
		0x8000001F: hsm.TokenGone, 0x80000020: hsm.NotPermitted, 0x80000024: hsm.TokenGone, 0x8000002A: hsm.StorageFull,
		0x8000002B: hsm.TokenGone, 0x8000002C: hsm.StorageFull, 0x80000030: hsm.NotPermitted, 0x80000031: hsm.StorageFull,
		0x80000041: hsm.Busy, 0x80000053: hsm.TokenGone, 0x80000056: hsm.TokenGone, 0x8000006F: hsm.AlreadyExists,
		0x80000076: hsm.NotPermitted, 0x8000008D: hsm.TokenGone, 0x80001604: hsm.Busy, 0xDEAD: hsm.Internal,
	} {
		err := deviceError(p11.Error(code), "do it")
		if err.Reason != want {
			t.Errorf("%s is %s, want %s", err.Code, err.Reason, want)
		}
		if strings.HasPrefix(err.Code, "CKR_0x") != (code == 0xDEAD) {
			t.Errorf("code %#x is named %q", code, err.Code)
		}
	}
	for code, want := range map[uint]string{0xA0: "CKR_PIN_INCORRECT", 0x1B: "CKR_ACTION_PROHIBITED", 0x80001604: "CKR_BUSY", 0xDEAD: "CKR_0x0000DEAD"} {
		if got := codeName(code); got != want {
			t.Errorf("codeName(%#x) = %s, want %s", code, got, want)
		}
	}
}
