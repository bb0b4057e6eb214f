package conformance

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/hsmtest"
)

const devicePIN = "sesame-4711"

// device is an HSM in memory with at most one thing wrong with it. A hook takes
// the place of a method, or of what all answers about a key look like; what is
// nil works as it should.
type device struct {
	mu      sync.Mutex
	base    *hsmtest.Token
	current *session
	objects int // that are no secret keys

	open        func(d *device) error
	openWithPIN func(pin []byte) error
	anyPIN      bool
	exposed     []string
	asked       *hsm.TokenID // what the PIN is asked for, unless it is the token

	see        func(k *hsm.Key)
	describe   func(ctx context.Context, s *session) (*hsm.Info, error)
	generate   func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error)
	keys       func(ctx context.Context, s *session) ([]hsm.Key, error)
	key        func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error)
	checkValue func(ctx context.Context, s *session, id hsm.KeyID) (hsm.CheckValue, error)
	wrap       func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error)
	sealKey    func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error)
	destroy    func(ctx context.Context, s *session, id hsm.KeyID) error
	health     func(ctx context.Context, s *session) error
	close      func(ctx context.Context, s *session) error
}

// foreignIDs are the keys of others. They come before all random ones.
var foreignIDs = []hsm.KeyID{"0000", "0001"}

func newBroken(algorithms ...hsm.WrappingAlgorithm) *device {
	d := &device{base: hsmtest.New(algorithms...)}
	for _, id := range foreignIDs {
		d.base.Add(hsm.Key{ID: id, Label: "somebody's", Type: "AES", Bits: 128, Sensitive: true}, make([]byte, 16))
	}
	return d
}

func (d *device) config() Config {
	return Config{
		Open: func(context.Context) (hsm.Token, error) {
			if d.open != nil {
				if err := d.open(d); err != nil {
					return nil, err
				}
			}
			return d.session(), nil
		},
		OpenWithPIN: func(_ context.Context, pin []byte) (hsm.Token, error) {
			if d.openWithPIN != nil {
				if err := d.openWithPIN(pin); err != nil {
					return nil, err
				}
			}
			switch {
			case len(pin) == 0:
				return nil, hsm.Errorf(hsm.PINMissing, "no PIN is configured")
			case d.anyPIN:
				return d.session(), nil
			default:
				return nil, &hsm.Error{Reason: hsm.PINIncorrect, Code: "CKR_PIN_INCORRECT", Detail: "log in"}
			}
		},
		Kill: func() error {
			d.mu.Lock()
			s := d.current
			d.mu.Unlock()
			s.mu.Lock()
			s.killed = true
			s.mu.Unlock()
			return s.Token.Close(context.Background())
		},
		Plant: func(_ context.Context, id hsm.KeyID) error {
			d.base.Add(hsm.Key{ID: id, Label: "planted", Type: "AES", Bits: 256, Sensitive: true}, bytes.Repeat([]byte{1}, 32))
			return nil
		},
		Objects: func(ctx context.Context) (int, error) {
			keys, err := d.base.Keys(ctx)
			return len(keys) + d.objects, err
		},
		Leaks: func(text string) bool { return strings.Contains(text, devicePIN) },
		Asked: func() hsm.TokenID {
			if d.asked != nil {
				return *d.asked
			}
			info, err := (&session{Token: d.base.Reopen(), d: d}).Describe(context.Background())
			if err != nil {
				return hsm.TokenID{}
			}
			return hsm.TokenID{Manufacturer: info.Manufacturer, Model: info.Model, Serial: info.Serial}
		},
		Exposed:     func() (looked, found []string, err error) { return []string{"log", "arguments"}, d.exposed, nil },
		Destructive: true,
		Plugin:      "hsmtest",
	}
}

func (d *device) session() *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current = &session{Token: d.base.Reopen(), d: d}
	return d.current
}

// ours lists the IDs of the keys that are on the device and not foreign.
func (d *device) ours(ctx context.Context) []hsm.KeyID {
	var ids []hsm.KeyID
	keys, _ := d.base.Keys(ctx)
	for _, k := range keys {
		if !slices.Contains(foreignIDs, k.ID) {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// session is an open token of a device. The embedded one is honest.
type session struct {
	*hsmtest.Token
	d *device

	mu     sync.Mutex
	killed bool
	closed bool
	made   []hsm.KeyID
}

func (s *session) wasKilled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killed
}

func (s *session) wasClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *session) madeHere() []hsm.KeyID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.made)
}

func (s *session) seen(k *hsm.Key) {
	if s.d.see != nil && !slices.Contains(foreignIDs, k.ID) {
		s.d.see(k)
	}
}

func (s *session) Describe(ctx context.Context) (*hsm.Info, error) {
	if s.d.describe != nil {
		return s.d.describe(ctx, s)
	}
	return s.Token.Describe(ctx)
}

func (s *session) GenerateKey(ctx context.Context, spec hsm.KeySpec) (*hsm.Key, error) {
	generate := func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
		return s.Token.GenerateKey(ctx, spec)
	}
	if s.d.generate != nil {
		generate = s.d.generate
	}
	key, err := generate(ctx, s, spec)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.made = append(s.made, spec.ID)
	s.mu.Unlock()
	s.seen(key)
	return key, nil
}

func (s *session) Keys(ctx context.Context) ([]hsm.Key, error) {
	keys, err := s.Token.Keys(ctx)
	if s.d.keys != nil {
		keys, err = s.d.keys(ctx, s)
	}
	for i := range keys {
		s.seen(&keys[i])
	}
	return keys, err
}

func (s *session) Key(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	key, err := s.Token.Key(ctx, id)
	if s.d.key != nil {
		key, err = s.d.key(ctx, s, id)
	}
	if err == nil {
		s.seen(key)
	}
	return key, err
}

func (s *session) CheckValue(ctx context.Context, id hsm.KeyID) (hsm.CheckValue, error) {
	if s.d.checkValue != nil {
		return s.d.checkValue(ctx, s, id)
	}
	return s.Token.CheckValue(ctx, id)
}

func (s *session) Wrap(ctx context.Context, req hsm.WrapRequest) ([]byte, error) {
	if s.d.wrap != nil {
		return s.d.wrap(ctx, s, req)
	}
	return s.Token.Wrap(ctx, req)
}

func (s *session) SealKey(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	sealKey := func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) { return s.Token.SealKey(ctx, id) }
	if s.d.sealKey != nil {
		sealKey = s.d.sealKey
	}
	key, err := sealKey(ctx, s, id)
	if err == nil {
		s.seen(key)
	}
	return key, err
}

func (s *session) DestroyKey(ctx context.Context, id hsm.KeyID) error {
	if s.d.destroy != nil {
		return s.d.destroy(ctx, s, id)
	}
	return s.Token.DestroyKey(ctx, id)
}

func (s *session) Health(ctx context.Context) error {
	if s.d.health != nil {
		return s.d.health(ctx, s)
	}
	return s.Token.Health(ctx)
}

func (s *session) Close(ctx context.Context) error {
	if s.d.close != nil {
		if err := s.d.close(ctx, s); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.Token.Close(ctx)
}

func isNotFound(err error) bool { return errors.Is(err, hsm.NotFound) }
