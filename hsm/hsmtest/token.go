// Package hsmtest is an HSM token in memory, for tests of what stands above
// package hsm: it keeps real AES keys, really wraps them, and fails on demand.
package hsmtest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // RSAES_OAEP_SHA_1 is one of the service's algorithms
	"crypto/sha256"
	"crypto/x509"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Token implements [hsm.Token]. The zero value is not usable; call New.
type Token struct {
	info  hsm.Info
	store *store

	mu    sync.Mutex
	calls map[string]int
	fail  func(call string) error
	gone  bool
}

// store is what survives a Close.
type store struct {
	mu   sync.Mutex
	keys map[hsm.KeyID]entry
}

type entry struct {
	key   hsm.Key
	value []byte
}

// New returns an empty token that does the given algorithms, or all of them.
func New(algorithms ...hsm.WrappingAlgorithm) *Token {
	if len(algorithms) == 0 {
		algorithms = hsm.WrappingAlgorithms()
	}
	return &Token{
		info: hsm.Info{
			Manufacturer: "kmsbroker", Model: "memory", Serial: "0000000000001", Label: "test", Firmware: "1.0",
			Library: "hsmtest 1.0", Role: hsm.CryptoOfficer, WrappingAlgorithms: algorithms,
		},
		store: &store{keys: map[hsm.KeyID]entry{}},
		calls: map[string]int{},
	}
}

// Reopen returns another token over the same keys, as a new process would open
// it. The old one stays as it is.
func (t *Token) Reopen() *Token {
	return &Token{info: t.info, store: t.store, calls: map[string]int{}}
}

// Add puts a key on the token that somebody else made.
func (t *Token) Add(key hsm.Key, value []byte) {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	t.store.keys[key.ID] = entry{key: key, value: bytes.Clone(value)}
}

// FailWith makes every later call ask f, with the name of the method, whether
// to fail. It may block. Nil ends it.
func (t *Token) FailWith(f func(call string) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fail = f
}

// Calls returns how often a method was called.
func (t *Token) Calls(call string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls[call]
}

// Value returns the value of a key, as no HSM would.
func (t *Token) Value(id hsm.KeyID) []byte {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	return bytes.Clone(t.store.keys[id].value)
}

// Replace gives a key another value.
func (t *Token) Replace(id hsm.KeyID, value []byte) {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	e := t.store.keys[id]
	e.value = bytes.Clone(value)
	t.store.keys[id] = e
}

// enter counts a call and fails it when the test says so.
func (t *Token) enter(ctx context.Context, call string) error {
	t.mu.Lock()
	t.calls[call]++
	fail, closed := t.fail, t.gone
	t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return hsm.Errorf(hsm.Timeout, "%s: %v", call, err)
	}
	if closed {
		return hsm.Errorf(hsm.TokenGone, "the token was closed")
	}
	if fail != nil {
		return fail(call)
	}
	return nil
}

// Describe implements hsm.Token.
func (t *Token) Describe(ctx context.Context) (*hsm.Info, error) {
	if err := t.enter(ctx, "Describe"); err != nil {
		return nil, err
	}
	info := t.info
	info.WrappingAlgorithms = slices.Clone(info.WrappingAlgorithms)
	return &info, nil
}

// GenerateKey implements hsm.Token.
func (t *Token) GenerateKey(ctx context.Context, spec hsm.KeySpec) (*hsm.Key, error) {
	if err := t.enter(ctx, "GenerateKey"); err != nil {
		return nil, err
	}
	if _, err := hsm.ParseKeyID(string(spec.ID)); err != nil {
		return nil, err
	}
	if err := checkLabel(spec.Label); err != nil {
		return nil, err
	}
	made := hsm.Key{
		ID: spec.ID, Label: spec.Label, Type: "AES", Bits: 256, Private: true, Sensitive: true, AlwaysSensitive: true,
		Extractable: true, Local: true, Modifiable: true, Encrypt: true,
	}
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	e, ok := t.store.keys[spec.ID]
	if !ok {
		e = entry{key: made, value: make([]byte, 32)}
		rand.Read(e.value)
		t.store.keys[spec.ID] = e
	}
	key := e.key
	made.Label, made.Vendor = key.Label, key.Vendor
	if !reflect.DeepEqual(key, made) {
		return nil, hsm.Errorf(hsm.AlreadyExists, "id %s belongs to another key", spec.ID)
	}
	return &key, nil
}

func checkLabel(label string) error {
	if label == "" || len(label) > 64 || strings.ContainsFunc(label, func(r rune) bool { return r < ' ' || r > '~' }) {
		return hsm.Errorf(hsm.Invalid, "key label %.80q is not 1 to 64 bytes of printable ASCII", label)
	}
	return nil
}

// Keys implements hsm.Token.
func (t *Token) Keys(ctx context.Context) ([]hsm.Key, error) {
	if err := t.enter(ctx, "Keys"); err != nil {
		return nil, err
	}
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	var keys []hsm.Key
	for _, e := range t.store.keys {
		keys = append(keys, e.key)
	}
	slices.SortFunc(keys, func(a, b hsm.Key) int { return cmp.Compare(a.ID, b.ID) })
	return keys, nil
}

// Key implements hsm.Token.
func (t *Token) Key(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	e, err := t.find(ctx, "Key", id)
	if err != nil {
		return nil, err
	}
	return &e.key, nil
}

func (t *Token) find(ctx context.Context, call string, id hsm.KeyID) (entry, error) {
	if err := t.enter(ctx, call); err != nil {
		return entry{}, err
	}
	if _, err := hsm.ParseKeyID(string(id)); err != nil {
		return entry{}, err
	}
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	e, ok := t.store.keys[id]
	if !ok {
		return entry{}, hsm.Errorf(hsm.NotFound, "no key %s", id)
	}
	return e, nil
}

// CheckValue implements hsm.Token.
func (t *Token) CheckValue(ctx context.Context, id hsm.KeyID) (hsm.CheckValue, error) {
	e, err := t.find(ctx, "CheckValue", id)
	if err != nil {
		return hsm.CheckValue{}, err
	}
	return KCV(e.value), nil
}

// KCV computes the check value of an AES key. It panics on a length that AES
// does not have.
func KCV(value []byte) hsm.CheckValue {
	block, err := aes.NewCipher(value)
	if err != nil {
		panic(err)
	}
	var zero [aes.BlockSize]byte
	block.Encrypt(zero[:], zero[:])
	return hsm.CheckValue(zero[:3])
}

// Wrap implements hsm.Token.
func (t *Token) Wrap(ctx context.Context, req hsm.WrapRequest) ([]byte, error) {
	e, err := t.find(ctx, "Wrap", req.Key)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(t.info.WrappingAlgorithms, req.Algorithm) {
		return nil, hsm.Errorf(hsm.AlgorithmUnsupported, "no %s", req.Algorithm)
	}
	public, err := parsePublicKey(req.PublicKey)
	if err != nil {
		return nil, err
	}
	if !e.key.Extractable {
		return nil, hsm.Errorf(hsm.NotExportable, "key %s may not leave the token", req.Key)
	}
	var wrapped []byte
	switch req.Algorithm {
	case hsm.OAEPSHA256:
		wrapped, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, public, e.value, nil)
	case hsm.OAEPSHA1:
		wrapped, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, public, e.value, nil) //nolint:gosec // see the import
	default:
		wrapped, err = rsa.EncryptPKCS1v15(rand.Reader, public, e.value) //nolint:staticcheck // the service offers it
	}
	if err != nil {
		return nil, hsm.Errorf(hsm.Internal, "wrap: %v", err)
	}
	return wrapped, nil
}

// parsePublicKey admits what a device in FIPS mode does.
func parsePublicKey(der []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	public, ok := parsed.(*rsa.PublicKey)
	switch {
	case err != nil:
		return nil, hsm.Errorf(hsm.Invalid, "wrapping key: %v", err)
	case !ok:
		return nil, hsm.Errorf(hsm.Invalid, "wrapping key is a %T, not RSA", parsed)
	case public.N.BitLen() < 2048 || public.E < 65537:
		return nil, hsm.Errorf(hsm.AlgorithmUnsupported, "wrapping key of %d bits with exponent %d", public.N.BitLen(), public.E)
	default:
		return public, nil
	}
}

// SealKey implements hsm.Token.
func (t *Token) SealKey(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	if _, err := t.find(ctx, "SealKey", id); err != nil {
		return nil, err
	}
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	e, ok := t.store.keys[id]
	switch {
	case !ok:
		return nil, hsm.Errorf(hsm.NotFound, "no key %s", id)
	case e.key.Extractable && !e.key.Modifiable:
		return nil, &hsm.Error{Reason: hsm.NotPermitted, Code: "CKR_ACTION_PROHIBITED", Detail: "seal key " + string(id)}
	}
	e.key.Extractable = false
	t.store.keys[id] = e
	return &e.key, nil
}

// DestroyKey implements hsm.Token.
func (t *Token) DestroyKey(ctx context.Context, id hsm.KeyID) error {
	if _, err := t.find(ctx, "DestroyKey", id); err != nil {
		return err
	}
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	delete(t.store.keys, id)
	return nil
}

// Health implements hsm.Token.
func (t *Token) Health(ctx context.Context) error { return t.enter(ctx, "Health") }

// Close implements hsm.Token.
func (t *Token) Close(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone = true
	return nil
}
