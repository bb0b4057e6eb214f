package conformance

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func listDefects() []defect {
	return []defect{
		{"L-01", "batches of two lose the odd one", relisted(func(keys []hsm.Key) []hsm.Key { return keys[:len(keys)/2*2] }), nil},
		{"L-02", "newest first", relisted(func(keys []hsm.Key) []hsm.Key { slices.Reverse(keys); return keys }), nil},
		{"L-03", "the list knows less", relisted(func(keys []hsm.Key) []hsm.Key {
			for i := range keys {
				keys[i].Encrypt = false
			}
			return keys
		}), nil},
		{"L-04", "the list is remembered", func(d *device) {
			var mu sync.Mutex
			listed := map[hsm.KeyID]hsm.Key{}
			relisted(func(keys []hsm.Key) []hsm.Key {
				mu.Lock()
				defer mu.Unlock()
				for _, k := range keys {
					listed[k.ID] = k
				}
				ids := slices.Sorted(maps.Keys(listed))
				keys = nil
				for _, id := range ids {
					keys = append(keys, listed[id])
				}
				return keys
			})(d)
		}, nil},
		{"L-05", "the list ends after one batch", relisted(func(keys []hsm.Key) []hsm.Key { return keys[:min(len(keys), 64)] }), nil},
		{"L-06", "an unknown key is called invalid", func(d *device) {
			was := known(d)
			d.key = func(ctx context.Context, s *session, id hsm.KeyID) (*hsm.Key, error) {
				key, err := s.Token.Key(ctx, id)
				if isNotFound(err) && !was(id) {
					err = hsm.Errorf(hsm.Invalid, "no such key")
				}
				return key, err
			}
		}, nil},
		{"L-07", "IDs are made lower-case", func(d *device) {
			d.destroy = func(ctx context.Context, s *session, id hsm.KeyID) error {
				return s.Token.DestroyKey(ctx, hsm.KeyID(strings.ToLower(string(id))))
			}
		}, nil},
		{"K-01", "another check value", func(d *device) {
			d.checkValue = func(ctx context.Context, s *session, id hsm.KeyID) (hsm.CheckValue, error) {
				value, err := s.Token.CheckValue(ctx, id)
				value[0] ^= 1
				return value, err
			}
		}, nil},
		{"K-02", "invents check values", func(d *device) {
			was := known(d)
			d.checkValue = func(ctx context.Context, s *session, id hsm.KeyID) (hsm.CheckValue, error) {
				value, err := s.Token.CheckValue(ctx, id)
				if isNotFound(err) && !was(id) {
					err = nil
				}
				return value, err
			}
		}, nil},
	}
}
