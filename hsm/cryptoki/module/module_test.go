package module

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"math/big"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
)

// open loads SoftHSM with one token, and returns a session that is logged in.
func open(t *testing.T) (m *Module, session uint64) {
	t.Helper()
	fixture := softhsmtest.New(t)
	t.Setenv("SOFTHSM2_CONF", fixture.ConfPath)
	m, err := Open(fixture.Library)
	if err != nil {
		t.Fatal(err)
	}
	must(t, m, &cryptoki.Call{Function: cryptoki.Initialize})
	t.Cleanup(func() { must(t, m, &cryptoki.Call{Function: cryptoki.Finalize}) })
	slots := must(t, m, &cryptoki.Call{Function: cryptoki.GetSlotList, Flag: true, Room: cryptoki.Room{Size: 9}}).List
	session = must(t, m, &cryptoki.Call{Function: cryptoki.OpenSession, Numbers: [4]uint64{slots[0], cryptoki.CKF_SERIAL_SESSION | cryptoki.CKF_RW_SESSION}}).Numbers[0]
	must(t, m, &cryptoki.Call{Function: cryptoki.Login, Numbers: [4]uint64{session, cryptoki.CKU_USER}, Data: [2][]byte{[]byte(fixture.PIN)}})
	return m, session
}

func want(t *testing.T, m *Module, rv cryptoki.RV, call *cryptoki.Call) *cryptoki.Answer {
	t.Helper()
	a := m.Do(call)
	if a.RV != rv {
		t.Fatalf("%v: %v, want %v", call.Function, a.RV, rv)
	}
	return a
}

func must(t *testing.T, m *Module, call *cryptoki.Call) *cryptoki.Answer {
	t.Helper()
	return want(t, m, cryptoki.CKR_OK, call)
}

func TestInfo(t *testing.T) {
	m, _ := open(t)
	i := must(t, m, &cryptoki.Call{Function: cryptoki.GetInfo}).Info.(*cryptoki.LibraryInfo)
	if i.Cryptoki.Major != 2 || !strings.HasPrefix(string(i.Manufacturer[:]), "SoftHSM") {
		t.Errorf("%+v", i)
	}
	list := &cryptoki.Call{Function: cryptoki.GetSlotList, Flag: true, Room: cryptoki.Room{Null: true}}
	if a := must(t, m, list); a.Size != 2 || a.List != nil {
		t.Errorf("a question for the number is answered with %+v", a)
	}
	list.Room = cryptoki.Room{Size: 1}
	if a := want(t, m, cryptoki.CKR_BUFFER_TOO_SMALL, list); a.Size != 2 {
		t.Errorf("too little room: %+v", a)
	}
	list.Room = cryptoki.Room{Size: 5}
	slot := must(t, m, list).List[0]
	token := must(t, m, &cryptoki.Call{Function: cryptoki.GetTokenInfo, Numbers: [4]uint64{slot}}).Info.(*cryptoki.TokenInfo)
	if string(bytes.TrimRight(token.Label[:], " ")) != "kmsbroker-test" || token.Flags&cryptoki.CKF_TOKEN_INITIALIZED == 0 || token.Counts[4] != 255 {
		t.Errorf("%+v", token)
	}
	mechanisms := must(t, m, &cryptoki.Call{Function: cryptoki.GetMechanismList, Numbers: [4]uint64{slot}, Room: cryptoki.Room{Size: 200}}).List
	if len(mechanisms) < 50 {
		t.Errorf("%d mechanisms", len(mechanisms))
	}
	rsa := must(t, m, &cryptoki.Call{Function: cryptoki.GetMechanismInfo, Numbers: [4]uint64{slot, cryptoki.CKM_RSA_PKCS}}).Numbers
	if rsa[1] < 4096 || rsa[2] == 0 {
		t.Errorf("RSA %v", rsa)
	}
	want(t, m, cryptoki.CKR_FUNCTION_NOT_SUPPORTED, &cryptoki.Call{Function: cryptoki.SessionCancel})
	want(t, m, cryptoki.CKR_HOST_MEMORY, &cryptoki.Call{Function: cryptoki.Sign, Room: cryptoki.Room{Size: maxRoom + 1}})
	if _, err := Open("/nowhere/lib.so"); err == nil || !strings.Contains(err.Error(), "/nowhere/lib.so") {
		t.Error(err)
	}
}

// TestSignature has lengths, too little room and parts, and is verified by another
// implementation.
func TestSignature(t *testing.T) {
	m, s := open(t)
	pair := must(t, m, &cryptoki.Call{Function: cryptoki.GenerateKeyPair, Numbers: [4]uint64{s},
		Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_RSA_PKCS_KEY_PAIR_GEN},
		Templates: [2][]cryptoki.Attribute{
			{cryptoki.UlongAttribute(cryptoki.CKA_MODULUS_BITS, 2048), cryptoki.BoolAttribute(cryptoki.CKA_VERIFY, true)},
			{cryptoki.BoolAttribute(cryptoki.CKA_SIGN, true), cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte("pair"))},
		}}).Numbers
	read := must(t, m, &cryptoki.Call{Function: cryptoki.GetAttributeValue, Numbers: [4]uint64{s, pair[0]}, Templates: [2][]cryptoki.Attribute{{
		{Type: cryptoki.CKA_MODULUS, Length: 512}, {Type: cryptoki.CKA_PUBLIC_EXPONENT, Length: 8},
	}}}).Attributes
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(read[0].Value), E: int(new(big.Int).SetBytes(read[1].Value).Int64())}
	digest := sha256.Sum256([]byte("text"))
	for name, mechanism := range map[string]*cryptoki.Mechanism{
		"PKCS": {Type: cryptoki.CKM_SHA256_RSA_PKCS},
		"PSS":  {Type: cryptoki.CKM_SHA256_RSA_PKCS_PSS, Parameter: &cryptoki.PSS{Hash: cryptoki.CKM_SHA256, MGF: 2, SaltLength: 32}},
	} {
		must(t, m, &cryptoki.Call{Function: cryptoki.SignInit, Numbers: [4]uint64{s, pair[1]}, Mechanism: mechanism})
		sign := &cryptoki.Call{Function: cryptoki.Sign, Numbers: [4]uint64{s}, Data: [2][]byte{[]byte("text")}, Room: cryptoki.Room{Null: true}}
		if a := must(t, m, sign); a.Size != 256 || a.Data != nil {
			t.Errorf("%s: the length is %+v", name, a)
		}
		sign.Room = cryptoki.Room{}
		if a := want(t, m, cryptoki.CKR_BUFFER_TOO_SMALL, sign); a.Size != 256 {
			t.Errorf("%s: no room: %+v", name, a)
		}
		sign.Room.Size = 300
		signature := must(t, m, sign).Data
		err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature)
		if name == "PSS" {
			err = rsa.VerifyPSS(public, crypto.SHA256, digest[:], signature, nil)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	want(t, m, cryptoki.CKR_OPERATION_NOT_INITIALIZED, &cryptoki.Call{Function: cryptoki.SignFinal, Numbers: [4]uint64{s}, Room: cryptoki.Room{Size: 300}})
	want(t, m, cryptoki.CKR_ARGUMENTS_BAD, &cryptoki.Call{Function: cryptoki.SignInit, Numbers: [4]uint64{s, pair[1]}})
}

// TestAttributes are those that can be had, too long ones, secret ones and others.
func TestAttributes(t *testing.T) {
	m, s := open(t)
	key := must(t, m, &cryptoki.Call{Function: cryptoki.GenerateKey, Numbers: [4]uint64{s},
		Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_AES_KEY_GEN},
		Templates: [2][]cryptoki.Attribute{{
			cryptoki.UlongAttribute(cryptoki.CKA_VALUE_LEN, 32), cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte("a label")),
			cryptoki.BoolAttribute(cryptoki.CKA_SENSITIVE, true), cryptoki.BoolAttribute(cryptoki.CKA_ENCRYPT, true), cryptoki.BoolAttribute(cryptoki.CKA_DECRYPT, true),
			{Type: cryptoki.CKA_WRAP_TEMPLATE, Nested: []cryptoki.Attribute{cryptoki.BoolAttribute(cryptoki.CKA_EXTRACTABLE, true)}},
		}}}).Numbers[0]
	get := func(rv cryptoki.RV, wanted ...cryptoki.Attribute) []cryptoki.Attribute {
		t.Helper()
		return want(t, m, rv, &cryptoki.Call{Function: cryptoki.GetAttributeValue, Numbers: [4]uint64{s, key}, Templates: [2][]cryptoki.Attribute{wanted}}).Attributes
	}
	a := get(cryptoki.CKR_OK, cryptoki.Attribute{Type: cryptoki.CKA_LABEL}, cryptoki.Attribute{Type: cryptoki.CKA_KEY_TYPE, Length: 8})
	if kind, _ := a[1].Ulong(); a[0].Length != 7 || a[0].Value != nil || kind != cryptoki.CKK_AES {
		t.Errorf("%+v", a)
	}
	a = get(cryptoki.CKR_ATTRIBUTE_SENSITIVE, cryptoki.Attribute{Type: cryptoki.CKA_VALUE, Length: 64}, cryptoki.Attribute{Type: cryptoki.CKA_LABEL, Length: 64})
	if a[0].Length != cryptoki.Unavailable || string(a[1].Value) != "a label" {
		t.Errorf("%+v", a)
	}
	a = get(cryptoki.CKR_ATTRIBUTE_TYPE_INVALID, cryptoki.Attribute{Type: cryptoki.CKA_MODULUS, Length: 64}, cryptoki.Attribute{Type: cryptoki.CKA_TOKEN, Length: 1})
	if v, ok := a[1].Bool(); a[0].Length != cryptoki.Unavailable || v || !ok {
		t.Errorf("%+v", a)
	}
	a = get(cryptoki.CKR_BUFFER_TOO_SMALL, cryptoki.Attribute{Type: cryptoki.CKA_LABEL, Length: 2})
	if a[0].Value != nil {
		t.Errorf("%+v", a)
	}
	a = get(cryptoki.CKR_OK, cryptoki.Attribute{Type: cryptoki.CKA_WRAP_TEMPLATE, Length: 1, Nested: []cryptoki.Attribute{{Type: cryptoki.CKA_EXTRACTABLE, Length: 1}}})
	if len(a[0].Nested) != 1 || a[0].Nested[0].Type != cryptoki.CKA_EXTRACTABLE || !bytes.Equal(a[0].Nested[0].Value, []byte{1}) {
		t.Errorf("%+v", a)
	}
	for name, mechanism := range map[string]*cryptoki.Mechanism{
		"CBC": {Type: cryptoki.CKM_AES_CBC, Parameter: cryptoki.Bytes("0123456789abcdef")},
		"CTR": {Type: cryptoki.CKM_AES_CTR, Parameter: &cryptoki.CTR{CounterBits: 128}},
		"GCM": {Type: cryptoki.CKM_AES_GCM, Parameter: &cryptoki.GCM{IV: []byte("twelve bytes"), IVBits: 1 << 40, AAD: []byte("a"), TagBits: 128}},
	} {
		must(t, m, &cryptoki.Call{Function: cryptoki.EncryptInit, Numbers: [4]uint64{s, key}, Mechanism: mechanism})
		sealed := must(t, m, &cryptoki.Call{Function: cryptoki.Encrypt, Numbers: [4]uint64{s}, Data: [2][]byte{[]byte("sixteen letters!")}, Room: cryptoki.Room{Size: 99}}).Data
		must(t, m, &cryptoki.Call{Function: cryptoki.DecryptInit, Numbers: [4]uint64{s, key}, Mechanism: mechanism})
		if opened := must(t, m, &cryptoki.Call{Function: cryptoki.Decrypt, Numbers: [4]uint64{s}, Data: [2][]byte{sealed}, Room: cryptoki.Room{Size: 99}}).Data; string(opened) != "sixteen letters!" {
			t.Errorf("%s: %q", name, opened)
		}
	}
	must(t, m, &cryptoki.Call{Function: cryptoki.FindObjectsInit, Numbers: [4]uint64{s}})
	if found := must(t, m, &cryptoki.Call{Function: cryptoki.FindObjects, Numbers: [4]uint64{s}, Room: cryptoki.Room{Size: 10}}); len(found.List) != 1 || found.List[0] != key {
		t.Errorf("found %+v", found)
	}
}

func TestLegacy(t *testing.T) {
	m, session := open(t)
	if status, cancel := m.Legacy(session); status != cryptoki.CKR_FUNCTION_NOT_PARALLEL || cancel != cryptoki.CKR_FUNCTION_NOT_PARALLEL {
		t.Errorf("%v, %v", status, cancel)
	}
}
