package emulator

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// region holds the keys of one region. Reading takes the lock for the moment of
// a look-up; what it returns does not change any more.
type region struct {
	name  string
	store *store // nil: memory only

	// changing is held by each operation that changes a key, from its first
	// look to its commit.
	changing sync.Mutex
	// due is the time (Unix seconds) at which something next expires; it
	// may be too early, never too late.
	due atomic.Int64

	mu       sync.RWMutex
	keys     map[string]*key
	versions map[string]*key   // by version ID
	aliases  map[string]string // name with its prefix -> key ID
	tokens   map[string]*importToken
}

// batch is a set of changes that happen together. A nil or empty value removes.
type batch struct {
	keys    map[string]*key
	aliases map[string]string
	tokens  map[string]*importToken
}

func putKey(k *key) batch { return batch{keys: map[string]*key{k.ID: k}} }

func newRegion(name string, store *store) (*region, error) {
	r := &region{
		name: name, store: store,
		keys: map[string]*key{}, versions: map[string]*key{}, aliases: map[string]string{}, tokens: map[string]*importToken{},
	}
	if store != nil {
		b, err := store.load(name)
		if err != nil {
			return nil, err
		}
		r.publish(b)
	}
	return r, nil
}

// commit makes changes, on disk before anybody can see them.
func (r *region) commit(b batch) error {
	if r.store != nil {
		if err := r.store.commit(r.name, b); err != nil {
			return err
		}
	}
	r.publish(b)
	return nil
}

func (r *region) publish(b batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, k := range b.keys {
		if k == nil {
			for _, v := range r.keys[id].keyVersions() {
				delete(r.versions, v.KeyVersionID)
			}
			delete(r.keys, id)
			continue
		}
		r.keys[id] = k
		for _, v := range k.keyVersions() {
			r.versions[v.KeyVersionID] = k
		}
		r.expect(k.nextEvent())
	}
	for name, id := range b.aliases {
		if id == "" {
			delete(r.aliases, name)
		} else {
			r.aliases[name] = id
		}
	}
	for text, token := range b.tokens {
		if token == nil {
			delete(r.tokens, text)
		} else {
			r.tokens[text] = token
			r.expect(token.nextEvent())
		}
	}
}

// expect moves due to at when that is earlier.
func (r *region) expect(at time.Time) {
	if !at.IsZero() && at.Unix() < r.due.Load() {
		r.due.Store(at.Unix())
	}
}

func (r *region) key(id string) (*key, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	k, ok := r.keys[id]
	return k, ok
}

func (r *region) keyOfVersion(version string) (*key, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	k, ok := r.versions[version]
	return k, ok
}

func (r *region) alias(name string) (keyID string, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	keyID, ok = r.aliases[name]
	return keyID, ok
}

func (r *region) token(text string) (*importToken, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t, ok := r.tokens[text]
	return t, ok
}

// allKeys returns the keys, oldest first.
func (r *region) allKeys() []*key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.SortedFunc(maps.Values(r.keys), older)
}

// aliasesOf returns the names of a key, or all names when keyID is empty, sorted.
func (r *region) aliasesOf(keyID string) []wire.AliasEntry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []wire.AliasEntry
	for name, id := range r.aliases {
		if keyID == "" || id == keyID {
			list = append(list, wire.AliasEntry{KeyID: id, AliasName: name, AliasArn: r.arn(name)})
		}
	}
	slices.SortFunc(list, func(a, b wire.AliasEntry) int { return strings.Compare(a.AliasName, b.AliasName) })
	return list
}
