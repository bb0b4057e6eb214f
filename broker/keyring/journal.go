package keyring

import (
	"cmp"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/kmsbroker/kmsbroker/broker/failure"
)

// Imports returns copies of the unfinished imports, ordered by name.
func (k *Keyring) Imports() []*Import {
	s := k.snapshot.Load()
	imports := make([]*Import, 0, len(s.imports))
	for _, imp := range s.imports {
		imports = append(imports, imp.clone())
	}
	slices.SortFunc(imports, func(a, b *Import) int { return cmp.Compare(a.Name, b.Name) })
	return imports
}

// Import returns a copy of the unfinished import of that name.
func (k *Keyring) Import(name string) (*Import, bool) {
	imp, ok := k.snapshot.Load().imports[name]
	if !ok {
		return nil, false
	}
	return imp.clone(), true
}

// BeginImport stores the journal of a new import. WrongState: another one of that
// name is unfinished, or a new key's name is taken. NotFound: there is no key to
// rotate or to extend.
func (k *Keyring) BeginImport(imp *Import) error {
	return k.write(func(tx *bbolt.Tx, next *snapshot) error {
		exists := next.keys[imp.Name] != nil
		switch {
		case next.imports[imp.Name] != nil, imp.Kind == NewKey && exists:
			return failure.New(failure.WrongState, "KEY_EXISTS", "the name %q is taken", imp.Name).
				WithHint("choose another name, or see `kmsbrokerctl key list`")
		case imp.Kind != NewKey && !exists:
			return notFound(imp.Name)
		}
		next.imports[imp.Name] = imp.clone()
		return put(tx, importsBucket, imp.Name, imp)
	})
}

// BeginStep records that a step is about to be tried. The region is "" for a step
// that belongs to none.
func (k *Keyring) BeginStep(name, region, step string, now time.Time) (*Import, error) {
	return k.UpdateImport(name, func(imp *Import) {
		if s := imp.Step(region, step); s != nil {
			s.Started, s.Done = now, time.Time{}
			return
		}
		if steps := imp.steps(region); steps != nil {
			*steps = append(*steps, ImportStep{Name: step, Started: now})
		}
	})
}

// EndStep records that a step ended well, together with what it found out.
func (k *Keyring) EndStep(name, region, step string, now time.Time, found func(*Import)) (*Import, error) {
	return k.UpdateImport(name, func(imp *Import) {
		if s := imp.Step(region, step); s != nil {
			s.Done = now
		}
		found(imp)
	})
}

// WithdrawStep takes back the record of a step that was begun and of which it is
// certain that it did nothing.
func (k *Keyring) WithdrawStep(name, region, step string) (*Import, error) {
	return k.UpdateImport(name, func(imp *Import) {
		if steps := imp.steps(region); steps != nil {
			*steps = slices.DeleteFunc(*steps, func(s ImportStep) bool { return s.Name == step })
		}
	})
}

// AbandonImport removes a journal. Whatever was made stays, and what happened to
// the HSM keys of a key that exists stays in its history.
func (k *Keyring) AbandonImport(name string) error {
	return k.write(func(tx *bbolt.Tx, next *snapshot) error {
		imp, err := next.unfinished(name)
		if err != nil {
			return err
		}
		if old := next.keys[name]; old != nil {
			key := old.clone()
			key.remember(imp)
			next.setKey(key)
			if err := put(tx, keysBucket, name, key); err != nil {
				return err
			}
		}
		delete(next.imports, name)
		return tx.Bucket(importsBucket).Delete([]byte(name))
	})
}

// UpdateImport changes an unfinished import and stores it.
func (k *Keyring) UpdateImport(name string, change func(*Import)) (*Import, error) {
	var imp *Import
	err := k.write(func(tx *bbolt.Tx, next *snapshot) (err error) {
		if imp, err = next.unfinished(name); err != nil {
			return err
		}
		change(imp)
		next.imports[name] = imp
		return put(tx, importsBucket, name, imp)
	})
	if err != nil {
		return nil, err
	}
	return imp.clone(), nil
}

// FinishRegion gives the key the CMK of one region, and ends the journal when that
// was the last, in one transaction. A new key exists from its first region on.
func (k *Keyring) FinishRegion(name, region string) (*Key, error) {
	var key *Key
	err := k.write(func(tx *bbolt.Tx, next *snapshot) error {
		imp, err := next.unfinished(name)
		if err != nil {
			return err
		}
		if key = imp.key(); next.keys[name] != nil {
			key = next.keys[name].clone()
		}
		if owner := next.byCMK[imp.In(region).KeyID]; owner != nil && owner.Name != name {
			return cmkTaken(imp.In(region).KeyID, owner.Name)
		}
		key.add(imp, region)
		imp.In(region).Finished = true
		next.setKey(key)
		if err := put(tx, keysBucket, name, key); err != nil {
			return err
		}
		if imp.Finished() {
			delete(next.imports, name)
			return tx.Bucket(importsBucket).Delete([]byte(name))
		}
		next.imports[name] = imp
		return put(tx, importsBucket, name, imp)
	})
	if err != nil {
		return nil, err
	}
	return key.clone(), nil
}

func (s *snapshot) unfinished(name string) (*Import, error) {
	imp, ok := s.imports[name]
	if !ok {
		return nil, failure.New(failure.NotFound, "IMPORT_NOT_FOUND", "there is no unfinished import of %q", name)
	}
	return imp.clone(), nil
}
