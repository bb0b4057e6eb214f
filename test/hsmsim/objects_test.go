package hsmsim_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"path/filepath"
	"slices"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

func oaep(hash, mgf uint, label []byte) []*p11.Mechanism {
	return []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS_OAEP, p11.NewOAEPParams(hash, mgf, p11.CKZ_DATA_SPECIFIED, label))}
}

func pkcs1() []*p11.Mechanism { return []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS, nil)} }

// openOAEP decrypts outside the device and wants an AES-256 key.
func openOAEP(t *testing.T, private *rsa.PrivateKey, blob []byte, mechanism uint, label []byte) []byte {
	t.Helper()
	hashes := map[uint]func() hash.Hash{
		0: sha1.New, p11.CKM_SHA_1: sha1.New, p11.CKM_SHA224: sha256.New224, p11.CKM_SHA256: sha256.New,
		p11.CKM_SHA384: sha512.New384, p11.CKM_SHA512: sha512.New,
	}
	value, err := rsa.DecryptOAEP(hashes[mechanism](), nil, private, blob, label)
	if err != nil {
		t.Errorf("the blob does not open: %v", err)
	} else if len(value) != 32 {
		t.Errorf("the blob holds %d bytes, want 32", len(value))
	}
	return value
}

// storedObjects counts the files in which SoftHSM keeps objects.
func storedObjects(t *testing.T, sim *hsmsim.Sim) int {
	t.Helper()
	tokens := filepath.Join(filepath.Dir(env(sim, "SOFTHSM2_CONF")), "tokens")
	objects, err := filepath.Glob(filepath.Join(tokens, "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(objects, func(path string) bool { return filepath.Base(path) == "token.object" }))
}

func TestBehaviour09Import(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	_, err := d.CreateObject(session, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_VALUE, make([]byte, 32)),
	})
	want(t, "C_CreateObject of a secret key", err, p11.CKR_TEMPLATE_INCONSISTENT)
	_, err = d.CreateObject(session, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_RSA),
	})
	want(t, "C_CreateObject of a private key", err, p11.CKR_TEMPLATE_INCONSISTENT)

	public := &newRSA(t, 2048).PublicKey
	bare, err := d.CreateObject(session, publicTemplate(public))
	if err != nil {
		t.Fatal(err)
	}
	if value, err := d.attribute(session, bare, p11.CKA_WRAP); err != nil || !bytes.Equal(value, []byte{0}) {
		t.Errorf("CKA_WRAP of an imported public key is %v, %v; want false", value, err)
	}
	key := d.generate(session)
	_, err = d.WrapKey(session, oaep(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, nil), bare, key)
	want(t, "C_WrapKey without CKA_WRAP", err, p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	want(t, "C_SetAttributeValue of CKA_WRAP", d.SetAttributeValue(session, bare, []*p11.Attribute{canWrap()}), p11.CKR_OK)
	_, err = d.WrapKey(session, oaep(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, nil), bare, key)
	want(t, "C_WrapKey with CKA_WRAP", err, p11.CKR_OK)
}

func TestBehaviour09ModulusBits(t *testing.T) {
	for setting, code := range map[string]uint{"0": p11.CKR_OK, "0x10": p11.CKR_ATTRIBUTE_READ_ONLY} {
		d := start(t, hsmsim.Luna, hsmsim.Set("modulus_bits_code", setting))
		_, err := d.CreateObject(d.login(), publicTemplate(&newRSA(t, 2048).PublicKey, p11.NewAttribute(p11.CKA_MODULUS_BITS, 2048)))
		want(t, "C_CreateObject with modulus_bits_code = "+setting, err, code)
		want(t, "C_Finalize", d.Finalize(), p11.CKR_OK)
	}
}

func TestBehaviour10Policies(t *testing.T) {
	t.Run("11 changing attributes", func(t *testing.T) {
		d := start(t, hsmsim.Luna, hsmsim.Set("policy.11", "0"))
		session := d.login()
		key := d.generate(session)
		want(t, "C_SetAttributeValue", d.SetAttributeValue(session, key, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, "x")}), p11.CKR_ATTRIBUTE_READ_ONLY)
	})
	t.Run("28 key management", func(t *testing.T) {
		d := start(t, hsmsim.Luna)
		d.generate(d.login(), p11.NewAttribute(p11.CKA_ID, []byte{1}))
		if err := d.Finalize(); err != nil {
			t.Fatal(err)
		}
		d.sim.Change(hsmsim.Set("policy.28", "0"))
		d.initialize()
		session := d.login()
		_, err := d.tryGenerate(session)
		want(t, "C_GenerateKey", err, ckrOperationNotAllowed)
		_, err = d.CreateObject(session, publicTemplate(&newRSA(t, 2048).PublicKey))
		want(t, "C_CreateObject", err, ckrOperationNotAllowed)
		if err := d.FindObjectsInit(session, []*p11.Attribute{p11.NewAttribute(p11.CKA_ID, []byte{1})}); err != nil {
			t.Fatal(err)
		}
		found, _, err := d.FindObjects(session, 1)
		if err != nil || len(found) != 1 {
			t.Fatalf("found %d, %v", len(found), err)
		}
		want(t, "C_DestroyObject", d.DestroyObject(session, found[0]), ckrOperationNotAllowed)
	})
	t.Run("5 wrapping of secret keys", func(t *testing.T) {
		d := start(t, hsmsim.Luna, hsmsim.Set("policy.5", "0"))
		session := d.login()
		public, _ := d.wrapper(session, 2048)
		_, err := d.WrapKey(session, oaep(p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, nil), public, d.generate(session))
		want(t, "C_WrapKey", err, p11.CKR_KEY_NOT_WRAPPABLE)
	})
}

func TestBehaviour11WrapRefusals(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	public, _ := d.wrapper(session, 2048)
	for name, mechanism := range map[string][]*p11.Mechanism{
		"SHA-1": oaep(p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, nil), "SHA-256": oaep(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, nil), "PKCS#1": pkcs1(),
	} {
		fixed := d.generate(session, p11.NewAttribute(p11.CKA_EXTRACTABLE, false))
		_, err := d.WrapKey(session, mechanism, public, fixed)
		want(t, name+" of an unextractable key", err, p11.CKR_KEY_UNEXTRACTABLE)
		_, err = d.WrapKey(session, mechanism, 4711, d.generate(session))
		want(t, name+" with no wrapping key", err, p11.CKR_WRAPPING_KEY_HANDLE_INVALID)
		_, err = d.WrapKey(session, mechanism, public, 4711)
		want(t, name+" of no key", err, p11.CKR_KEY_HANDLE_INVALID)
	}
}

func TestBehaviour11PrivateKeysNeverWrap(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	pair := func(private ...*p11.Attribute) (p11.ObjectHandle, error) {
		_, handle, err := d.GenerateKeyPair(session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)},
			[]*p11.Attribute{p11.NewAttribute(p11.CKA_MODULUS_BITS, 2048), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}, private)
		return handle, err
	}
	_, err := pair(canWrap())
	want(t, "C_GenerateKeyPair", err, p11.CKR_TEMPLATE_INCONSISTENT)
	private, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	want(t, "C_SetAttributeValue", d.SetAttributeValue(session, private, []*p11.Attribute{canWrap()}), p11.CKR_TEMPLATE_INCONSISTENT)
}

func TestBehaviour12VendorAttributes(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	key := d.generate(session, p11.NewAttribute(p11.CKA_ID, []byte{1}), p11.NewAttribute(ckaGeneric1, []byte("made with it")))
	other := d.generate(session, p11.NewAttribute(p11.CKA_ID, []byte{2}))
	values := make(map[uint][]byte)
	for kind, size := range map[uint]int{ckaOUID: 12, ckaFingerprintSHA256: 32, ckaGeneric1: 12} {
		value, err := d.attribute(session, key, kind)
		if err != nil || len(value) != size {
			t.Errorf("attribute 0x%X: %d bytes, %v; want %d", kind, len(value), err, size)
		}
		values[kind] = value
	}
	for _, kind := range []uint{ckaOUID, ckaFingerprintSHA256} {
		if value, err := d.attribute(session, other, kind); err != nil || bytes.Equal(value, values[kind]) {
			t.Errorf("attribute 0x%X is the same for two keys (%v)", kind, err)
		}
	}
	_, err := d.attribute(session, other, ckaGeneric1)
	want(t, "CKA_GENERIC_1 that was never set", err, p11.CKR_ATTRIBUTE_TYPE_INVALID)
	set := func(kind uint, value string) error {
		return d.SetAttributeValue(session, key, []*p11.Attribute{p11.NewAttribute(kind, []byte(value))})
	}
	want(t, "CKA_OUID is fixed", set(ckaOUID, "012345678901"), p11.CKR_ATTRIBUTE_READ_ONLY)
	for _, value := range []string{"first", "", "and a longer one"} {
		want(t, "CKA_EKM_UID", set(ckaEKMUID, value), p11.CKR_OK)
		if got, err := d.attribute(session, key, ckaEKMUID); err != nil || string(got) != value {
			t.Errorf("CKA_EKM_UID is %q, %v; want %q", got, err, value)
		}
	}
	// Vendor and standard attributes in one call, in the caller's order.
	mixed, err := d.GetAttributeValue(session, key, []*p11.Attribute{
		p11.NewAttribute(ckaGeneric1, nil), p11.NewAttribute(p11.CKA_ID, nil), p11.NewAttribute(ckaOUID, nil),
	})
	if err != nil || string(mixed[0].Value) != "made with it" || !bytes.Equal(mixed[1].Value, []byte{1}) || !bytes.Equal(mixed[2].Value, values[ckaOUID]) {
		t.Errorf("mixed: %+v, %v", mixed, err)
	}

	d.again()
	session = d.login()
	if err := d.FindObjectsInit(session, []*p11.Attribute{p11.NewAttribute(p11.CKA_ID, []byte{1})}); err != nil {
		t.Fatal(err)
	}
	found, _, err := d.FindObjects(session, 1)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %d, %v", len(found), err)
	}
	for kind, old := range values {
		if value, err := d.attribute(session, found[0], kind); err != nil || !bytes.Equal(value, old) {
			t.Errorf("attribute 0x%X changed with C_Initialize: %v", kind, err)
		}
	}
}

func TestBehaviour14OAEP(t *testing.T) {
	type parameters struct {
		hash, mgf uint
		label     string
	}
	for dress, pkcs1Code := range map[hsmsim.Dress]uint{hsmsim.Luna: p11.CKR_OK, hsmsim.LunaFIPS: p11.CKR_MECHANISM_INVALID} {
		t.Run(string(dress), func(t *testing.T) {
			d := start(t, dress)
			session := d.login()
			key := d.generate(session)
			var values [][]byte
			for _, bits := range []int{2048, 4096} {
				public, private := d.wrapper(session, bits)
				for _, p := range []parameters{
					{p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, ""}, {0, p11.CKG_MGF1_SHA1, ""},
					{p11.CKM_SHA224, p11.CKG_MGF1_SHA224, ""}, {p11.CKM_SHA256, p11.CKG_MGF1_SHA256, ""},
					{p11.CKM_SHA384, p11.CKG_MGF1_SHA384, ""}, {p11.CKM_SHA512, p11.CKG_MGF1_SHA512, ""},
					{p11.CKM_SHA256, p11.CKG_MGF1_SHA256, "label"}, {p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, "label"},
				} {
					var label []byte
					if p.label != "" {
						label = []byte(p.label)
					}
					blob, err := d.WrapKey(session, oaep(p.hash, p.mgf, label), public, key)
					if err != nil {
						t.Errorf("RSA-%d %+v: %v", bits, p, err)
						continue
					}
					values = append(values, openOAEP(t, private, blob, p.hash, label))
				}
				blob, err := d.WrapKey(session, pkcs1(), public, key)
				want(t, "CKM_RSA_PKCS", err, pkcs1Code)
				if err == nil {
					value, err := rsa.DecryptPKCS1v15(nil, private, blob) //nolint:staticcheck // what the device wrapped has to be opened
					if err != nil {
						t.Error(err)
					}
					values = append(values, value)
				}
			}
			for _, value := range values {
				if !bytes.Equal(value, values[0]) {
					t.Error("the same key was wrapped into different values")
				}
			}
			if n := d.count(session, p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY)); n != 2 {
				t.Errorf("%d public keys are visible, want the 2 of the test", n)
			}
		})
	}
}

func TestBehaviour14OAEPParameters(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	key := d.generate(session)
	public, _ := d.wrapper(session, 2048)
	for name, mechanism := range map[string][]*p11.Mechanism{
		"no parameter":   {p11.NewMechanism(p11.CKM_RSA_PKCS_OAEP, nil)},
		"unknown hash":   oaep(p11.CKM_MD5, p11.CKG_MGF1_SHA1, nil),
		"unknown MGF":    oaep(p11.CKM_SHA256, 99, nil),
		"unknown source": {p11.NewMechanism(p11.CKM_RSA_PKCS_OAEP, p11.NewOAEPParams(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, 0, nil))},
	} {
		_, err := d.WrapKey(session, mechanism, public, key)
		want(t, name, err, p11.CKR_MECHANISM_PARAM_INVALID)
	}
}

func TestBehaviour14FIPSRefusals(t *testing.T) {
	d := start(t, hsmsim.LunaFIPS)
	session := d.login()
	key := d.generate(session)
	small, _ := d.wrapper(session, 1024)
	_, err := d.WrapKey(session, oaep(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, nil), small, key)
	want(t, "C_WrapKey under RSA-1024", err, p11.CKR_KEY_SIZE_RANGE)
	public := newRSA(t, 2048).PublicKey
	public.E = 3
	_, err = d.CreateObject(session, publicTemplate(&public))
	want(t, "C_CreateObject with exponent 3", err, p11.CKR_ATTRIBUTE_VALUE_INVALID)
	public.E = 65537
	object, err := d.CreateObject(session, publicTemplate(&public, p11.NewAttribute(p11.CKA_ENCRYPT, true)))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "C_EncryptInit with CKM_RSA_PKCS", d.EncryptInit(session, pkcs1(), object), p11.CKR_MECHANISM_INVALID)
}

func TestBehaviour15OldFirmware(t *testing.T) {
	d := start(t, hsmsim.LunaOldFirmware)
	session := d.login()
	key := d.generate(session)
	public, private := d.wrapper(session, 2048)
	_, err := d.WrapKey(session, oaep(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, nil), public, key)
	want(t, "OAEP with SHA-256", err, p11.CKR_MECHANISM_PARAM_INVALID)
	blob, err := d.WrapKey(session, oaep(p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, nil), public, key)
	if err != nil {
		t.Fatal(err)
	}
	openOAEP(t, private, blob, p11.CKM_SHA_1, nil)
}

func TestBehaviour16SessionLimit(t *testing.T) {
	d := start(t, hsmsim.Luna, hsmsim.Set("max_sessions", "3"))
	var open []p11.SessionHandle
	for range 3 {
		open = append(open, d.open())
	}
	_, err := d.OpenSession(d.slot(), readWrite)
	want(t, "the fourth session", err, p11.CKR_SESSION_COUNT)
	want(t, "C_CloseSession", d.CloseSession(open[1]), p11.CKR_OK)
	_, err = d.OpenSession(d.slot(), readWrite)
	want(t, "after one was closed", err, p11.CKR_OK)
}

func TestBehaviour16ObjectLimit(t *testing.T) {
	for _, test := range []struct {
		dress  hsmsim.Dress
		option string
		code   uint
	}{
		{hsmsim.Luna, "", ckrMaxObjectCount},
		{hsmsim.Luna, "0x8000002C", ckrStorageFull},
		{hsmsim.DPoD, "", ckrLicenseCapacity},
	} {
		opts := []hsmsim.Option{hsmsim.Set("max_objects", "2"), hsmsim.Set("latency_min_ms", "0"), hsmsim.Set("latency_max_ms", "0")}
		if test.option != "" {
			opts = append(opts, hsmsim.Set("object_limit_code", test.option))
		}
		d := start(t, test.dress, opts...)
		session := d.login()
		first := d.generate(session)
		d.generate(session)
		_, err := d.tryGenerate(session, p11.NewAttribute(p11.CKA_TOKEN, true))
		want(t, "C_GenerateKey", err, test.code)
		_, err = d.CreateObject(session, publicTemplate(&newRSA(t, 2048).PublicKey))
		want(t, "C_CreateObject", err, test.code)
		want(t, "C_DestroyObject", d.DestroyObject(session, first), p11.CKR_OK)
		d.generate(session)
		want(t, "C_Finalize", d.Finalize(), p11.CKR_OK)
	}
}

// The emulation's key never shows, whatever the size of a step.
func TestFindInSteps(t *testing.T) {
	d := start(t, hsmsim.Luna)
	session := d.login()
	var all []p11.ObjectHandle
	for range 3 {
		all = append(all, d.generate(session))
	}
	public, _ := d.wrapper(session, 2048)
	if _, err := d.WrapKey(session, oaep(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, nil), public, all[0]); err != nil {
		t.Fatal(err)
	}
	all = append(all, public)
	for step := 1; step <= 5; step++ {
		var found []p11.ObjectHandle
		if err := d.FindObjectsInit(session, nil); err != nil {
			t.Fatal(err)
		}
		for {
			more, _, err := d.FindObjects(session, step)
			if err != nil {
				t.Fatal(err)
			}
			if len(more) == 0 {
				break
			}
			found = append(found, more...)
		}
		want(t, "C_FindObjectsFinal", d.FindObjectsFinal(session), p11.CKR_OK)
		slices.Sort(found)
		slices.Sort(all)
		if !slices.Equal(found, all) {
			t.Errorf("in steps of %d: %v, want %v", step, found, all)
		}
	}
}
