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
	"slices"
	"sync"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Token implements [hsm.Token]. The zero value is not usable; call New.
type Token struct {
	mu    sync.Mutex
	info  hsm.Info
	keys  map[hsm.KeyID]entry
	calls map[string]int
	fail  func(call string) error
	gone  bool
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
		keys:  map[hsm.KeyID]entry{},
		calls: map[string]int{},
	}
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
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.keys[id].value)
}

// Replace gives a key another value.
func (t *Token) Replace(id hsm.KeyID, value []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.keys[id]
	e.value = bytes.Clone(value)
	t.keys[id] = e
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
	return &info, nil
}

// GenerateKey implements hsm.Token.
func (t *Token) GenerateKey(ctx context.Context, spec hsm.KeySpec) (*hsm.Key, error) {
	if err := t.enter(ctx, "GenerateKey"); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.keys[spec.ID]
	if !ok {
		e = entry{key: hsm.Key{
			ID: spec.ID, Label: spec.Label, Type: "AES", Bits: 256, Private: true, Sensitive: true, AlwaysSensitive: true,
			Extractable: true, Local: true, Modifiable: true, Encrypt: true,
		}, value: make([]byte, 32)}
		rand.Read(e.value)
		t.keys[spec.ID] = e
	}
	key := e.key
	return &key, nil
}

// Keys implements hsm.Token.
func (t *Token) Keys(ctx context.Context) ([]hsm.Key, error) {
	if err := t.enter(ctx, "Keys"); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []hsm.Key
	for _, e := range t.keys {
		keys = append(keys, e.key)
	}
	slices.SortFunc(keys, func(a, b hsm.Key) int { return cmp.Compare(a.ID, b.ID) })
	return keys, nil
}

// Key implements hsm.Token.
func (t *Token) Key(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	e, err := t.find(ctx, "Key", id)
	return &e.key, err
}

func (t *Token) find(ctx context.Context, call string, id hsm.KeyID) (entry, error) {
	if err := t.enter(ctx, call); err != nil {
		return entry{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.keys[id]
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
	parsed, err := x509.ParsePKIXPublicKey(req.PublicKey)
	public, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok {
		return nil, hsm.Errorf(hsm.Invalid, "wrapping key: %v", err)
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

// DestroyKey implements hsm.Token.
func (t *Token) DestroyKey(ctx context.Context, id hsm.KeyID) error {
	if _, err := t.find(ctx, "DestroyKey", id); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keys, id)
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
