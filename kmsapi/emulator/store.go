package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/kmsbroker/kmsbroker/internal/boltfile"
)

const (
	storeFile   = "emulator.db"
	storeFormat = 1
)

// The layout of the file: bucket "kmsbroker-emulator" holds "format" and
// "account", which is the state of package ram, and
// "regions" one bucket for each region with "keys", "aliases" and "tokens", whose
// values are JSON.
var (
	bucketAbout   = []byte("kmsbroker-emulator")
	bucketRegions = []byte("regions")
	bucketKeys    = []byte("keys")
	bucketAliases = []byte("aliases")
	bucketTokens  = []byte("tokens")
	fieldFormat   = []byte("format")
	fieldAccount  = []byte("account")
)

// store is the durable state. Key material and the private halves of wrapping
// keys are in it in clear.
type store struct {
	db *bbolt.DB
}

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	path := filepath.Join(dir, storeFile)
	db, err := boltfile.Open(path)
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("state file %s is in use by another emulator: stop it or choose another directory", path)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("state file: %w", err)
	case err != nil:
		return nil, fmt.Errorf("state file %s is damaged (%w): restore it from a copy or choose another directory", path, err)
	}
	if err := boltfile.Survive(func() error { return db.Update(checkFormat) }); err != nil {
		return nil, errors.Join(fmt.Errorf("state file %s: %w", path, err), db.Close())
	}
	return &store{db}, nil
}

// checkFormat marks a new file and refuses one that is not ours or is of another
// version.
func checkFormat(tx *bbolt.Tx) error {
	about := tx.Bucket(bucketAbout)
	if about == nil {
		if name, _ := tx.Cursor().First(); name != nil {
			return errors.New("it belongs to another program: choose another directory")
		}
		about, err := tx.CreateBucket(bucketAbout)
		if err != nil {
			return err
		}
		return about.Put(fieldFormat, strconv.AppendInt(nil, storeFormat, 10))
	}
	if format := string(about.Get(fieldFormat)); format != strconv.Itoa(storeFormat) {
		return fmt.Errorf("it has format %q and this version reads %d: use the version that wrote it, or choose another directory", format, storeFormat)
	}
	return nil
}

// account reads the state of the account, nil when there is none.
func (s *store) account() (state []byte, err error) {
	err = boltfile.Survive(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			state = bytes.Clone(tx.Bucket(bucketAbout).Get(fieldAccount))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("state file %s is damaged: %w: restore it from a copy or choose another directory", s.db.Path(), err)
	}
	return state, nil
}

// saveAccount returns when the state is on disk.
func (s *store) saveAccount(state []byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketAbout).Put(fieldAccount, state) })
}

func (s *store) close() error { return s.db.Close() }

// load reads all that a region has.
func (s *store) load(region string) (batch, error) {
	b := batch{keys: map[string]*key{}, aliases: map[string]string{}, tokens: map[string]*importToken{}}
	err := boltfile.Survive(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			root := tx.Bucket(bucketRegions)
			if root == nil || root.Bucket([]byte(region)) == nil {
				return nil
			}
			r := root.Bucket([]byte(region))
			return errors.Join(loadBucket(r, bucketKeys, b.keys), loadBucket(r, bucketAliases, b.aliases), loadBucket(r, bucketTokens, b.tokens))
		})
	})
	if err == nil {
		err = b.check()
	}
	if err != nil {
		return batch{}, fmt.Errorf("state file %s is damaged: region %s: %w: restore it from a copy or choose another directory", s.db.Path(), region, err)
	}
	return b, nil
}

func loadBucket[T any](region *bbolt.Bucket, name []byte, into map[string]T) error {
	bucket := region.Bucket(name)
	if bucket == nil {
		return nil
	}
	return bucket.ForEach(func(id, value []byte) error {
		var record T
		if err := json.Unmarshal(value, &record); err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
		into[string(id)] = record
		return nil
	})
}

// check makes loaded keys ready for use and refuses what no emulator wrote.
func (b batch) check() error {
	for id, k := range b.keys {
		if k == nil || k.ID != id {
			return fmt.Errorf("key %s has another's record", id)
		}
		if err := k.setPolicy(k.Policy); err != nil {
			return err
		}
		if k.Material == nil {
			continue
		}
		if len(k.Material) != materialSize || len(k.Version) != versionSize {
			return fmt.Errorf("key %s has a damaged record", id)
		}
		for i := range k.Older {
			aead, err := newAEAD(k.Older[i].Material)
			if err != nil {
				return fmt.Errorf("key %s has a damaged record: %w", id, err)
			}
			k.Older[i].aead = aead
		}
		if err := k.setMaterial(k.Material, k.MaterialExpiresAt); err != nil {
			return err
		}
	}
	for name, id := range b.aliases {
		if b.keys[id] == nil {
			return fmt.Errorf("%s names no key", name)
		}
	}
	for _, t := range b.tokens {
		if t == nil {
			return errors.New("an import token has no record")
		}
	}
	return nil
}

// commit writes a batch and returns when it is on disk.
func (s *store) commit(region string, b batch) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		root, err := tx.CreateBucketIfNotExists(bucketRegions)
		if err != nil {
			return err
		}
		r, err := root.CreateBucketIfNotExists([]byte(region))
		if err != nil {
			return err
		}
		return errors.Join(
			saveBucket(r, bucketKeys, b.keys, func(k *key) bool { return k == nil }),
			saveBucket(r, bucketAliases, b.aliases, func(id string) bool { return id == "" }),
			saveBucket(r, bucketTokens, b.tokens, func(t *importToken) bool { return t == nil }),
		)
	})
}

func saveBucket[T any](region *bbolt.Bucket, name []byte, records map[string]T, removed func(T) bool) error {
	bucket, err := region.CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	for id, record := range records {
		if removed(record) {
			if err := bucket.Delete([]byte(id)); err != nil {
				return err
			}
			continue
		}
		value, err := json.Marshal(record)
		if err != nil {
			return err
		}
		if err := bucket.Put([]byte(id), value); err != nil {
			return err
		}
	}
	return nil
}
