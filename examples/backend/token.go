package main

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// token implements hsm.Token. Calls come concurrently.
type token struct {
	mu      sync.Mutex
	vault   *vault
	entries map[hsm.KeyID]entry
	closed  bool
}

var _ hsm.Token = (*token)(nil)

// entry is a key as the vault keeps it.
type entry struct {
	Label  string
	Value  []byte // 32 bytes
	Sealed bool
}

// enter begins every call: it takes the token, unless nobody waits for the
// answer any more or the token was closed.
func (t *token) enter(ctx context.Context) (leave func(), err error) {
	if ctx.Err() != nil {
		return nil, hsm.Errorf(hsm.Timeout, "the caller gave up: nothing was done")
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, hsm.Errorf(hsm.TokenGone, "the token is closed")
	}
	return t.mu.Unlock, nil
}

// find is enter for calls about one key.
func (t *token) find(ctx context.Context, id hsm.KeyID) (found entry, leave func(), err error) {
	if _, err := hsm.ParseKeyID(string(id)); err != nil {
		return entry{}, nil, err
	}
	if leave, err = t.enter(ctx); err != nil {
		return entry{}, nil, err
	}
	found, ok := t.entries[id]
	if !ok {
		leave()
		return entry{}, nil, hsm.Errorf(hsm.NotFound, "the token has no key with id %s", id)
	}
	return found, leave, nil
}

// Describe implements hsm.Token. Only what works is declared: a plugin for a
// device finds out by wrapping a session key and opening the result.
func (t *token) Describe(ctx context.Context) (*hsm.Info, error) {
	leave, err := t.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	id := t.vault.id()
	return &hsm.Info{
		Manufacturer: id.Manufacturer, Model: id.Model, Serial: id.Serial, Label: "example",
		Firmware: "1.0", Library: "none", Role: hsm.CryptoOfficer,
		WrappingAlgorithms: []hsm.WrappingAlgorithm{hsm.OAEPSHA256},
	}, nil
}

// GenerateKey implements hsm.Token. The ID is looked up first, so that a repeat
// after a lost answer finds the key of the first attempt.
func (t *token) GenerateKey(ctx context.Context, spec hsm.KeySpec) (*hsm.Key, error) {
	if _, err := hsm.ParseKeyID(string(spec.ID)); err != nil {
		return nil, err
	}
	if err := checkLabel(spec.Label); err != nil {
		return nil, err
	}
	leave, err := t.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if made, ok := t.entries[spec.ID]; ok {
		if made.Sealed {
			return nil, hsm.Errorf(hsm.AlreadyExists, "id %s belongs to a key that is sealed", spec.ID)
		}
		return describe(spec.ID, made), nil
	}
	made := entry{Label: spec.Label, Value: make([]byte, 32)}
	rand.Read(made.Value)
	t.entries[spec.ID] = made
	if err := t.vault.save(t.entries); err != nil {
		delete(t.entries, spec.ID)
		return nil, err
	}
	return describe(spec.ID, made), nil
}

func checkLabel(label string) error {
	const longest = 64
	foreign := func(r rune) bool { return r < ' ' || r > '~' }
	if label == "" || len(label) > longest || strings.ContainsFunc(label, foreign) {
		return hsm.Errorf(hsm.Invalid, "key label %.80q is not 1 to %d bytes of printable ASCII", label, longest)
	}
	return nil
}

// describe says of a key what a device would answer for its attributes. They
// are what hsm.KeySpec demands, until the key is sealed.
func describe(id hsm.KeyID, e entry) *hsm.Key {
	return &hsm.Key{
		ID: id, Label: e.Label, Type: "AES", Bits: 8 * len(e.Value),
		Private: true, Sensitive: true, AlwaysSensitive: true, Extractable: !e.Sealed,
		Local: true, Modifiable: true, Encrypt: true,
	}
}

// Keys implements hsm.Token.
func (t *token) Keys(ctx context.Context) ([]hsm.Key, error) {
	leave, err := t.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	keys := make([]hsm.Key, 0, len(t.entries))
	for _, id := range slices.SortedFunc(maps.Keys(t.entries), cmp.Compare) {
		keys = append(keys, *describe(id, t.entries[id]))
	}
	return keys, nil
}

// Key implements hsm.Token.
func (t *token) Key(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	found, leave, err := t.find(ctx, id)
	if err != nil {
		return nil, err
	}
	defer leave()
	return describe(id, found), nil
}

// CheckValue implements hsm.Token.
func (t *token) CheckValue(ctx context.Context, id hsm.KeyID) (hsm.CheckValue, error) {
	found, leave, err := t.find(ctx, id)
	if err != nil {
		return hsm.CheckValue{}, err
	}
	defer leave()
	block, err := aes.NewCipher(found.Value)
	if err != nil {
		return hsm.CheckValue{}, hsm.Errorf(hsm.Corrupt, "key %s has a value of %d bytes", id, len(found.Value))
	}
	var zeros [aes.BlockSize]byte
	block.Encrypt(zeros[:], zeros[:])
	return hsm.CheckValue(zeros[:3]), nil
}

// SealKey implements hsm.Token. A key that is sealed already is left alone, so
// that the call can be repeated.
func (t *token) SealKey(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	found, leave, err := t.find(ctx, id)
	if err != nil {
		return nil, err
	}
	defer leave()
	if !found.Sealed {
		sealed := found
		sealed.Sealed = true
		t.entries[id] = sealed
		if err := t.vault.save(t.entries); err != nil {
			t.entries[id] = found
			return nil, err
		}
	}
	return describe(id, t.entries[id]), nil
}

// DestroyKey implements hsm.Token.
func (t *token) DestroyKey(ctx context.Context, id hsm.KeyID) error {
	found, leave, err := t.find(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	delete(t.entries, id)
	if err := t.vault.save(t.entries); err != nil {
		t.entries[id] = found
		return err
	}
	clear(found.Value)
	return nil
}

// Health implements hsm.Token. A device is asked for something that only it can
// answer.
func (t *token) Health(ctx context.Context) error {
	leave, err := t.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return nil
}

// Close implements hsm.Token. It may be called again.
func (t *token) Close(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, e := range t.entries {
		clear(e.Value)
	}
	return nil
}
