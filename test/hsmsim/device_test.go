package hsmsim_test

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// Numbers of Thales that the binding does not have.
const (
	ckuCryptoUser           = 0x80000001
	ckuLimitedCryptoOfficer = 0x80000003

	ckrUserNotAuthorized   = 0x8000001A
	ckrMaxObjectCount      = 0x8000001B
	ckrSOLoginThreshold    = 0x8000001C
	ckrUnableToConnect     = 0x8000001F
	ckrStorageFull         = 0x8000002C
	ckrOperationNotAllowed = 0x80000030
	ckrLicenseCapacity     = 0x80000031
	ckrAgain               = 0x80000041
	ckrBusy                = 0x80001604
	ckaOUID                = 0x80000005
	ckaEKMUID              = 0x80000008
	ckaGeneric1            = 0x80001000
	ckaFingerprintSHA256   = 0x80001003
	ckmLunaAESKW           = 0x80000170
	ckmLunaAESKWP          = 0x80000171
	readWrite              = p11.CKF_SERIAL_SESSION | p11.CKF_RW_SESSION
)

// env is the value of a variable that shows the device to a process.
func env(sim *hsmsim.Sim, name string) string {
	for _, entry := range sim.Env {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// device is the library as a test sees it, initialised.
type device struct {
	*p11.Ctx
	t   *testing.T
	sim *hsmsim.Sim
}

func load(t *testing.T, sim *hsmsim.Sim) *device {
	t.Helper()
	sim.Setenv()
	module := p11.New(sim.Library)
	if module == nil {
		t.Fatalf("%s does not load", sim.Library)
	}
	return &device{Ctx: module, t: t, sim: sim}
}

func start(t *testing.T, dress hsmsim.Dress, opts ...hsmsim.Option) *device {
	t.Helper()
	d := load(t, hsmsim.New(t, dress, opts...))
	d.initialize()
	t.Cleanup(func() {
		if err := d.Finalize(); err != nil && !isCode(err, p11.CKR_CRYPTOKI_NOT_INITIALIZED) {
			t.Errorf("C_Finalize: %v", err)
		}
	})
	return d
}

func (d *device) initialize() {
	d.t.Helper()
	if err := d.Initialize(); err != nil {
		d.t.Fatalf("C_Initialize: %v", err)
	}
}

// again is what a program does to recover.
func (d *device) again() {
	d.t.Helper()
	if err := d.Finalize(); err != nil {
		d.t.Fatalf("C_Finalize: %v", err)
	}
	d.initialize()
}

// slot finds the partition by its serial.
func (d *device) slot() uint {
	d.t.Helper()
	for _, id := range d.slots(true) {
		if info, err := d.GetTokenInfo(id); err == nil && info.SerialNumber == d.sim.Serial {
			return id
		}
	}
	d.t.Fatalf("no slot has serial %s", d.sim.Serial)
	return 0
}

func (d *device) slots(present bool) []uint {
	d.t.Helper()
	ids, err := d.GetSlotList(present)
	if err != nil {
		d.t.Fatalf("C_GetSlotList: %v", err)
	}
	return ids
}

func (d *device) open() p11.SessionHandle {
	d.t.Helper()
	session, err := d.OpenSession(d.slot(), readWrite)
	if err != nil {
		d.t.Fatalf("C_OpenSession: %v", err)
	}
	return session
}

// login opens a session and logs the Crypto Officer in.
func (d *device) login() p11.SessionHandle {
	d.t.Helper()
	session := d.open()
	if err := d.Login(session, p11.CKU_USER, d.sim.PIN); err != nil {
		d.t.Fatalf("C_Login: %v", err)
	}
	return session
}

func aes(changes ...*p11.Attribute) []*p11.Attribute {
	return append([]*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_VALUE_LEN, 32),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_ENCRYPT, true),
	}, changes...)
}

func (d *device) tryGenerate(session p11.SessionHandle, changes ...*p11.Attribute) (p11.ObjectHandle, error) {
	return d.GenerateKey(session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, aes(changes...))
}

// generate makes an extractable AES-256 token key.
func (d *device) generate(session p11.SessionHandle, changes ...*p11.Attribute) p11.ObjectHandle {
	d.t.Helper()
	changes = append([]*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_EXTRACTABLE, true),
	}, changes...)
	key, err := d.tryGenerate(session, changes...)
	if err != nil {
		d.t.Fatalf("C_GenerateKey: %v", err)
	}
	return key
}

func publicTemplate(key *rsa.PublicKey, more ...*p11.Attribute) []*p11.Attribute {
	return append([]*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_RSA),
		p11.NewAttribute(p11.CKA_TOKEN, false),
		p11.NewAttribute(p11.CKA_PRIVATE, false),
		p11.NewAttribute(p11.CKA_MODULUS, key.N.Bytes()),
		p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(key.E)).Bytes()),
	}, more...)
}

func canWrap() *p11.Attribute { return p11.NewAttribute(p11.CKA_WRAP, true) }

// wrapper imports a public key that may wrap.
func (d *device) wrapper(session p11.SessionHandle, bits int) (p11.ObjectHandle, *rsa.PrivateKey) {
	d.t.Helper()
	private := newRSA(d.t, bits)
	object, err := d.CreateObject(session, publicTemplate(&private.PublicKey, canWrap()))
	if err != nil {
		d.t.Fatalf("C_CreateObject: %v", err)
	}
	return object, private
}

func newRSA(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func (d *device) attribute(session p11.SessionHandle, object p11.ObjectHandle, kind uint) ([]byte, error) {
	read, err := d.GetAttributeValue(session, object, []*p11.Attribute{p11.NewAttribute(kind, nil)})
	if err != nil {
		return nil, err
	}
	return read[0].Value, nil
}

func (d *device) count(session p11.SessionHandle, template ...*p11.Attribute) int {
	d.t.Helper()
	if err := d.FindObjectsInit(session, template); err != nil {
		d.t.Fatalf("C_FindObjectsInit: %v", err)
	}
	found, _, err := d.FindObjects(session, 100)
	if err != nil {
		d.t.Fatalf("C_FindObjects: %v", err)
	}
	if err := d.FindObjectsFinal(session); err != nil {
		d.t.Fatalf("C_FindObjectsFinal: %v", err)
	}
	return len(found)
}

func isCode(err error, code uint) bool {
	got, ok := errors.AsType[p11.Error](err)
	return ok && uint(got) == code
}

func want(t *testing.T, what string, err error, code uint) {
	t.Helper()
	switch {
	case code == p11.CKR_OK && err != nil:
		t.Errorf("%s: %v, want success", what, err)
	case code != p11.CKR_OK && !isCode(err, code):
		t.Errorf("%s: %v, want 0x%X", what, err, code)
	}
}

// inChild runs one of the functions in children in a process of its own, for
// libraries that end theirs, and returns what it printed.
func inChild(t *testing.T, sim *hsmsim.Sim, name string, args ...string) (stdout, stderr string, state *os.ProcessState) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{sim.Library, sim.Serial}, args...)...)
	cmd.Env = append(os.Environ(), sim.Env...)
	cmd.Env = append(cmd.Env, "HSMSIM_TEST_CHILD="+name, "GOTRACEBACK=none")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState
}
