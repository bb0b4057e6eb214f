package conformance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func lifeDefects() []defect {
	return []defect{
		{"D-01", "a destroyed key can be read", func(d *device) {
			var mu sync.Mutex
			ghosts := map[hsm.KeyID]*hsm.Key{}
			d.destroy = func(ctx context.Context, s *session, id hsm.KeyID) error {
				key, err := s.Token.Key(ctx, id)
				if err == nil {
					mu.Lock()
					ghosts[id] = key
					mu.Unlock()
				}
				return s.Token.DestroyKey(ctx, id)
			}
			d.key = func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
				key, err := s.Token.Key(ctx, id)
				mu.Lock()
				defer mu.Unlock()
				if ghost := ghosts[id]; isNotFound(err) && ghost != nil {
					return ghost, nil
				}
				return key, err
			}
		}, nil},
		{"D-02", "destroys what is not there", func(d *device) {
			d.destroy = func(ctx context.Context, s *session, id hsm.KeyID) error {
				if err := s.Token.DestroyKey(ctx, id); !isNotFound(err) {
					return err
				}
				return nil
			}
		}, nil},
		{"D-03", "destroys by label", func(d *device) {
			d.destroy = func(ctx context.Context, s *session, id hsm.KeyID) error {
				key, err := s.Token.Key(ctx, id)
				if err != nil {
					return err
				}
				keys, err := s.Token.Keys(ctx)
				for _, k := range keys {
					if k.Label == key.Label {
						_ = s.Token.DestroyKey(ctx, k.ID)
					}
				}
				return err
			}
		}, nil},
		{"D-04", "keeps handles of destroyed keys", func(d *device) {
			var mu sync.Mutex
			values := map[hsm.KeyID][]byte{}
			d.wrap = func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
				blob, err := s.Token.Wrap(ctx, req)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					values[req.Key] = s.Value(req.Key)
				}
				if value := values[req.Key]; isNotFound(err) && value != nil {
					receiver, _ := sharedRSA.get(2048)
					return seal(&receiver.private.PublicKey, value, req.Algorithm, 0)
				}
				return blob, err
			}
		}, nil},
		{"R-01", "makes session objects", func(d *device) {
			d.close = func(_ context.Context, s *session) error {
				if !s.wasKilled() {
					forget(s)
				}
				return nil
			}
		}, []string{"S-03"}},
		{"R-02", "remembers IDs in memory", func(d *device) {
			var mu sync.Mutex
			twin := map[hsm.KeyID]bool{}
			d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
				_, missing := s.Token.Key(ctx, spec.ID)
				key, err := s.Token.GenerateKey(ctx, spec)
				mu.Lock()
				defer mu.Unlock()
				if err == nil && missing == nil && !slices.Contains(s.madeHere(), spec.ID) && !strings.Contains(spec.Label, "G-09") {
					twin[spec.ID] = true
				}
				return key, err
			}
			d.keys = func(ctx context.Context, s *session) ([]hsm.Key, error) {
				keys, err := s.Token.Keys(ctx)
				mu.Lock()
				defer mu.Unlock()
				for _, k := range slices.Clone(keys) {
					if twin[k.ID] {
						keys = append(keys, k)
					}
				}
				return keys, err
			}
		}, nil},
		{"R-03", "stores keys when it closes", func(d *device) {
			d.open = func(d *device) error {
				if s := d.current; s != nil && s.wasKilled() {
					forget(s)
				}
				return nil
			}
		}, nil},
		{"R-04", "calls a killed process an internal error", func(d *device) {
			d.wrap = func(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
				blob, err := s.Token.Wrap(ctx, req)
				if errors.Is(err, hsm.TokenGone) {
					err = hsm.Errorf(hsm.Internal, "broken pipe")
				}
				return blob, err
			}
		}, nil},
	}
}

// forget drops the keys that were made in a session.
func forget(s *session) {
	for _, id := range s.madeHere() {
		_ = s.d.base.DestroyKey(context.Background(), id)
	}
}

// busy counts the wraps in flight, each of which takes a while.
type busy struct{ n atomic.Int32 }

func (b *busy) wrap(ctx context.Context, s *session, req hsm.WrapRequest) ([]byte, error) {
	b.n.Add(1)
	defer b.n.Add(-1)
	time.Sleep(time.Millisecond)
	return s.Token.Wrap(ctx, req)
}
