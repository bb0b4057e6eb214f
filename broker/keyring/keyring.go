// Package keyring is the broker's memory: which names stand for which CMKs and
// HSM keys, how far each unfinished import has come, and which access keys were
// issued to applications. The secrets of these are the only ones in it.
//
// It is one bbolt file. Every change is on disk before the call returns; reads
// are answered from an immutable snapshot and take no lock.
package keyring

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/internal/boltfile"
)

// FileName is the registry's name within the state directory.
const FileName = "keyring.db"

// formatVersion is written into every file; a file of another version is
// refused, never converted in passing.
const formatVersion = "1"

var (
	metaBucket    = []byte("meta")
	keysBucket    = []byte("keys")
	importsBucket = []byte("imports")
	loginsBucket  = []byte("logins") // by token
	tokensBucket  = []byte("tokens") // that each backend has met last
	appsBucket    = []byte("apps")   // by ID of the access key
	versionKey    = []byte("version")
	instanceKey   = []byte("instance-id")
)

// Keyring is an open registry. Its methods may be called concurrently.
type Keyring struct {
	db         *bbolt.DB
	instanceID string

	writing  sync.Mutex // held from the transaction to the publication
	snapshot atomic.Pointer[snapshot]

	copying sync.Mutex // one snapshot at a time
	turning sync.Mutex
	turns   map[string]chan struct{} // at logging in, by token
}

// snapshot is never changed after it was published, nor is what it points to.
type snapshot struct {
	keys    map[string]*Key
	byCMK   map[string]*Key
	imports map[string]*Import
	apps    map[string]*appSecret
	// materials are collected when they are asked for.
	materials func() map[hsm.KeyID]struct{}
}

// Open opens or creates the registry in dir, which must exist.
func Open(dir string) (*Keyring, error) {
	path := filepath.Join(dir, FileName)
	db, err := boltfile.Open(path)
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("key registry %s is in use by another kmsbrokerd; stop it first", path)
	case isSystem(err):
		return nil, fmt.Errorf("open key registry: %w", err)
	case err != nil:
		return nil, fmt.Errorf("key registry %s is damaged, restore it from a backup: %w", path, err)
	}
	removeSnapshots(dir, 0)
	k := &Keyring{db: db, turns: map[string]chan struct{}{}}
	if err := boltfile.Survive(func() error { return k.load() }); err != nil {
		// A file whose pages cannot be read cannot be closed either.
		closed := boltfile.Survive(db.Close)
		return nil, errors.Join(fmt.Errorf("key registry %s: %w", path, err), closed)
	}
	return k, nil
}

// isSystem reports that the file system refused, which says nothing against the
// file.
func isSystem(err error) bool {
	_, ok := errors.AsType[syscall.Errno](err)
	return ok
}

func (k *Keyring) load() error {
	return k.db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		switch version := string(meta.Get(versionKey)); version {
		case formatVersion:
		case "":
			if err := initialize(tx, meta); err != nil {
				return err
			}
		default:
			return fmt.Errorf("it has format %s, this kmsbrokerd knows %s; run the release that wrote it",
				version, formatVersion)
		}
		for _, name := range [][]byte{loginsBucket, tokensBucket, appsBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		k.instanceID = string(meta.Get(instanceKey))
		s, err := readAll(tx)
		if err != nil {
			return err
		}
		k.publish(s)
		return nil
	})
}

func initialize(tx *bbolt.Tx, meta *bbolt.Bucket) error {
	for _, name := range [][]byte{keysBucket, importsBucket} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return errors.Join(
		meta.Put(versionKey, []byte(formatVersion)),
		meta.Put(instanceKey, []byte(rand.Text())))
}

func readAll(tx *bbolt.Tx) (*snapshot, error) {
	s := &snapshot{keys: map[string]*Key{}, byCMK: map[string]*Key{}, imports: map[string]*Import{}}
	keys, imports := tx.Bucket(keysBucket), tx.Bucket(importsBucket)
	if keys == nil || imports == nil {
		return nil, damaged("buckets", "keys or imports", errors.New("missing"))
	}
	err := keys.ForEach(func(name, raw []byte) error {
		var key Key
		if err := json.Unmarshal(raw, &key); err != nil || len(key.CMKs) == 0 || key.Name != string(name) {
			return damaged("keys", string(name), err)
		}
		s.setKey(&key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = imports.ForEach(func(name, raw []byte) error {
		var imp Import
		if err := json.Unmarshal(raw, &imp); err != nil || imp.Name != string(name) {
			return damaged("imports", string(name), err)
		}
		s.imports[imp.Name] = &imp
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.apps, err = readApps(tx)
	return s, err
}

func damaged(bucket, name string, err error) error {
	return failure.New(failure.Corrupt, "REGISTRY_CORRUPT",
		"record %s/%s is damaged, restore the file from a backup: %v", bucket, name, err)
}

// Close closes the file.
func (k *Keyring) Close() error { return k.db.Close() }

// InstanceID is the random name of this registry. CMKs are tagged with it.
func (k *Keyring) InstanceID() string { return k.instanceID }

// Keys returns copies of all keys, ordered by name.
func (k *Keyring) Keys() []*Key {
	s := k.snapshot.Load()
	keys := make([]*Key, 0, len(s.keys))
	for _, key := range s.keys {
		keys = append(keys, key.clone())
	}
	slices.SortFunc(keys, func(a, b *Key) int { return cmp.Compare(a.Name, b.Name) })
	return keys
}

// All goes through all keys in no order. They are not copies and must not be
// changed.
func (k *Keyring) All() iter.Seq[*Key] { return maps.Values(k.snapshot.Load().keys) }

// Key returns a copy of the key of that name.
func (k *Keyring) Key(name string) (*Key, error) {
	key, ok := k.snapshot.Load().keys[name]
	if !ok {
		return nil, notFound(name)
	}
	return key.clone(), nil
}

// ByCMK returns a copy of the key that the CMK, of any generation, belongs to.
func (k *Keyring) ByCMK(keyID string) (*Key, bool) {
	key, ok := k.snapshot.Load().byCMK[keyID]
	if !ok {
		return nil, false
	}
	return key.clone(), true
}

// Add stores a key that was made elsewhere. WrongState: its name or one of its
// CMKs is taken.
func (k *Keyring) Add(key *Key) error {
	return k.write(func(tx *bbolt.Tx, next *snapshot) error {
		if next.keys[key.Name] != nil || next.imports[key.Name] != nil {
			return failure.New(failure.WrongState, "KEY_EXISTS", "the name %q is taken", key.Name).
				WithHint("choose another name, or see `kmsbrokerctl key list`")
		}
		for _, cmk := range key.CMKs {
			if owner := next.byCMK[cmk.KeyID]; owner != nil {
				return cmkTaken(cmk.KeyID, owner.Name)
			}
			for _, imp := range next.imports {
				if slices.Contains(imp.KeyIDs(), cmk.KeyID) {
					return cmkTaken(cmk.KeyID, imp.Name)
				}
			}
		}
		next.setKey(key.clone())
		return put(tx, keysBucket, key.Name, key)
	})
}

// Forget removes a key. Its CMKs and HSM keys stay where they are.
func (k *Keyring) Forget(name string) error {
	return k.write(func(tx *bbolt.Tx, next *snapshot) error {
		key := next.keys[name]
		switch {
		case key == nil:
			return notFound(name)
		case next.imports[name] != nil:
			return failure.New(failure.WrongState, "IMPORT_UNFINISHED", "an import of %q is unfinished", name).
				WithHint("finish it, or give it up with `kmsbrokerctl key abandon %s`", name)
		}
		delete(next.keys, name)
		for _, cmk := range key.CMKs {
			if next.byCMK[cmk.KeyID] == key {
				delete(next.byCMK, cmk.KeyID)
			}
		}
		return tx.Bucket(keysBucket).Delete([]byte(name))
	})
}

func cmkTaken(keyID, owner string) error {
	return failure.New(failure.WrongState, "CMK_TAKEN", "CMK %s belongs to key %q already", keyID, owner)
}

// Update changes a key and stores it. An error of change stores nothing.
func (k *Keyring) Update(name string, change func(*Key) error) (*Key, error) {
	var key *Key
	err := k.write(func(tx *bbolt.Tx, next *snapshot) error {
		old, ok := next.keys[name]
		if !ok {
			return notFound(name)
		}
		key = old.clone()
		if err := change(key); err != nil {
			return err
		}
		next.setKey(key)
		return put(tx, keysBucket, name, key)
	})
	if err != nil {
		return nil, err
	}
	return key.clone(), nil
}

func notFound(name string) error {
	return failure.New(failure.NotFound, "KEY_NOT_FOUND", "there is no key %.80q", name).
		WithHint("`kmsbrokerctl key list` shows the keys, and `kmsbrokerctl whoami` those that a caller may use")
}

// write runs fn in a transaction on a copy of the snapshot and publishes the
// copy once the transaction is on disk.
func (k *Keyring) write(fn func(*bbolt.Tx, *snapshot) error) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	old := k.snapshot.Load()
	next := &snapshot{
		keys: maps.Clone(old.keys), byCMK: maps.Clone(old.byCMK), imports: maps.Clone(old.imports), apps: maps.Clone(old.apps),
	}
	if err := k.db.Update(func(tx *bbolt.Tx) error { return fn(tx, next) }); err != nil {
		return err
	}
	k.publish(next)
	return nil
}

func (k *Keyring) publish(s *snapshot) {
	s.materials = sync.OnceValue(s.findMaterials)
	k.snapshot.Store(s)
}

func (s *snapshot) setKey(key *Key) {
	s.keys[key.Name] = key
	for _, cmk := range key.CMKs {
		s.byCMK[cmk.KeyID] = key
	}
}

// get reads a record into v and leaves v alone when there is none.
func get(tx *bbolt.Tx, bucket []byte, name string, v any) error {
	raw := tx.Bucket(bucket).Get([]byte(name))
	if raw == nil {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return damaged(string(bucket), name, err)
	}
	return nil
}

func put(tx *bbolt.Tx, bucket []byte, name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.Bucket(bucket).Put([]byte(name), raw)
}
