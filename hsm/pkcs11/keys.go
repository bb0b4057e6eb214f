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
//
// A long list is read in turns, between which calls that need the token for
// themselves get it.
func (t *Token) Keys(ctx context.Context) ([]hsm.Key, error) {
	var found []p11.ObjectHandle
	err := t.pool.do(ctx, func(s *session) (err error) {
		found, err = s.find(
			p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
			p11.NewAttribute(p11.CKA_TOKEN, true),
		)
		if err != nil {
			return err
		}
		return s.checkLogin()
	})
	if err != nil {
		return nil, err
	}
	keys := make([]hsm.Key, 0, len(found))
	for some := range slices.Chunk(found, keysPerTurn) {
		var read []hsm.Key
		err := t.pool.do(ctx, func(s *session) (err error) {
			read, err = t.readKeys(s, some)
			return err
		})
		if err != nil {
			return nil, err
		}
		keys = append(keys, read...)
	}
	slices.SortStableFunc(keys, func(a, b hsm.Key) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Label, b.Label))
	})
	return keys, nil
}

// keysPerTurn is how many keys a list reads before others get their turn; a slow
// device needs 200 ms for each.
const keysPerTurn = 16

// readKeys reads those of the objects that are still there. Their handles hold in
// every session, but not beyond the login, without which keys would seem to be
// gone that are not.
func (t *Token) readKeys(s *session, objects []p11.ObjectHandle) ([]hsm.Key, error) {
	var keys []hsm.Key
	for _, object := range objects {
		key, err := t.readKey(s, object)
		if vanished(err) {
			err = s.checkLogin()
		} else if err == nil {
			keys = append(keys, *key)
		}
		if err != nil {
			return nil, err
		}
	}
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
		if err := s.destroy(object); err != nil {
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
