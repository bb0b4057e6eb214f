package pkcs11

import (
	"cmp"
	"context"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Keys implements [hsm.Token]. A key whose CKA_ID is empty or longer than a
// KeyID allows is listed with an empty ID.
func (t *Token) Keys(ctx context.Context) ([]hsm.Key, error) {
	var keys []hsm.Key
	err := t.pool.do(ctx, func(s *session) error {
		found, err := s.find(
			p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
			p11.NewAttribute(p11.CKA_TOKEN, true),
		)
		if err != nil {
			return err
		}
		if err := s.checkLogin(); err != nil {
			return err
		}
		keys = make([]hsm.Key, 0, len(found))
		for _, object := range found {
			if ctx.Err() != nil {
				return hsm.Errorf(hsm.Timeout, "list keys: %v", context.Cause(ctx))
			}
			key, err := t.readKey(s, object)
			if vanished(err) {
				continue // destroyed by somebody else since it was found
			}
			if err != nil {
				return err
			}
			keys = append(keys, *key)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(keys, func(a, b hsm.Key) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Label, b.Label))
	})
	return keys, nil
}

// Key implements [hsm.Token].
func (t *Token) Key(ctx context.Context, id hsm.KeyID) (*hsm.Key, error) {
	var key *hsm.Key
	err := t.pool.do(ctx, onKey(id, func(s *session, object p11.ObjectHandle) (err error) {
		key, err = t.readKey(s, object)
		return err
	}))
	return key, err
}

// DestroyKey implements [hsm.Token].
func (t *Token) DestroyKey(ctx context.Context, id hsm.KeyID) error {
	if err := t.mayChange("destroy keys"); err != nil {
		return err
	}
	err := t.pool.alone(ctx, onKey(id, func(s *session, object p11.ObjectHandle) error {
		if err := s.DestroyObject(s.handle, object); err != nil {
			return deviceError(err, "destroy key %s", id)
		}
		return nil
	}))
	if err == nil {
		t.logger.Info("HSM key destroyed", "id", string(id))
	}
	return err
}

// Health implements [hsm.Token]. A random byte is the cheapest thing that only
// the device itself can answer; the state of a session may come from the
// library's memory.
func (t *Token) Health(ctx context.Context) error {
	return t.pool.do(ctx, func(s *session) error {
		if err := s.checkLogin(); err != nil {
			return err
		}
		_, err := s.GenerateRandom(s.handle, 1)
		if err != nil && !hasCode(err, p11.CKR_RANDOM_NO_RNG, p11.CKR_FUNCTION_NOT_SUPPORTED) {
			return deviceError(err, "ask the token for a random byte")
		}
		return nil
	})
}

// onKey makes fn, which wants the handle of a key, into what the pool runs. The
// key is looked up once more when its handle went bad in between, which then
// tells whether it is gone.
func onKey(id hsm.KeyID, fn func(s *session, object p11.ObjectHandle) error) func(s *session) error {
	return func(s *session) error {
		if _, err := hsm.ParseKeyID(string(id)); err != nil {
			return err
		}
		object, err := s.findKey(id)
		if err != nil {
			return err
		}
		err = fn(s, object)
		if !vanished(err) {
			return err
		}
		if object, err = s.findKey(id); err != nil {
			return err
		}
		return fn(s, object)
	}
}
